"""A learned table on other levels than its own: what it learned is kept relative to a classical solver.

A table is DPM-Solver++(2M) on its own levels plus a residual, in units of the step, as the trainer has it. The same
residual over DPM-Solver++(2M) on the new levels is the table's continuation to them: exact where nothing moved, and
differentiable in the move.
"""

from __future__ import annotations

import numpy as np

from . import classical
from .solver import Solver, end_response

SMALLEST_STEP = 0.05        # of 1 - sigma'/sigma, as in training: a residual's unit never vanishes


def adapted(table: Solver, sigmas, flow: bool) -> Solver:
    """The table's learned part on other levels (N+1,) for the same number of calls.

    Kept are the residual of weights over DPM-Solver++(2M) in units of the step, query / sigma (never above the
    highest level the table or the new levels know), and scale. The newest weight of the last row is what the
    constant law leaves, unless the table breaks that law.
    Raises ValueError where lengths differ, levels repeat, or only one of the two ends at 0.
    """
    sigmas = np.array(sigmas, dtype=np.float64)
    _check(table, sigmas)
    if np.array_equal(sigmas, table.sigmas):
        return table
    old, new = (classical.SOLVERS["dpmpp_2m"](np.array(levels), flow) for levels in (table.sigmas, sigmas))
    residual = (table.weights - old.weights) / _steps(table.sigmas)[:, None]
    weights = new.weights + residual * _steps(sigmas)[:, None]
    carry = _carries(table, old, new)
    top = max(table.sigmas[0], sigmas[0], table.query.max())
    query = np.minimum(sigmas[:-1] * table.query / table.sigmas[:-1], top)
    if table.keeps_constants:
        weights[-1, -1] += _missing(Solver(sigmas, query, table.scale, carry, weights, keeps_constants=False), flow)
    return Solver(sigmas, query, table.scale, carry, weights, table.keeps_constants)


def from_start(levels, start: float, flow: bool) -> np.ndarray:
    """Levels that end at 0, moved to another start: all in proportion, in arctan sigma (a flow: in the level)."""
    levels = np.array(levels, dtype=np.float64)
    if flow:
        return np.concatenate([[start], levels[1:] * (start / levels[0])])
    return np.concatenate([[start], np.tan(np.arctan(levels[1:]) * (np.arctan(start) / np.arctan(levels[0])))])


def distance(levels, others) -> float:
    """How far two schedules of the same length are apart between their ends: the mean of |log ratio|."""
    inner = np.log(np.asarray(levels)[1:-1] / np.asarray(others)[1:-1])
    return float(np.abs(inner).mean()) if len(inner) else 0.0


def _check(table: Solver, sigmas: np.ndarray) -> None:
    if sigmas.shape != table.sigmas.shape:
        raise ValueError(f"{len(sigmas) - 1} steps were given to a table of {table.calls} calls: a table can be moved "
                         "to other levels, not to another number of them")
    for levels, whose in ((table.sigmas, "the table's"), (sigmas, "the given")):
        if not bool(np.isfinite(levels).all()) or not bool((np.diff(levels) < 0).all()) or levels[-1] < 0:
            raise ValueError(f"{whose} levels do not fall strictly to 0 or above ({levels.tolist()[:6]}): only a table "
                             "with one call a level can be moved, and only to such levels")
    if (table.sigmas[-1] > 0) != (sigmas[-1] > 0):
        raise ValueError(f"the table ends at {table.sigmas[-1]:g}, the given levels at {sigmas[-1]:g}: its last row "
                         "is made for an end " + ("above 0" if table.sigmas[-1] > 0 else "at 0"))


def _steps(sigmas: np.ndarray) -> np.ndarray:
    return np.maximum(1 - sigmas[1:] / sigmas[:-1], SMALLEST_STEP)


def _carries(table: Solver, old: Solver, new: Solver) -> np.ndarray:
    """The table's carry relative to DPM-Solver++(2M)'s, whose last is 0 where the levels end at 0."""
    ends = old.carry == 0
    return np.where(ends, table.carry, new.carry * table.carry / np.where(ends, 1.0, old.carry))


def _missing(table: Solver, flow: bool) -> float:
    """What the predictions' total weight lacks to the constant law at the end level."""
    first, end = table.sigmas[0], table.sigmas[-1]
    kept = end / first
    wanted = (1 - end) - (1 - first) * kept if flow else 1 - kept
    return float(wanted - end_response(table)[1])
