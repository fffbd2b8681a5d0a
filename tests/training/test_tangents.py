"""Tangents: with directions enough they are the exact Jacobian, with fewer they cost fewer calls and stay close."""

import pytest
import torch

from s4s.s4s_nodes.core import Model, sample, schedules
from s4s.training.optimizers.tangents import calls_per_image, measured
from s4s.training.parametrization.parameters import Parameters
from s4s.training.source import Source
from s4s.training.teacher.pairs import known_pairs
from tests.toy import toy_source


def moved(parameters: Parameters, source) -> torch.Tensor:
    """Numbers away from the base solver, the first query clear of the model's top."""
    vector = parameters.initial() + 0.05 * torch.randn(
        len(parameters.initial()), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vector[parameters.calls - 1] = -0.1
    return vector


def exact(source, parameters: Parameters, vector, pairs) -> torch.Tensor:
    """The Jacobian (n, free numbers, d) of the ends by back-propagation."""
    def end(free):
        start = pairs.start(float(parameters.start[0]), source.flow)
        return sample(source.denoiser, start, parameters.table(free), pairs.extra).flatten(1)
    return torch.autograd.functional.jacobian(end, vector).transpose(1, 2) * parameters.moving().float()[:, None]


@pytest.mark.parametrize("settings", [{}, {"learn": "coefficients"}, {"learn": "generalized"}, {"clock": "paper"},
                                      {"family": "pc", "base": "unipc_bh2_3"}])
@pytest.mark.parametrize("flow", [False, True])
def test_tangents_are_the_exact_jacobian_at_the_calls_forecast(flow, settings):
    source = toy_source(flow)
    levels = schedules.linear_flow(4, 2.0) if flow else schedules.karras(4, 0.03, source.sigma_max)
    prediction = "flow" if flow else "eps"
    parameters = Parameters(levels, flow=flow, highest=source.sigma_max, prediction=prediction, **settings)
    vector = moved(parameters, source)
    pairs = known_pairs(source, range(5), torch.zeros(5, 2))
    before = source.model_calls
    miss, jacobian = measured(source, parameters, vector, pairs)
    assert source.model_calls - before == 5 * calls_per_image(parameters, vector)
    wanted = exact(source, parameters, vector, pairs)
    assert (jacobian - wanted).norm() < 0.02 * wanted.norm()            # of differences with steps of 1 %
    start = pairs.start(float(levels[0]), flow)
    end = sample(source.denoiser, start, parameters.frozen(vector), pairs.extra)
    torch.testing.assert_close(miss, end, rtol=0, atol=1e-5)


def wide_source(size: int = 24) -> Source:
    """A source of wide images: a smooth network that bends each in its own directions, the later the less."""
    generator = torch.Generator().manual_seed(1)
    turned, _ = torch.linalg.qr(torch.randn(size, size, generator=generator))
    strength = 0.6 ** torch.arange(size)

    def network(x, sigma, label):
        seen = x / (1 + sigma[:, None] ** 2).sqrt()
        return (torch.tanh(2 * seen @ turned) * strength) @ turned.T
    model, levels = Model("wide", "eps", 0.03, 14.6), schedules.sd_levels()
    return Source("wide", model, levels, (size,), network, lambda seeds: {"label": torch.zeros(len(list(seeds)))}, 1.0,
                  torch.device("cpu"))


def test_fewer_directions_cost_fewer_calls_and_keep_most_of_the_jacobian():
    source = wide_source()
    parameters = Parameters(schedules.karras(6, 0.03, source.sigma_max), highest=source.sigma_max)
    vector = moved(parameters, source)
    pairs = known_pairs(source, range(6), torch.zeros(6, 24))
    wanted, off, cost = exact(source, parameters, vector, pairs), [], []
    for count in (2, 5, 31):
        _, jacobian = measured(source, parameters, vector, pairs, count)
        off.append(float((jacobian - wanted).norm() / wanted.norm()))
        cost.append(calls_per_image(parameters, vector, count))
    assert off[0] > off[1] > off[2] and off[1] < 0.15 and off[2] < 0.02
    assert cost[0] < cost[1] < cost[2]
