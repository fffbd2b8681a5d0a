"""What the loop costs beside the network: ours and k-diffusion's sample_dpmpp_2m, interleaved in one process.

    python -m tests.bench.overhead [--repeats 60] [--steps 20] [--threads N]

The denoiser costs nothing (it returns a tensor made beforehand), so all the time is the sampler's own. The
goal is at most k-diffusion's time for the same work behind the same signature, better 0.7 of it.
"""

from __future__ import annotations

import argparse
import platform
import time
from statistics import median

import numpy as np
import torch

from s4s.s4s_nodes.core import Table, classical, sample, sample_table, schedules
from tests.k_diffusion_real import load

SHAPES = ((1, 4, 128, 128), (1, 16, 128, 128))
MUST, GOAL = 1.0, 0.7


def learned(sigmas, terms: int = 3) -> Table:
    """A table as the trainer makes them: every row carries x and weighs the newest `terms` predictions."""
    calls = len(sigmas) - 1
    weights = np.tril(np.random.default_rng(0).normal(0, 0.3, (calls, calls)))
    weights -= np.tril(weights, -terms)                         # nothing older than that
    weights[-1, -1] += 1 - weights[-1].sum()
    carry = np.append(np.full(calls - 1, 0.5), 0.0)
    return Table(sigmas, sigmas[:-1], np.ones(calls), carry, weights)


def runs(sampling, x, sigmas) -> dict:
    """name -> a function of no arguments that samples once."""
    levels = torch.from_numpy(sigmas).float()
    answer = torch.randn_like(x)

    def denoiser(x, sigma, **extra):
        return answer
    two, three = classical.dpmpp_2m(sigmas), learned(sigmas)
    return {
        "k-diffusion": lambda: sampling.sample_dpmpp_2m(denoiser, x, levels, disable=True),
        "dpmpp_2m table, k_sampler": lambda: sample_table(denoiser, x, levels, disable=True, table=two),
        "dpmpp_2m table, bare loop": lambda: sample(denoiser, x, two),
        "dpmpp_2m from levels, k_sampler": lambda: sample_table(denoiser, x, levels, disable=True,
                                                                table=classical.dpmpp_2m),
        "3-term table, k_sampler": lambda: sample_table(denoiser, x, levels, disable=True, table=three),
        "3-term table, bare loop": lambda: sample(denoiser, x, three),
    }


def seconds(candidates: dict, repeats: int) -> dict:
    """Median seconds of each, in turns; of one thread the processor's, which other processes do not lengthen."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = {name: [] for name in candidates}
    for _ in range(repeats + 3):
        for name, run in candidates.items():
            start = clock()
            run()
            taken[name].append(clock() - start)
    return {name: median(times[3:]) for name, times in taken.items()}        # the first three warm up


def verdict(ratio: float) -> str:
    return "goal" if ratio <= GOAL else "ok" if ratio <= MUST else "TOO SLOW"


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--threads", type=int, help="torch threads; its default otherwise")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    sampling = load("sampling")
    sigmas = schedules.karras(options.steps, 0.03, 14.6)
    print(f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads, float32, "
          f"{options.steps} calls, median of {options.repeats}; goals: at most {MUST} must, {GOAL} goal\n")
    print(f"{'latent':15} {'sampler':33} {'us/call':>8} {'k-diffusion':>12} {'ratio':>6}")
    for shape in SHAPES:
        measured = seconds(runs(sampling, torch.randn(shape), sigmas), options.repeats)
        theirs = measured.pop("k-diffusion") / options.steps * 1e6
        for name, taken in measured.items():
            ours = taken / options.steps * 1e6
            row = f"{'x'.join(map(str, shape)):15} {name:33} {ours:8.1f} {theirs:12.1f} {ours / theirs:6.2f}"
            print(row, verdict(ours / theirs))


if __name__ == "__main__":
    main()
