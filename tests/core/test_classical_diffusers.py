"""The classical solvers against diffusers' schedulers: UniPC with its corrector, DEIS, DPM-Solver++.

Their levels are set by hand in float64, so that neither rounded timesteps nor float32 betas play a role.
"""

from functools import partial

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, mixture, sample, schedules
from s4s.s4s_nodes.core.classical.lowering import lowered
from s4s.s4s_nodes.core.classical.slope import _adams_bashforth

diffusers = pytest.importorskip("diffusers")

GRIDS = {
    False: [*(schedules.karras(calls, 0.03, 14.6) for calls in (1, 2, 3, 6, 20)), np.geomspace(14.6, 0.2, 7)],
    True: [*(0.999 * schedules.linear_flow(calls) for calls in (1, 2, 3, 6, 20)), np.linspace(0.98, 0.1, 7)],
}       # flow or not; diffusers has no s = 1 in its formulas either
CASES = [pytest.param(flow, sigmas, id=f"{'flow' if flow else 'VE'}-{len(sigmas) - 1}-to-{sigmas[-1]:g}")
         for flow, grids in GRIDS.items() for sigmas in grids]


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)        # diffusers makes some of its constants in the default dtype
    yield
    torch.set_default_dtype(torch.float32)


def theirs(name: str, sigmas, x, denoiser, flow: bool, **config):
    """The end of diffusers' sampler on exactly these levels; x is x0 + sigma n, or (1 - s) x0 + s n."""
    scheduler = getattr(diffusers, name)(prediction_type="sample", use_flow_sigmas=flow, **config)
    calls = len(sigmas) - 1
    scheduler.set_timesteps(calls)
    scheduler.sigmas, scheduler.timesteps = torch.from_numpy(sigmas), torch.arange(calls)
    scheduler.set_begin_index(0)

    def inside(sigma):                                  # diffusers keeps exploding states at unit variance
        return 1.0 if flow else 1 / np.sqrt(1 + sigma ** 2)
    x = x * inside(sigmas[0])
    for i, sigma in enumerate(sigmas[:-1]):
        denoised = denoiser(x / inside(sigma), torch.full((len(x),), sigma))
        x = scheduler.step(denoised, i, x, return_dict=False)[0]
    return x / inside(sigmas[-1])


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("kind, flow, sigmas", [
    pytest.param(kind, *case.values, id=f"{kind}-{case.id}") for kind in ("bh1", "bh2") for case in CASES
    if kind == "bh2" or case.values[1][-1] > 0])       # theirs is NaN on bh1's step to 0: B(h) = -inf times 0
def test_unipc_is_the_unipc_of_diffusers(flow, sigmas, kind, order, noise):
    x, denoiser = sigmas[0] * noise, partial(mixture, flow=flow)
    expected = theirs("UniPCMultistepScheduler", sigmas, x, denoiser, flow, solver_order=order,
                      solver_type=kind)
    got = sample(denoiser, x, classical.unipc(sigmas, flow=flow, order=order, kind=kind))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("sigmas", [
    np.geomspace(3, 1, 2), np.geomspace(14.6, 0.2, 7), np.geomspace(80, 0.01, 21)], ids=len)
def test_deis_in_log_rho_is_the_deis_of_diffusers(sigmas, order, noise):
    """Ends above 0, where diffusers is finite; its closed integrals check our Gauss points."""
    expected = theirs("DEISMultistepScheduler", sigmas, sigmas[0] * noise, mixture, False, solver_order=order,
                      lower_order_final=False)
    in_log_rho = lowered()(lambda trace, sigmas, flow: _adams_bashforth(trace, sigmas, order, torch.log, True))
    got = sample(mixture, sigmas[0] * noise, in_log_rho(sigmas))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("ours, config", [
    (classical.dpmpp_2m, {"solver_order": 2, "solver_type": "midpoint"}),
    (classical.dpmpp_3m, {"solver_order": 3, "solver_type": "heun"}),   # its second-order step is that of 3M
], ids=["2M", "3M"])
@pytest.mark.parametrize("flow, sigmas", CASES)
def test_dpm_solver_pp_is_the_one_of_diffusers(flow, sigmas, ours, config, noise):
    x, denoiser = sigmas[0] * noise, partial(mixture, flow=flow)
    expected = theirs("DPMSolverMultistepScheduler", sigmas, x, denoiser, flow, lower_order_final=False,
                      final_sigmas_type="zero" if sigmas[-1] == 0 else "sigma_min", **config)
    got = sample(denoiser, x, ours(sigmas, flow=flow))
    # this scheduler casts the state to float32 before every step: eps 1.2e-7 x 20 steps x states of order 1
    torch.testing.assert_close(got, expected, rtol=0, atol=3e-6)
