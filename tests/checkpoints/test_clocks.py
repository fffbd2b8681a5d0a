"""A checkpoint's noise levels, timesteps and predictions are the hosts': against ComfyUI's and k-diffusion's."""

import json
import math
import subprocess

import numpy as np
import pytest
import torch

from s4s.training.checkpoints import network as clocks
from tests.host_checkout import checkout

SCHEDULER = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
CLOCKS = {"eps": lambda: clocks.discrete(SCHEDULER, False, False), "v": lambda: clocks.discrete(SCHEDULER, True, False),
          "v_zsnr": lambda: clocks.discrete(SCHEDULER, True, True), "sd3": lambda: clocks.flow(3.0),
          "schnell": lambda: clocks.flow(1.0, 1.0), "flux": clocks.flux}

HOST = """
import json, sys, torch
from comfy.cli_args import args
args.cpu = True
from comfy import model_sampling as m
from comfy.model_base import ModelType, model_sampling
kinds = {"eps": (ModelType.EPS, {}), "v": (ModelType.V_PREDICTION, {}),
         "v_zsnr": (ModelType.V_PREDICTION, {"zsnr": True}), "sd3": (ModelType.FLOW, {"shift": 3.0}),
         "schnell": (ModelType.FLOW, {"shift": 1.0, "multiplier": 1.0}), "flux": (ModelType.FLUX, {})}
made = {}
for name, (kind, settings) in kinds.items():
    sampling = model_sampling(type("Config", (), {"sampling_settings": settings})(), kind)
    sigma = torch.tensor(json.loads(sys.argv[1])[name])
    x = torch.linspace(-3, 3, 4 * len(sigma)).reshape(-1, 1, 2, 2)
    answer = torch.linspace(2, -1, 4 * len(sigma)).reshape(-1, 1, 2, 2)
    made[name] = [t.double().flatten().tolist() for t in (
        sampling.sigmas, sampling.timestep(sigma).float(), sampling.calculate_input(sigma, x),
        sampling.calculate_denoised(sigma, answer, x))]
print("ANSWER", json.dumps(made))
"""


def asked(name: str) -> torch.Tensor:
    """Levels of a clock: some of its own, and some between them."""
    sigmas = CLOCKS[name]().sigmas
    own = sigmas[torch.linspace(0, len(sigmas) - 1, 9).long()]
    return torch.cat([own, (own[1:] * own[:-1]).sqrt()])


@pytest.mark.host
def test_they_are_the_numbers_of_the_real_comfyui():
    folder, python = checkout("COMFYUI_PATH", "comfyui", "comfy/model_sampling.py")
    question = json.dumps({name: asked(name).tolist() for name in CLOCKS})
    done = subprocess.run([python, "-c", HOST, question], cwd=folder, capture_output=True, text=True,
                          env={"PYTHONPATH": str(folder), "PATH": "", "HOME": str(folder)})
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER")]
    assert lines, done.stderr[-1500:]
    theirs = json.loads(lines[0].removeprefix("ANSWER"))
    for name, make in CLOCKS.items():
        clock, sigma = make(), asked(name)
        x = torch.linspace(-3, 3, 4 * len(sigma)).reshape(-1, 1, 2, 2)
        answer = torch.linspace(2, -1, 4 * len(sigma)).reshape(-1, 1, 2, 2)
        level = sigma.reshape(-1, 1, 1, 1)
        ours = (clock.sigmas, clock.timestep(sigma), clock.network_input(x, level), clock.denoised(x, level, answer))
        for what, mine, other in zip(("levels", "timesteps", "input", "denoised"), ours, theirs[name]):
            np.testing.assert_allclose(mine.double().flatten(), other, rtol=2e-6, atol=1e-6, err_msg=f"{name}: {what}")


def test_levels_follow_the_published_formulas():
    """Ho et al. (2020) with Stable Diffusion's betas; SD3's and Flux's shifts (Esser et al., 2024, eq. 23)."""
    betas = np.linspace(0.00085 ** 0.5, 0.012 ** 0.5, 1000) ** 2
    alphas = np.cumprod(1 - betas)
    np.testing.assert_allclose(CLOCKS["eps"]().sigmas, ((1 - alphas) / alphas) ** 0.5, rtol=1e-6)
    times = np.arange(1, 1001) / 1000
    np.testing.assert_allclose(CLOCKS["sd3"]().sigmas, 3 * times / (1 + 2 * times), rtol=1e-6)
    shift, times = math.exp(1.15), np.arange(1, 10001) / 10000
    np.testing.assert_allclose(CLOCKS["flux"]().sigmas, shift * times / (1 + (shift - 1) * times), rtol=1e-4)


def test_zero_terminal_snr_ends_where_the_hosts_do():
    sigmas = CLOCKS["v_zsnr"]().sigmas
    assert float(sigmas[-1]) == pytest.approx(4518.758, rel=1e-4)
    assert float(sigmas[0]) == pytest.approx(0.029167, rel=1e-3)            # the first level stays


def test_a_level_of_a_whole_timestep_is_told_as_that_timestep():
    clock = CLOCKS["eps"]()
    torch.testing.assert_close(clock.timestep(clock.sigmas), torch.arange(1000.0), rtol=0, atol=0)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_denoised_is_what_k_diffusion_makes_of_the_same_network(k_diffusion_external, prediction):
    """Its wrappers for latent diffusion's networks, at levels of whole timesteps (between them they do not round)."""
    clock = CLOCKS[prediction]()
    alphas = 1 / (clock.sigmas.double() ** 2 + 1)

    class Inner(torch.nn.Module):
        alphas_cumprod = alphas

        def apply_model(self, x, t, cond=None):
            return torch.tanh(x + t.reshape(-1, 1, 1, 1) / 1000)
    wrapper = {"eps": k_diffusion_external.CompVisDenoiser, "v": k_diffusion_external.CompVisVDenoiser}[prediction]
    sigma = clock.sigmas[[3, 400, 998]].double()
    x = torch.randn(3, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3
    level = sigma.reshape(-1, 1, 1, 1)
    answer = Inner().apply_model(clock.network_input(x, level), clock.timestep(sigma))
    theirs = wrapper(Inner(), quantize=True, device="cpu")(x, sigma, cond=None)
    torch.testing.assert_close(clock.denoised(x, level, answer), theirs, rtol=0, atol=1e-5)   # their levels: float32


def test_betas_of_an_unknown_kind_are_refused():
    with pytest.raises(ValueError, match="linear and scaled_linear are known"):
        clocks.discrete({**SCHEDULER, "beta_schedule": "squaredcos_cap_v2"}, False, False)
    with pytest.raises(ValueError, match="betas of its own"):
        clocks.discrete({**SCHEDULER, "trained_betas": [0.1]}, False, False)
