"""The measured order of every classical solver, on a problem whose exact end is known."""

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, sample

MEAN, WIDTH = 0.7, 0.5          # Gaussian data: its denoiser is linear in x and its flow has a closed form

ORDERS = {      # theory; UniPC's corrector adds one to its order
    "euler": 1, "heun": 2, "dpm_2": 2, "dpmpp_2s": 2, "dpmpp_2m": 2,
    "dpmpp_3m": 2,              # as published: its last term is half of Taylor's
    "lms_2": 2, "lms_3": 3, "lms_4": 4, "deis_2": 2, "deis_3": 3,
    "ipndm_2": 2, "ipndm_3": 2, "ipndm_4": 2,       # equal-step weights on unequal steps lose what is above 2
    "res_multistep": 2, "dpmpp_2m_sigma": 2, "exp_heun": 2, "res_2s": 2, "res_2m": 2, "ralston": 2,
    "sa_solver": 4,             # its corrector's
    "res_3s": 3, "res_3m": 2,
    "er_sde": 1,                # its integrals are sums
    "gradient_estimation": 1, "heunpp2": 1, "ipndm_v": 2,
    "unipc_bh1_sigma": 3, "unipc_bh2_sigma": 3,         # on a flow these counts are far from the limit, 4
    "unipc_bh1_1": 2, "unipc_bh1_2": 3, "unipc_bh1_3": 4,
    "unipc_bh2_1": 2, "unipc_bh2_2": 3, "unipc_bh2_3": 4,
}


def spread(sigma, flow: bool):
    """Deviation of the noised data at level sigma."""
    return (((1 - sigma) * WIDTH if flow else WIDTH) ** 2 + sigma ** 2) ** 0.5


def denoise(x, sigma, flow: bool):
    alpha = 1 - sigma[:, None] if flow else 1.0
    return MEAN + alpha * WIDTH ** 2 / spread(sigma[:, None], flow) ** 2 * (x - alpha * MEAN)


def exact_end(x, first: float, last: float, flow: bool):
    """The probability flow keeps x's number of deviations from the mean."""
    start, end = (1 - first, 1 - last) if flow else (1.0, 1.0)
    return end * MEAN + (x - start * MEAN) * spread(last, flow) / spread(first, flow)


def soft_grid(calls: int, flow: bool) -> np.ndarray:
    """Levels whose first and last steps are small: there multistep solvers still run at a lower order."""
    t = np.arange(calls + 1) / calls
    soft = t ** 3 * (10 - 15 * t + 6 * t ** 2)
    return 0.95 + (0.1 - 0.95) * soft if flow else 3.0 * (0.2 / 3.0) ** soft


def end_error(name: str, calls: int, flow: bool) -> float:
    sigmas = soft_grid(calls, flow)
    x = sigmas[0] * torch.tensor([[0.9, -0.4], [-1.3, 0.2]], dtype=torch.float64)
    end = sample(lambda x, sigma: denoise(x, sigma, flow), x, classical.SOLVERS[name](sigmas, flow=flow))
    return float((end - exact_end(x, sigmas[0], sigmas[-1], flow)).abs().max())


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_the_error_falls_with_the_order_of_the_solver(name, flow):
    counts = [40, 56, 80]
    errors = [end_error(name, calls, flow) for calls in counts]
    order = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    # 40 to 80 steps are not yet the limit: terms of neighbouring order move the slope by a quarter or so;
    # where they have opposite signs they nearly cancel and the slope is steeper, never flatter
    assert order > ORDERS[name] - 0.45
    if name in ("euler", "heun", "dpm_2", "dpmpp_2s", "lms_2", "deis_2", "unipc_bh1_1", "unipc_bh2_1"):
        assert order < ORDERS[name] + 0.2


def test_the_measurement_can_tell_a_wrong_solver(monkeypatch):
    """A 2M whose extrapolation is off by a fifth is first-order, and the measurement says so."""
    def wrong(sigmas, flow=False):
        right, euler = classical.dpmpp_2m(sigmas), classical.euler(sigmas)
        mixed = 0.8 * right.weights + 0.2 * euler.weights
        return type(right)(right.sigmas, right.query, right.scale, right.carry, mixed)
    monkeypatch.setitem(classical.SOLVERS, "wrong", wrong)
    order = np.log2(end_error("wrong", 40, False) / end_error("wrong", 80, False))
    assert order == pytest.approx(1, abs=0.25)


def test_every_solver_has_a_theory():
    assert set(ORDERS) == set(classical.SOLVERS)
