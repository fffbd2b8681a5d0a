"""What the tests of families share: tables with random free numbers, and the paper's formulas to run beside them."""

import torch

from s4s.s4s_nodes.core import classical, mixture, sample, schedules
from s4s.training.parametrization import families
from s4s.training.parametrization.parameters import Parameters

BASES = {"lms": ["dpmpp_2m", "ipndm_3"], "pc": ["unipc_bh2_3", "unipc_bh1_2", "dpmpp_2m"],
         "ss": sorted(classical.SINGLE_STEP)}
PAIRS = [(family, base) for family, bases in BASES.items() for base in bases]


def levels(steps, flow=False):
    return schedules.linear_flow(steps, 2.0) if flow else schedules.karras(steps, 0.05, 14.6)


def made(family, base, calls=6, flow=False, **settings) -> Parameters:
    start = families.start_on(family, base, lambda steps: levels(steps, flow), calls, flow)
    return Parameters(start.sigmas, base, flow=flow, family=family, **settings)


def random_vector(parameters: Parameters, spread=0.3):
    noise = torch.randn(sum(parameters.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    return parameters.initial() + spread * noise


def start_states(flow):
    noise = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return noise if flow else 14.6 * noise


def sampled(table, flow):
    return sample(lambda x, sigma: mixture(x, sigma, flow), start_states(flow), table)


class Formula:
    """alpha, sigma, lambda of each level, the paper's A and S between two of them, and the denoiser."""

    def __init__(self, table, flow):
        self.flow, self.sigma, self.query = flow, table.sigmas, table.query

    def alpha(self, i):
        return 1 - self.sigma[i] if self.flow else 1.0

    def move(self, x, i, k, delta):
        """(sigma_k / sigma_i) x - alpha_k (e^-h - 1) Delta; h = lambda_k - lambda_i."""
        ratio = (self.sigma[k] / self.alpha(k)) / (self.sigma[i] / self.alpha(i)) if self.alpha(i) else 0.0    # e^-h
        step = self.alpha(k) * (1 - ratio) if self.alpha(i) else 1 - self.sigma[k]          # its limit at s = 1
        return self.sigma[k] / self.sigma[i] * x + step * delta

    def denoised(self, x, i):
        return mixture(x, torch.full((len(x),), float(self.query[i]), dtype=torch.float64), self.flow)


def numbers(parameters, vector):
    """(R, C): the free numbers as dictionaries row, column -> number, without their unit."""
    places = families.places(parameters.family, parameters.base, parameters.calls, parameters.order,
                             parameters.start[-1] == 0)
    residuals = vector.split(list(parameters.sizes))[2]
    return [{(p.row, p.column): float(r) for p, r in zip(places, residuals) if p.block == block} for block in (0, 1)]


def weighed(coefficients, row, predictions):
    return sum(coefficients.get((row, j), 0.0) * d for j, d in enumerate(predictions))


def newest(parameters, table, row, predictions):
    """What the law gives the last row: Delta with coefficients that sum to 1."""
    total = table.weights[-1, :-1]
    return sum(w * d for w, d in zip(total, predictions)) + (1 - total.sum()) * predictions[-1]


def network(shown, level):
    return torch.tanh(1.5 * shown + level / (1 + level))
