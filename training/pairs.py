"""Teacher and cached pairs: seeds -> (noise, conditions, what many calls make of them)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor
from tqdm.auto import tqdm

from .core import Solver, classical, sample, schedule
from .denoisers import Source

VALIDATION_SEEDS = 10_000_000       # far from the training seeds, which count up from the run's seed
TEST_SEEDS = 20_000_000             # the race's


@dataclass
class Pairs:
    """Unit noise (n, ...), its conditions, and the teacher's result (n, ...), all on one device."""

    seeds: list
    noise: Tensor
    extra: dict
    target: Tensor

    def __len__(self) -> int:
        return len(self.seeds)

    def part(self, index) -> "Pairs":
        """The pairs at these positions (a slice or a list)."""
        index = list(range(len(self)))[index] if isinstance(index, slice) else [int(i) for i in index]
        return Pairs([self.seeds[i] for i in index], self.noise[index],
                     {key: value[index] for key, value in self.extra.items()}, self.target[index])


def teacher_solver(source: Source, name: str, calls: int) -> Solver:
    """A classical solver on a schedule that suits many calls. Raises ValueError for an unknown name.

    Of the classical solvers at 50 calls these are the closest to the exact solution on the bundled models.
    """
    name = teacher_name(source, name)
    if name not in classical.SOLVERS:
        raise ValueError(f"no solver {name!r}; there are: {', '.join(classical.SOLVERS)}")
    steps = max(1, calls // classical.SOLVERS[name].calls_per_step)
    levels = schedule.linear_flow(steps) if source.flow else schedule.karras(
        steps, float(source.levels[0]), source.sigma_max)
    return classical.SOLVERS[name](levels, flow=source.flow)


def teacher_name(source: Source, name: str) -> str:
    """The solver "auto" stands for."""
    return name if name != "auto" else "lms_3" if source.flow else "dpmpp_3m"


@torch.no_grad()
def run(source: Source, solver, noise: Tensor, extra: dict, batch: int = 64, bar: tqdm | None = None) -> Tensor:
    """The solver's result for unit noise (n, ...), in batches, without gradients."""
    done = []
    for i in range(0, len(noise), batch):
        part = {key: value[i:i + batch] for key, value in extra.items()}
        start = noise[i:i + batch] * float(solver.sigmas[0])
        done.append(sample(source.denoiser, start, solver, part,
                           on_call=None if bar is None else lambda *call: bar.update(len(call[1]))))
    return torch.cat(done)


def make_pairs(source: Source, seeds, solver, label: str, quiet: bool = False) -> Pairs:
    """Run the teacher on these seeds, with a progress bar in network calls."""
    seeds = list(seeds)
    noise, extra = source.noise(seeds), source.conditions(seeds)
    with tqdm(total=len(seeds) * solver.calls, desc=label, unit="call", disable=quiet or None) as bar:
        return Pairs(seeds, noise, extra, run(source, solver, noise, extra, bar=bar))


def load_targets(path: Path, count: int):
    """The saved targets, or None where they are missing or damaged (they are then made again)."""
    try:
        target = safetensors.torch.load_file(path)["target"]
    except (OSError, KeyError, safetensors.SafetensorError):
        return None
    return target if len(target) == count else None


def teacher_error(source: Source, config, pairs: Pairs, count: int = 8) -> float:
    """RMSE between the teacher and itself with twice the calls, on a few pairs: how far its targets can be off."""
    finer = teacher_solver(source, config.teacher, 2 * config.teacher_calls)
    few = pairs.part(slice(0, count))
    return rmse(run(source, finer, few.noise, few.extra), few.target)


def rmse(result: Tensor, target: Tensor) -> float:
    """Root of the mean squared difference over everything."""
    return float((result.double() - target.double()).square().mean().sqrt())


def errors(result: Tensor, target: Tensor) -> np.ndarray:
    """RMSE of each item, (n,) float64."""
    return (result.double() - target.double()).flatten(1).square().mean(1).sqrt().cpu().numpy()
