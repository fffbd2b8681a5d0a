"""A host's own samplers as entries of a race: as they are, on the host's own schedules, at equal network calls."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...training.baselines.measure import Entry
from ...training.source import Source
from ...training.teacher.solvers import SAME, HostSampler, tried
from ..core.levels import starts_at

EVERY = "all"               # instead of names
FRECHET_SCHEDULES = ("simple", "beta", "karras")  # for the Fréchet distance: all seeds run them
OF_SIGMA = ("karras", "exponential", "polyexponential")     # schedules that no flow has
TELLING_STEPS = 6           # steps of a trial for randomness: most stochastic samplers add no noise in the last one
USUAL_CFG_PP = 2.0          # people run CFG++ up to this cfg
FAILS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RuntimeError, TypeError,
         ValueError)


class Sampler(NamedTuple):
    """function: a k-diffusion sampler; levels(schedule, steps) -> sigmas; discards: the last level above 0, of one step
    more."""

    function: Callable
    levels: Callable
    discards: bool


def entries(names: Sequence[str], known: Iterable[str], sampler_of: Callable[[str], Sampler], host: str, source: Source,
            counts: Iterable[int], schedules: Iterable[str]) -> tuple[dict[int, list[Entry]], list[str]]:
    """({calls: the samplers at no more than so many network calls an image, on every schedule that starts at the top},
    what to say of those left out).

    names: some of `known`, or "all". sampler_of(name) raises ValueError for one that cannot be raced. Stochastic
    samplers and CFG++, whose guidance is not the teacher's, are for the Fréchet distance alone. Raises ValueError for a
    named one that is unknown or cannot be raced.
    """
    every, by_name = [name.lower() for name in names] == [EVERY], {name.lower(): name for name in known}
    schedules = [each for each in schedules if not (source.flow and each.lower() in OF_SIGMA)]
    by_calls: dict[int, list[Entry]] = {calls: [] for calls in counts}
    notes: list[str] = []
    unfit: dict[str, bool] = {}
    for name in [name for name in known if not name.endswith("_gpu")] if every else names:
        try:
            if name.lower() not in by_name:
                raise ValueError(f"unknown sampler {name!r} here: use some of {EVERY}, {', '.join(by_name.values())}")
            name = by_name[name.lower()]
            for calls, some in _of(name, host, sampler_of(name), source, by_calls, schedules, unfit).items():
                by_calls[calls] += some
                notes += [] if some else [f"{name} does not take part at {calls} calls: not even one of its steps fits"]
        except FAILS as error:
            if not every:
                raise ValueError(str(error) if isinstance(error, ValueError) else
                                 f"{name} cannot be raced ({error}): leave it out") from error
            notes.append(f"{name} does not take part: {error}")
    made_entries = [entry for some in by_calls.values() for entry in some]
    if unused := [each for each in unfit if each not in {entry.schedule_name for entry in made_entries}]:
        notes.append(f"without the schedules {', '.join(unused)}, which do not start at the model's highest level")
    if source.cfg > USUAL_CFG_PP and any(_is_cfg_pp(entry.solver_name) for entry in made_entries):
        notes.append(f"CFG++ samplers ran at the teacher's cfg {source.cfg:g}; they are made for cfg 1 to 2")
    return by_calls, notes


def _is_cfg_pp(name: str) -> bool:
    return "cfgpp" in name.lower().replace("_", "").replace("+", "p")


def _of(name: str, host: str, sampler: Sampler, source: Source, counts: Iterable[int],
        schedules: list[str], unfit: dict) -> dict[int, list[Entry]]:
    """{calls: the sampler on each schedule, none if no step fits}. Raises what the sampler raises. unfit: gets the
    schedules that do not start at the top."""
    if "adaptive" in name.lower():
        raise ValueError(f"{name} chooses its own number of calls: leave it out")

    def on(schedule: str, steps: int, spent: int = 0) -> HostSampler | None:
        sigmas = np.asarray(torch.as_tensor(sampler.levels(schedule, steps + sampler.discards)).detach().cpu().double())
        sigmas = np.delete(sigmas, -2) if sampler.discards else sigmas
        usable = len(sigmas) == steps + 1 and (np.diff(sigmas) < 0).all() and starts_at(sigmas[0], source.sigma_max)
        if not usable:
            unfit[schedule] = True
        return HostSampler(sampler.function, sigmas, spent) if usable else None

    def trial(steps: int) -> tuple[int, float]:
        table = next((table for schedule in schedules if (table := on(schedule, steps)) is not None), None)
        if table is None:
            raise ValueError(f"no schedule of {host} starts at the model's highest level")
        return tried(source, table)
    usual, apart = trial(TELLING_STEPS)
    frechet_only = not apart <= SAME or _is_cfg_pp(name)
    wanted = [each for each in schedules if not frechet_only or each.lower() in FRECHET_SCHEDULES]
    found = {}
    for calls in counts:
        steps, spent = (calls, calls) if usual == TELLING_STEPS else _most_steps(calls, trial)
        tables = {each: on(each, steps, spent) for each in wanted} if steps else {}
        found[calls] = [Entry(f"{name} of {host}", schedule, table, frechet_only=frechet_only)
                        for schedule, table in tables.items() if table is not None]
    return found


def _most_steps(calls: int, trial: Callable) -> tuple[int, int]:
    """(steps, network calls an image) of the most steps that fit; no steps where none do."""
    steps = calls
    while steps > 0:
        spent, _ = trial(steps)
        if spent <= calls:
            return steps, spent
        steps = min(steps - 1, -(-steps * calls // spent))
    return 0, 0
