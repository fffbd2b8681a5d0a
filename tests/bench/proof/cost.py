"""What the loop costs beside the network: time and memory a call, ours and k-diffusion's in turns in one process.

The network is a no-op that answers a tensor made beforehand, so all that is measured is the sampler's own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from s4s.s4s_nodes.core import Table, classical, sample_table, schedules
from s4s.training.memory import Meter
from tests.k_diffusion_real import load

SHAPES = ((1, 4, 64, 64), (1, 4, 128, 128), (8, 4, 128, 128), (1, 16, 128, 128), (1, 16, 21, 90, 160))
DTYPES = (torch.float32, torch.bfloat16)
CALLS = 8
GOAL = 0.7                  # of dpmpp_2m's time


@dataclass(frozen=True)
class Cell:
    """One sampler on one latent: microseconds a call, its share of dpmpp_2m's and lms', and the states it holds."""

    shape: tuple
    dtype: str
    sampler: str
    microseconds: float
    of_dpmpp: float
    of_lms: float
    states: float
    states_dpmpp: float


def samplers(sampling, x: torch.Tensor) -> dict[str, Callable]:
    """name -> a function of no arguments that samples once: theirs first."""
    sigmas = schedules.karras(CALLS, 0.03, 14.6)
    levels = torch.from_numpy(sigmas).float()
    answer = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)

    def denoiser(x, sigma, **extra):
        return answer

    def ours(table):
        return lambda: sample_table(denoiser, x, levels, disable=True, table=table)
    return {"dpmpp_2m": lambda: sampling.sample_dpmpp_2m(denoiser, x, levels, disable=True),
            "lms": lambda: sampling.sample_lms(denoiser, x, levels, disable=True),
            "S4S, 2 terms": ours(classical.dpmpp_2m(sigmas)), "S4S, 3 terms": ours(learned(sigmas, 3)),
            "S4S, full history": ours(learned(sigmas, CALLS)), "S4S, made from the levels": ours(classical.dpmpp_2m)}


def learned(sigmas: np.ndarray, terms: int) -> Table:
    """A table as the trainer makes them: every row carries x and weighs the newest `terms` predictions."""
    calls = len(sigmas) - 1
    weights = np.tril(np.random.default_rng(0).normal(0, 0.3, (calls, calls)))
    weights -= np.tril(weights, -terms)
    weights[-1, -1] += 1 - weights[-1].sum()
    return Table(sigmas, sigmas[:-1], np.ones(calls), np.append(np.full(calls - 1, 0.5), 0.0), weights)


@torch.no_grad()
def cells(seconds: float) -> Iterator[Cell]:
    """Every sampler on every latent, in about so many seconds."""
    sampling, each = load("sampling"), seconds / len(SHAPES) / len(DTYPES)
    for shape in SHAPES:
        for dtype in DTYPES:
            x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype) * 14.6
            runs = samplers(sampling, x)
            taken, held = times(runs, each), {name: peak(run) / x.nbytes for name, run in runs.items()}
            for name in runs:
                yield Cell(shape, str(dtype).removeprefix("torch."), name, taken[name] / CALLS * 1e6,
                           taken[name] / taken["dpmpp_2m"], taken[name] / taken["lms"], held[name], held["dpmpp_2m"])


def times(runs: dict[str, Callable], seconds: float) -> dict[str, float]:
    """Median seconds of the processor for each, in turns: a busy machine disturbs all alike, and little."""
    taken, began = {name: [] for name in runs}, time.perf_counter()
    while len(taken["lms"]) < 5 or time.perf_counter() - began < seconds:
        for name, run in runs.items():
            start = time.process_time()
            run()
            taken[name].append(time.process_time() - start)
    return {name: median(some[2:]) for name, some in taken.items()}         # the first two warm up


def peak(run: Callable) -> int:
    """Bytes of tensors that live at once, at most, beside what was there before."""
    with Meter() as meter:
        run()
    return meter.highest


def ours(found: list[Cell]) -> list[Cell]:
    return [cell for cell in found if cell.sampler.startswith("S4S")]
