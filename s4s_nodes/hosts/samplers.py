"""A host's own sampler as entries of a race: as it is, on the host's own schedules, at equal network calls."""

from collections.abc import Callable, Iterable

import numpy as np
import torch

from ...training.baselines.measure import Entry
from ...training.source import Source
from ...training.teacher.solvers import SAME, HostSampler, tried
from ..core.levels import starts_at

FRECHET_SCHEDULES = ("simple", "beta", "karras")      # of samplers that the Fréchet distance judges: all seeds run them
OF_SIGMA = ("karras", "exponential", "polyexponential")     # schedules that no flow has


def entries(name: str, host: str, source: Source, calls: int, schedules: Iterable[str], levels: Callable,
            function: Callable) -> list[Entry]:
    """The sampler at no more than so many network calls an image, on every schedule that starts at the top.

    levels(schedule, steps) -> sigmas; function: a k-diffusion sampler. Stochastic samplers and CFG++, which guides
    otherwise than the teacher, are for the Fréchet distance alone.
    """
    def on(schedule: str, steps: int, spent: int = 0) -> HostSampler | None:
        sigmas = np.asarray(torch.as_tensor(levels(schedule, steps)).detach().double().cpu())
        usable = len(sigmas) == steps + 1 and (np.diff(sigmas) < 0).all() and starts_at(sigmas[0], source.sigma_max)
        return HostSampler(function, sigmas, spent) if usable else None
    schedules = [each for each in schedules if not (source.flow and each.lower() in OF_SIGMA)]
    steps, spent, stochastic = _most_steps(source, calls, schedules, on)
    frechet_only = stochastic or "cfg_pp" in name or "cfg++" in name.lower()
    wanted = [each for each in schedules if not frechet_only or each.lower() in FRECHET_SCHEDULES] if steps else []
    return [Entry(f"{name} of {host}", schedule, table, frechet_only=frechet_only) for schedule in wanted
            if (table := on(schedule, steps, spent)) is not None]


def _most_steps(source: Source, calls: int, schedules: list[str], on: Callable) -> tuple[int, int, bool]:
    """(steps, network calls an image, whether it is stochastic) of the most steps that fit; no steps where none do."""
    steps = calls
    while steps > 0:
        table = next((table for schedule in schedules if (table := on(schedule, steps)) is not None), None)
        if table is None:
            break
        spent, apart = tried(source, table)
        if spent <= calls:
            return steps, spent, not apart <= SAME
        steps = min(steps - 1, -(-steps * calls // spent))
    return 0, 0, False
