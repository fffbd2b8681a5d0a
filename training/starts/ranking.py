"""Where learning one table begins: the schedules that suit the base solver, and which of them leads furthest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...s4s_nodes.core import schedules
from ..baselines.measure import Entry, halved, measure
from ..baselines.schedules import schedules_for
from ..optimizers.gauss_newton import EXPLORED, learn_forward
from ..optimizers.gradient import State
from ..parametrization.families import start_on
from ..parametrization.parameters import Parameters
from ..source import NaNFromModel, Source
from ..teacher.pairs import Pairs
from .grids import NAMES, asked_for
from .patterns import fitting

EXPLORING = 4               # forward-only steps that compare the starts
CURVE = "curve"             # the name of the start on the full table's own levels
LEARNED = "learned"         # the solver's name of a start that other models' trainings ended at
# with a budget: (held-out pairs, share of the starts that run them), and how many starts at least
HALVING, FEWEST = ((4, 1.0), (None, 0.3)), 3
# times smaller a classical start's error has to be: at 6 calls digits-eps ends at 0.060 from the best of them, at 0.055
# from what digits-flow learned, though both start at 0.089
HANDICAP = 1.3


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
        parameters, state = begun(source, entry, config)
        if len(chosen) > 1:
            short = replace(config, iterations=min(EXPLORING, config.iterations))
            learn_forward(source, parameters, pairs.part(slice(0, EXPLORED)), held_out, short, state)
            state.finished, state.stuck = False, 0
            say(f"calls{calls}: from {entry.schedule_name}, {state.iteration} steps on {EXPLORED} pairs: held-out RMSE "
                f"{state.curve[0][2]:.4f} -> {state.best_error:.4f}")
        tried.append((parameters, entry.schedule_name, state))
    best = min(tried, key=lambda start: start[2].best_error)
    best[2].spent, best[2].classical = source.model_calls - before, classical_error(ranked)
    return best


def begun(source: Source, entry: Entry, config) -> tuple[Parameters, State]:
    """The parameters that stand on an entry's levels, and a state whose table is the entry's."""
    parameters = Parameters.of(config, source, entry.table.sigmas)
    state = State.start(parameters)
    if entry.solver_name == LEARNED:
        pattern = next(each for each in fitting(source, parameters.calls, config) if each.name == entry.schedule_name)
        state.vector = pattern.vector(parameters, source)
        state.average, state.best = state.vector.clone(), state.vector.clone()
        state.memory["prior"] = state.vector.clone()
    return parameters, state


def classical_error(ranked: list[Entry]) -> float:
    """Mean error of the best start that is a classical solver, of those that ran the most pairs."""
    classical = [entry for entry in ranked if entry.solver_name != LEARNED]
    most = max(len(entry.errors) for entry in classical)
    return min(float(entry.errors.mean()) for entry in classical if len(entry.errors) == most)


def ranked_starts(source: Source, calls: int, held_out: Pairs, config, curve: np.ndarray | None = None) -> list[Entry]:
    """The schedules by the base solver's error on a few held-out pairs, or the one asked for where it reaches.

    On a budget, forward mode also ranks what was learned on other models, and drops the worst after a few pairs.
    """
    if curve is not None:
        known = {**schedules_for(source, float(curve[0])),
                 CURVE: lambda steps: schedules.stretched(curve, steps, source.flow)}
    else:
        known = whole_schedules(source, config.schedule)
    few = held_out.part(slice(0, config.ranking))
    asked = {config.schedule: known[config.schedule]} if config.schedule in known else known
    entries = entries_on(source, asked, calls, config) or entries_on(source, known, calls, config)
    if config.schedule == "auto" and spares(config):
        ranked = halved(source, entries, few, HALVING, FEWEST, quiet=True)
        if curve is None:
            ranked += [measure(source, entry, few) for entry in learned_elsewhere(source, calls, config)]
        return sorted(ranked, key=lambda entry: (-len(entry.errors), entry.errors.mean() * handicap(entry)))
    return sorted([measure(source, entry, few) for entry in entries], key=lambda entry: entry.errors.mean())


def entries_on(source: Source, known: dict, calls: int, config) -> list[Entry]:
    """The base solver on each of the schedules (name -> (steps -> levels)) that can place as many levels."""
    entries = []
    for name, levels in known.items():
        try:
            table = start_on(config.family, config.base, levels, calls, source.flow)
        except NaNFromModel:                                # out of gits, which asks the network
            raise
        except ValueError:
            continue
        entries.append(Entry(config.base, name, table))
    return entries


def whole_schedules(source: Source, name: str) -> dict:
    """name -> (steps -> levels) of the schedules for whole images, the one asked for among them if there is one."""
    asked = asked_for(source, name)
    return schedules_for(source) if asked is None else {**schedules_for(source), name: asked}


def check_schedule(source: Source, config) -> None:
    """Raises ValueError for a schedule that there is none of, or none of so many steps, before anything is spent."""
    known = whole_schedules(source, config.schedule)
    if config.schedule not in ("auto", *known):
        raise ValueError(f"no schedule {config.schedule!r} for {source.name}; there are: auto, "
                         f"{', '.join([*known, *NAMES])}")
    if config.schedule not in ("auto", "gits"):         # of gits the levels cost network calls
        for calls in config.calls:
            start_on(config.family, config.base, known[config.schedule], calls, source.flow)


def handicap(entry: Entry) -> float:
    """What a start's error is multiplied by: one that was learned leads further than its own error tells."""
    return 1.0 if entry.solver_name == LEARNED else HANDICAP


def spares(config) -> bool:
    """Whether the ranking of the starts has to save network calls."""
    return bool(config.budget) and config.mode == "forward"


def learned_elsewhere(source: Source, calls: int, config) -> list[Entry]:
    """The starts that trainings of other models ended at, carried over to this one."""
    entries = []
    for pattern in fitting(source, calls, config):
        parameters = Parameters.of(config, source, pattern.levels(source))
        entries.append(Entry(LEARNED, pattern.name, parameters.frozen(pattern.vector(parameters, source))))
    return entries


def ranking_calls(source: Source, calls: int, config) -> int:
    """The most network calls that the ranking of a whole table's starts costs."""
    pairs = min(config.ranking, config.validation)
    if config.schedule != "auto":
        return calls * pairs
    if not spares(config):
        return calls * pairs * len(schedules_for(source))
    starts = len(schedules_for(source)) + 1                                         # a window has its curve
    (first, _), (_, share) = HALVING
    run_all = max(FEWEST, int(share * starts)) + len(fitting(source, calls, config))
    return calls * (min(first, pairs) * starts + pairs * run_all)


def far_apart(ranked: list[Entry], count: int) -> list[Entry]:
    """The best entry, then those of the better half whose levels are farthest (in log sigma) from all chosen so far."""
    chosen, rest = ranked[:1], ranked[1:max(count, (len(ranked) + 1) // 2)]

    def distance(entry):
        return min(np.abs(np.log(entry.table.sigmas[1:-1] / other.table.sigmas[1:-1])).sum() for other in chosen)
    while rest and len(chosen) < count:
        chosen.append(max(rest, key=distance))
        rest.remove(chosen[-1])
    return chosen
