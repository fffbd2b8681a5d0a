"""Where learning one table begins: the schedules that suit the base solver, and which of them leads furthest."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import numpy as np

from .core import schedule
from .denoisers import Source
from .evaluate import Entry, measure, schedules
from .families import start_on
from .forward_only import EXPLORED, learn_forward
from .grids import NAMES, asked_for
from .loop import State
from .pairs import Pairs
from .parameters import Parameters

EXPLORING = 4               # forward-only steps that compare the starts
CURVE = "curve"             # the name of the start on the full table's own levels


def settle_start(source: Source, calls: int, pairs: Pairs, held_out: Pairs, config, say: Callable,
                 curve: np.ndarray | None = None) -> tuple[Parameters, str, State]:
    """(parameters, name of the schedule, state to go on from) of a table of this many calls.

    curve: for a window, its levels (calls + 1,) on the curve of the full table, one of the starts that are tried.

    Gradient mode takes the schedule on which the base solver does best. Forward mode takes a few cheap steps from
    several that lie far apart: the error has more than one valley.
    """
    before = source.model_calls
    ranked = ranked_starts(source, calls, held_out, config, curve)
    chosen = far_apart(ranked, config.starts) if config.mode == "forward" else ranked[:1]
    tried = []
    for entry in chosen:
        parameters = Parameters.of(config, source, entry.solver.sigmas)
        state = State.start(parameters)
        if len(chosen) > 1:
            short = replace(config, iterations=min(EXPLORING, config.iterations))
            learn_forward(source, parameters, pairs.part(slice(0, EXPLORED)), held_out, short, state)
            state.finished, state.stuck = False, 0
            say(f"calls{calls}: from {entry.schedule_name}, {state.iteration} steps on {EXPLORED} pairs: held-out RMSE "
                f"{state.curve[0][2]:.4f} -> {state.best_error:.4f}")
        tried.append((parameters, entry.schedule_name, state))
    best = min(tried, key=lambda start: start[2].best_error)
    best[2].spent, best[2].classical = source.model_calls - before, float(ranked[0].errors.mean())
    return best


def ranked_starts(source: Source, calls: int, held_out: Pairs, config, curve: np.ndarray | None = None) -> list[Entry]:
    """The schedules by the base solver's error on a few held-out pairs, or the one asked for where it reaches.

    Raises ValueError for an unknown schedule, with those there are.
    """
    known = whole = schedules(source)
    if (asked := asked_for(source, config.schedule)) is not None:
        whole[config.schedule] = asked
    if curve is not None:
        known = {**schedules(source, float(curve[0])),
                 CURVE: lambda steps: schedule.stretched(curve, steps, source.flow)}
    if config.schedule not in ("auto", *known, *whole):
        raise ValueError(f"no schedule {config.schedule!r} for {source.name}; there are: auto, "
                         f"{', '.join([*known, *NAMES])}")
    names = list(known) if config.schedule not in known else [config.schedule]
    few = held_out.part(slice(0, config.ranking))
    entries = [measure(source, Entry(config.base, name, start_on(config.family, config.base, known[name], calls,
                                                                 source.flow)), few) for name in names]
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
