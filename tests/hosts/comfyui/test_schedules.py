"""Our schedules against the newest host's own functions and nodes."""

from functools import partial

import comfy.model_sampling
import comfy.samplers
import numpy as np
import pytest
import s4s_host
import torch
from comfy.k_diffusion import sampling

schedules = s4s_host.pack("s4s_nodes.core").schedules
SD = comfy.model_sampling.ModelSamplingDiscrete()
FLOW = comfy.model_sampling.ModelSamplingDiscreteFlow()
LEVELS = {SD: SD.sigmas.double().numpy(), FLOW: FLOW.sigmas.double().numpy()}


@pytest.mark.parametrize("calls", [2, 4, 7, 20])
def test_laplace_is_the_hosts_before_the_0_it_leaves_out(calls):
    expected = sampling.get_sigmas_laplace(calls, 0.0292, 14.6146)
    np.testing.assert_allclose(schedules.laplace(calls, 0.0292, 14.6146)[:-1], expected, rtol=1e-5)


@pytest.mark.parametrize("calls", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("sampling", [SD, FLOW], ids=["sd", "flow"])
def test_linear_quadratic_is_the_hosts(sampling, calls):
    expected = comfy.samplers.linear_quadratic_schedule(sampling, calls)
    found = schedules.linear_quadratic(calls, float(sampling.sigma_max))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("calls", [2, 4, 7, 20])
@pytest.mark.parametrize("sampling", [SD, FLOW], ids=["sd", "flow"])
def test_beta57_is_the_hosts_beta_with_its_numbers(sampling, calls):
    expected = comfy.samplers.beta_scheduler(sampling, calls, alpha=0.5, beta=0.7)
    np.testing.assert_allclose(schedules.beta(calls, LEVELS[sampling], 0.5, 0.7), expected, rtol=1e-6)


@pytest.mark.parametrize("calls", [2, 4, 8, 20])
def test_ltxv_is_the_hosts_node(calls):
    from comfy_extras.nodes_lt import LTXVScheduler
    run = getattr(LTXVScheduler, "execute", None) or partial(LTXVScheduler.get_sigmas, None)
    expected = run(steps=calls, max_shift=2.05, base_shift=0.95, stretch=True, terminal=0.1)[0]
    np.testing.assert_allclose(schedules.ltxv(calls), torch.as_tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("calls", [1, 4, 8, 20, 60])
@pytest.mark.parametrize("size", [(1024, 1024), (512, 768), (2048, 2048)])
def test_flux2_is_the_hosts_node(calls, size):
    flux = pytest.importorskip("comfy_extras.nodes_flux")
    if not hasattr(flux, "Flux2Scheduler"):
        pytest.skip("this ComfyUI is older than Flux.2")
    expected = flux.Flux2Scheduler.execute(calls, *size)[0]
    found = schedules.flux2(calls, size[0] * size[1] // 256)
    np.testing.assert_allclose(found, torch.as_tensor(expected), rtol=1e-5, atol=1e-6)
