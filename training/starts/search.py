"""Where learning one table begins: at the best classical solver on the best schedule, found by successive halving.

A table that weighs the whole history holds every classical solver of one call a step, so each is a start, exactly.
"""

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, experts
from ...s4s_nodes.select import adapt
from ..baselines.halving import Entrants, search_cost, searched
from ..baselines.measure import CURVE, STARTS, Entry, baselines
from ..baselines.schedules import NO_START_SCHEDULES, schedules_for
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs

LEAST_GAP = 1e-9  # least relative distance of two levels of a start: some schedules repeat one, up to rounding


def choose_start(source: Source, calls: int, held_out: Pairs, config,
                 curve: np.ndarray | None = None) -> tuple[Entry, Entry, Parameters, Tensor]:
    """(best baseline, the one that a table of this many calls starts as, its parameters, its free numbers).

    curve: for a window, its levels (calls + 1,) on the curve of the full table, one of the schedules that are tried. A
    schedule that was asked for is the only one, where it can place the levels. Raises ValueError where none can.
    """
    top = None if curve is None else float(curve[0])
    known = schedules_for(source, top)
    asked = [config.schedule] if config.schedule in known else []
    for tried in (asked, [name for name in (*known, CURVE) if name not in NO_START_SCHEDULES]):
        names = {(solver, name) for solver in STARTS for name in tried}
        if entries := baselines(source, calls, names, top, curve, pin=True):
            break
    ranked = searched(source, entries, held_out, config.effort)
    for entry in ranked:
        if not isinstance(table := entry.table, Table):         # a host's sampler has no coefficients
            continue
        levels = table.sigmas.copy()
        levels[0] = levels[0] if curve is None else curve[0]    # a schedule's own is off by rounding
        if (levels[1:] > levels[:-1] * (1 - LEAST_GAP)).any():
            continue
        parameters = Parameters.of(source, levels)
        vector = vector_of(parameters, table)
        if vector is not None:
            return ranked[0], entry, parameters, vector
    raise ValueError(f"no schedule can place {calls} calls for {source.name}: use another number, or schedule auto")


def search_calls(source: Source, calls: int, config) -> int:
    """The most network calls that `choose_start` makes for a whole table."""
    tried = 1 if config.schedule != "auto" else len(set(schedules_for(source)) - set(NO_START_SCHEDULES))
    entrants = Entrants(calls, tried + 1, source.flow, solvers=STARTS)
    return search_cost(config.effort, entrants, config.effort.rounds[-1][0])


def vector_of(parameters: Parameters, table: Table) -> Tensor | None:
    """The free numbers whose table is this one, on its own levels; None if there are none."""
    if parameters.boundary is not None:
        if table.calls != parameters.calls:         # a solver with several calls per step
            return None
        halves = zip(parameters.halves, experts.halves(table, parameters.boundary))
        vectors = [vector_of(half, part) for half, part in halves]
        return None if any(vector is None for vector in vectors) else torch.cat(vectors)
    vector = parameters.initial()
    if parameters.frozen(vector).same_as(table):
        return vector
    here, (rows, columns) = parameters.frozen(vector), parameters.places
    residuals = (table.weights - here.weights)[rows, columns] / adapt.step_units(here.sigmas)[rows]
    vector[sum(parameters.sizes[:2]):] += torch.from_numpy(residuals).round(decimals=12)    # 0 where rounding differs
    rebuilt = parameters.frozen(vector)
    same = all(np.allclose(getattr(rebuilt, part), getattr(table, part), rtol=0, atol=1e-8)
               for part in ("weights", "carry"))
    return vector if same and np.array_equal(table.query, table.sigmas[:-1]) else None
