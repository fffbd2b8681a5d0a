"""Where learning one table begins: the schedules that suit the base solver, and which of them leads furthest."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import numpy as np

from .denoisers import Source
from .evaluate import Entry, measure, schedules
from .core import classical
from .forward_only import EXPLORED, learn_forward
from .loop import State
from .pairs import Pairs
from .parameters import Parameters

EXPLORING = 4               # forward-only steps that compare the starts
START_SEEDS = 32            # held-out pairs that rank the schedules


def settle_start(source: Source, calls: int, pairs: Pairs, held_out: Pairs, config,
                 say: Callable) -> tuple[Parameters, str, State]:
    """(parameters, name of the schedule, state to go on from) of a table of this many calls.

    Gradient mode takes the schedule on which the base solver does best. Forward mode takes a few cheap steps from
    several that lie far apart: the error has more than one valley.
    """
    ranked = ranked_starts(source, calls, held_out, config)
    chosen = far_apart(ranked, config.starts) if config.mode == "forward" else ranked[:1]
    tried = []
    for entry in chosen:
        parameters = Parameters(entry.solver.sigmas, config.base, config.order, source.flow, config.learn)
        state = State.start(parameters)
        if len(chosen) > 1:
            short = replace(config, iterations=min(EXPLORING, config.iterations))
            learn_forward(source, parameters, pairs.part(slice(0, EXPLORED)), held_out, short, state)
            state.finished = False
            say(f"calls{calls}: from {entry.schedule_name}, {state.iteration} steps on {EXPLORED} pairs: held-out RMSE "
                f"{state.curve[0][2]:.4f} -> {state.best_error:.4f}")
        tried.append((parameters, entry.schedule_name, state))
    return min(tried, key=lambda start: start[2].best_error)


def ranked_starts(source: Source, calls: int, held_out: Pairs, config) -> list[Entry]:
    """The schedules by the base solver's error on a few held-out pairs, or the one asked for.

    Raises ValueError for an unknown schedule, with those there are.
    """
    known = schedules(source)
    if config.schedule != "auto" and config.schedule not in known:
        raise ValueError(f"no schedule {config.schedule!r} for {source.name}; there are: auto, {', '.join(known)}")
    names = list(known) if config.schedule == "auto" else [config.schedule]
    few = held_out.part(slice(0, START_SEEDS))
    base = classical.SOLVERS[Parameters(np.array([1., 0.]), config.base).base]
    entries = [measure(source, Entry(config.base, name, base(known[name](calls), flow=source.flow)), few)
               for name in names]
    return sorted(entries, key=lambda entry: entry.errors.mean())


def far_apart(ranked: list[Entry], count: int) -> list[Entry]:
    """The best entry, then those of the better half whose levels are farthest (in log sigma) from all chosen so far."""
    chosen, rest = ranked[:1], ranked[1:max(count, (len(ranked) + 1) // 2)]

    def distance(entry):
        return min(np.abs(np.log(entry.solver.sigmas[1:-1] / other.solver.sigmas[1:-1])).sum() for other in chosen)
    while rest and len(chosen) < count:
        chosen.append(max(rest, key=distance))
        rest.remove(chosen[-1])
    return chosen
