"""Where learning one table begins: at the best classical solver on the best schedule, found by successive halving.

A full-history multistep table holds every classical solver of one call a step, so each is a start, exactly. Other
families start from their base solver on the best schedule.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, experts, schedules
from ..baselines.halving import search_cost, searched
from ..baselines.measure import CURVE, STARTS, Entry, baselines, measured, start_pairs
from ..baselines.schedules import NO_START_SCHEDULES, schedules_for
from ..parametrization.families import start_on
from ..parametrization.parameters import Parameters
from ..source import NaNFromModel, Source
from ..teacher.pairs import Pairs
from .grids import NAMES, asked_for

LEAST_GAP = 1e-9            # between two levels of a start, relative: some schedules repeat one, but for rounding


@dataclass(frozen=True)
class Start:
    """Where a table begins: its parameters, the free vector, and what the levels are called.

    best: the best baseline of all; at_best: the vector is that baseline.
    """

    parameters: Parameters
    vector: Tensor
    levels_name: str
    best: Entry
    at_best: bool


def settle_start(source: Source, calls: int, held_out: Pairs, config, curve: np.ndarray | None = None) -> Start:
    """The start of a table of this many calls. Raises ValueError where no schedule can place as many levels.

    curve: for a window, its levels (calls + 1,) on the curve of the full table, one of the schedules that are tried.
    """
    ranked = ranked_baselines(source, calls, held_out, config, curve)
    for entry in ranked:
        if not isinstance(table := entry.table, Table):         # a host's sampler has no coefficients
            continue
        levels = table.sigmas.copy()
        levels[0] = levels[0] if curve is None else curve[0]    # a schedule's own is off by rounding
        if (levels[1:] > levels[:-1] * (1 - LEAST_GAP)).any():
            continue
        parameters = Parameters.of(config, source, levels)
        vector = vector_of(parameters, table)
        if vector is not None:
            return Start(parameters, vector, entry.name, ranked[0], entry is ranked[0])
    raise ValueError(f"no classical solver of {calls} calls fits --family {config.table.family} and --order "
                     f"{config.table.order}: leave order at 0")


def ranked_baselines(source: Source, calls: int, held_out: Pairs, config,
                     curve: np.ndarray | None = None) -> list[Entry]:
    """Classical solvers on schedules, best mean error first, those that ran the most pairs before all others.

    A schedule or base solver that was asked for is the only one; a family that cannot hold every solver tries its own
    base solver alone.
    """
    top = None if curve is None else float(curve[0])
    if config.table.schedule == "auto" and holds_every_solver(config):
        entries = baselines(source, calls, start_pairs(source, top), top, curve, pin=True)
        return searched(source, entries, held_out, config.effort)
    known = whole_schedules(source, config.table.schedule) if curve is None else {
        **schedules_for(source, top), CURVE: lambda steps: schedules.stretched(curve, steps, source.flow)}
    asked = {config.table.schedule: known[config.table.schedule]} if config.table.schedule in known else known
    entries = base_entries(source, asked, calls, config) or base_entries(source, known, calls, config)
    few = held_out.part(slice(0, config.effort.rounds[-1][0]))
    return sorted(measured(source, entries, few), key=lambda entry: entry.errors.mean())


def search_calls(source: Source, calls: int, config) -> int:
    """The most network calls that `ranked_baselines` makes for a whole table."""
    effort = config.effort
    most = len(schedules_for(source)) + 1                                       # a window has its curve
    if config.table.schedule != "auto" or not holds_every_solver(config):
        return calls * effort.rounds[-1][0] * (1 if config.table.schedule != "auto" else most)
    tried = len(set(schedules_for(source)) - set(NO_START_SCHEDULES)) + 1
    return search_cost(effort, calls, effort.rounds[-1][0], tried, source.flow, solvers=STARTS)


def holds_every_solver(config) -> bool:
    """Whether the rows of a configuration are free enough to equal any solver of one call a step."""
    return config.table.family == "lms" and config.table.order == 0


def vector_of(parameters: Parameters, table: Table) -> Tensor | None:
    """The free numbers whose table is this one, on its own levels; None where there are none."""
    if parameters.boundary is not None:
        if table.calls != parameters.calls:         # of a solver of several calls a step
            return None
        halves = zip(parameters.halves, experts.halves(table, parameters.boundary))
        vectors = [vector_of(half, part) for half, part in halves]
        return None if any(vector is None for vector in vectors) else torch.cat(vectors)
    vector = parameters.initial()
    if parameters.frozen(vector).same_as(table):
        return vector
    gaps, offsets, residuals, *_ = parameters.sizes
    some = slice(gaps + offsets, gaps + offsets + residuals)
    with torch.enable_grad():
        slopes = torch.autograd.functional.jacobian(lambda free: parameters.table(free).weights, vector)
    missing = (torch.tensor(table.weights) - torch.tensor(parameters.frozen(vector).weights))[:, :, None]
    rows = torch.tril(torch.ones(table.calls, table.calls, dtype=torch.bool))
    rows[-1, -1] = False                                            # the constant law's
    # not the usual driver, gelsy, whose last digits differ between runs; rounded: they may depend on the memory's place
    solution = torch.linalg.lstsq(slopes[rows][:, some], missing[rows], driver="gelsd").solution[:, 0]
    vector[some] += solution.round(decimals=12)
    rebuilt = parameters.frozen(vector)
    same = all(np.allclose(getattr(rebuilt, part), getattr(table, part), rtol=0, atol=1e-8)
               for part in ("weights", "carry"))
    return vector if same and np.array_equal(table.query, table.sigmas[:-1]) else None


def base_entries(source: Source, known: dict, calls: int, config) -> list[Entry]:
    """The base solver on each of the schedules (name -> (steps -> levels)) that can place as many levels."""
    entries = []
    for name, levels in known.items():
        try:
            table = start_on(config.table.family, config.table.base, levels, calls, source.flow)
        except NaNFromModel:                                # out of gits, which asks the network
            raise
        except ValueError:
            continue
        entries.append(Entry(config.table.base, name, table))
    return entries


def whole_schedules(source: Source, name: str) -> dict:
    """name -> (steps -> levels) of the schedules for whole images, the one asked for among them if there is one."""
    asked = asked_for(source, name)
    return schedules_for(source) if asked is None else {**schedules_for(source), name: asked}


def check_schedule(source: Source, config) -> None:
    """Raises ValueError for an unknown schedule, or one without so many steps, before anything is spent."""
    known = whole_schedules(source, config.table.schedule)
    if config.table.schedule not in ("auto", *known):
        raise ValueError(f"no schedule {config.table.schedule!r} for {source.name}; there are: auto, "
                         f"{', '.join([*known, *NAMES])}")
    if config.table.schedule not in ("auto", "gits"):         # of gits the levels cost network calls
        for calls in config.calls:
            start_on(config.table.family, config.table.base, known[config.table.schedule], calls, source.flow)
