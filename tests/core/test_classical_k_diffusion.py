"""The classical solvers against the real k-diffusion, number for number."""

import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, mixture, sample, schedules
from tests.k_diffusion_real import load

SILENT = {"eta": 0.0, "noise_sampler": lambda *_: 0.0}          # the stochastic samplers without their noise

PAIRS = {       # ours, k-diffusion's name, its options
    "euler": (classical.euler, "sample_euler", {}),
    "heun": (classical.heun, "sample_heun", {}),
    "dpm_2": (classical.dpm_2, "sample_dpm_2", {}),
    "dpmpp_2s": (classical.dpmpp_2s, "sample_dpmpp_2s_ancestral", SILENT),
    "dpmpp_2m": (classical.dpmpp_2m, "sample_dpmpp_2m", {}),
    "dpmpp_2m of the SDE": (classical.dpmpp_2m, "sample_dpmpp_2m_sde", SILENT),
    "dpmpp_3m": (classical.dpmpp_3m, "sample_dpmpp_3m_sde", SILENT),
    **{f"lms_{order}": (partial(classical.lms, order=order), "sample_lms", {"order": order})
       for order in (1, 2, 3, 4)},
}

GRIDS = {
    "karras": lambda calls: schedules.karras(calls, 0.03, 14.6),
    "exponential": lambda calls: schedules.exponential(calls, 0.002, 80.0),
    "uniform in time": lambda calls: schedules.time_uniform(calls, schedules.sd_levels()),
    "ends above zero": lambda calls: np.geomspace(10.0, 0.2, calls + 1),
    "uneven": lambda calls: 14.6 * np.cumprod([1.0, 0.3, 0.9, 0.2, 0.8, 0.7, 0.1, 0.5, 0.6])[:calls + 1],
}


def crashes(pair: str, grid: str, calls: int) -> bool:
    """k-diffusion's 2M and 3M SDE read h before it is set when the first step lands on 0."""
    return PAIRS[pair][2] is SILENT and "_sde" in PAIRS[pair][1] and calls == 1 and GRIDS[grid](1)[-1] == 0


def test_the_reference_is_the_real_one_and_leaves_no_trace(k_diffusion_sampling):
    def present():
        return {name: module for name, module in sys.modules.items() if name.split(".")[0] == "k_diffusion"}
    before = present()
    assert Path(load("sampling").__file__).parts[-2:] == ("k_diffusion", "sampling.py")
    assert present() == before


@pytest.mark.parametrize("pair, grid, calls", [
    (pair, grid, calls) for pair in PAIRS for grid in GRIDS for calls in (1, 2, 3, 8)
    if not crashes(pair, grid, calls)])
def test_the_table_does_what_k_diffusion_does(pair, grid, calls, noise, k_diffusion_sampling):
    ours, theirs, options = PAIRS[pair]
    sigmas = GRIDS[grid](calls)
    x, sampler = sigmas[0] * noise, getattr(k_diffusion_sampling, theirs)
    expected = sampler(mixture, x, torch.from_numpy(sigmas), disable=True, **options)
    # both in float64: states of up to 80 x noise and a denoiser that amplifies rounding on long steps
    torch.testing.assert_close(sample(mixture, x, ours(sigmas)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("pair", ["dpmpp_2m", "dpmpp_3m", "heun"])
def test_they_ask_the_network_the_same_questions(pair, noise, k_diffusion_sampling):
    ours, theirs, options = PAIRS[pair]
    sigmas, asked = schedules.karras(6, 0.03, 14.6), []

    def watch(x, sigma):
        asked.append((x, sigma))
        return mixture(x, sigma)
    sampler = getattr(k_diffusion_sampling, theirs)
    sampler(watch, 14.6 * noise, torch.from_numpy(sigmas), disable=True, **options)
    half = len(asked)
    sample(watch, 14.6 * noise, ours(sigmas))
    for wanted, got in zip(asked[:half], asked[half:], strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-13, atol=1e-11)
