"""Our tables of the host's samplers against the host's own functions, number for number."""

import inspect
from functools import partial
from types import SimpleNamespace

import comfy.model_sampling
import numpy as np
import pytest
import s4s_host
import torch
from comfy.extra_samplers import uni_pc
from comfy.k_diffusion import sampling

classical = s4s_host.pack("s4s_nodes.core.classical")
core = s4s_host.pack("s4s_nodes.core")

SILENT = {"eta": 0.0, "s_noise": 0.0, "noise_sampler": lambda *_: 0.0}
ODE = {"s_noise": 0.0, "noise_scaler": lambda level: level, "noise_sampler": lambda *_: 0.0}


PAIRS = {       # ours, the host's function, its options
    "res_multistep": (classical.SOLVERS["res_multistep"], "sample_res_multistep", {}),
    "gradient_estimation": (classical.SOLVERS["gradient_estimation"], "sample_gradient_estimation", {}),
    "ipndm_v": (classical.SOLVERS["ipndm_v"], "sample_ipndm_v", {}),
    "ipndm": (classical.SOLVERS["ipndm_4"], "sample_ipndm", {}),
    "sa_solver": (classical.SOLVERS["sa_solver"], "sample_sa_solver", {"tau_func": lambda _: 0.0}),
    "er_sde": (classical.SOLVERS["er_sde"], "sample_er_sde", ODE),
    "heunpp2": (classical.SOLVERS["heunpp2"], "sample_heunpp2", {}),
    "exp_heun_2_x0": (classical.SOLVERS["exp_heun"], "sample_exp_heun_2_x0", {}),
    "seeds_2": (classical.SOLVERS["dpmpp_2s"], "sample_seeds_2", SILENT),
    "dpmpp_2m": (classical.SOLVERS["dpmpp_2m_sigma"], "sample_dpmpp_2m", {}),
    "dpmpp_2m of the SDE": (classical.SOLVERS["dpmpp_2m"], "sample_dpmpp_2m_sde", SILENT),
    "dpmpp_2m_sde_heun": (classical.SOLVERS["res_multistep"], "sample_dpmpp_2m_sde_heun", SILENT),
}
UNIPC = {"uni_pc": ("unipc_bh1_sigma", uni_pc.sample_unipc),
         "uni_pc_bh2": ("unipc_bh2_sigma", uni_pc.sample_unipc_bh2)}
TOLERANCES = {"er_sde": 1e-7}                   # the host sums in float32
ONLY_VE = ("dpmpp_2m_sde_heun",)                # on a flow it stands in half-logSNR


class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
    pass


class Exploding(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
    pass


class Denoiser:
    """The exact denoiser of the mixture, as the host's samplers hold a model."""

    def __init__(self, flow: bool):
        kind = Flow if flow else Exploding
        sampling = kind()
        held = SimpleNamespace(get_model_object=lambda _: sampling)
        self.flow, self.asked = flow, []
        self.inner_model = SimpleNamespace(model_patcher=held, inner_model=SimpleNamespace(model_sampling=sampling))

    def __call__(self, x, sigma, **_):
        self.asked.append(float(sigma[0]))
        return core.mixture(x, sigma, self.flow)


GRIDS = {
    "karras": (False, core.schedules.karras(8, 0.03, 14.6)),
    "short": (False, core.schedules.karras(3, 0.03, 14.6)),
    "ends above 0": (False, np.geomspace(10.0, 0.2, 7)),
    "flow": (True, 0.98 * core.schedules.linear_flow(7, 3.0)),
    "flow, ends above 0": (True, np.linspace(0.97, 0.1, 7)),
}


@pytest.fixture
def start():
    return torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name, grid", [(name, grid) for name in PAIRS for grid in GRIDS
                                        if not (GRIDS[grid][0] and name in ONLY_VE)])
def test_the_table_does_what_the_host_does(name, grid, start):
    ours, theirs, options = PAIRS[name]
    if not hasattr(sampling, theirs):
        pytest.skip(f"this ComfyUI has no {theirs}")
    flow, levels = GRIDS[grid]
    if name == "sa_solver" and levels[-1] > 0 and "return x_pred" not in inspect.getsource(sampling.sample_sa_solver):
        pytest.skip("this ComfyUI returns the state before the last step")
    model, x = Denoiser(flow), levels[0] * start
    expected = getattr(sampling, theirs)(model, x, torch.from_numpy(levels), extra_args={"seed": 0}, disable=True,
                                         **options)
    asked, model.asked = model.asked, []
    found = core.sample(model, x, ours(levels, flow=flow))
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCES.get(name, 1e-9))
    np.testing.assert_allclose(model.asked, asked, rtol=1e-9)


@pytest.mark.parametrize("name", [name for name in PAIRS if name not in ONLY_VE])
def test_a_flow_from_1_ends_where_the_hosts_does(name, start):
    """The host moves a level of 1 to 0.9999 and calls the start that; we move it in the formulas of lambda alone."""
    ours, theirs, options = PAIRS[name]
    if not hasattr(sampling, theirs):
        pytest.skip(f"this ComfyUI has no {theirs}")
    levels = core.schedules.linear_flow(7, 3.0)
    expected = getattr(sampling, theirs)(Denoiser(True), start, torch.from_numpy(levels), extra_args={"seed": 0},
                                         disable=True, **options)
    found = core.sample(partial(core.mixture, flow=True), start, ours(levels, flow=True))
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("name", UNIPC)
@pytest.mark.parametrize("grid", GRIDS)
def test_unipc_does_what_the_host_does(name, grid, start):
    """The host's takes float32 alone, and ends at 0.001 where ours ends at 0."""
    flow, levels = GRIDS[grid]
    solver, theirs = UNIPC[name]
    x = (levels[0] * start).float()
    expected = theirs(Denoiser(flow), x, torch.from_numpy(levels).float(), extra_args={}, disable=True)
    found = core.sample(partial(core.mixture, flow=flow), x, classical.SOLVERS[solver](levels, flow=flow))
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-2 if levels[-1] == 0 else 5e-4)
