"""Adapting a learned table to other levels: its residual over a classical solver is kept.

A table is DPM-Solver++(2M) on its own levels plus a residual in units of the step, as in the trainer. The adapted table
is DPM-Solver++(2M) on the new levels plus the same residual: exact if nothing moved, and differentiable in the move.
"""

import numpy as np

from ..core import classical
from ..core.levels import ENDLESS, even
from ..core.table import Table, end_response, lawful_total

SMALLEST_STEP = 0.05        # least 1 - sigma'/sigma, here and in training: a residual's unit never vanishes
MOVED_START = 1.5           # largest ratio of two starts, in noise to signal: docs/constants.md


def adapted(table: Table, sigmas, flow: bool) -> Table:
    """The table adapted to other levels (N+1,), with the same number of calls.

    It keeps the residual of the weights over DPM-Solver++(2M) in units of the step, the carry relative to that
    solver's, query / sigma (never above the highest level of the table or of the new levels), and scale; a scale that
    undoes the denoiser's input scaling is recomputed. The constant law sets the newest weight of the last row, unless
    the table breaks that law.
    Raises ValueError if lengths differ, levels repeat, or only one of the two ends at 0.
    """
    sigmas = np.array(sigmas, dtype=np.float64)
    _check(table, sigmas)
    if np.array_equal(sigmas, table.sigmas):
        return table
    old, new = (classical.SOLVERS["dpmpp_2m"](np.array(levels), flow) for levels in (table.sigmas, sigmas))
    residual = (table.weights - old.weights) / step_units(table.sigmas)[:, None]
    weights = new.weights + residual * step_units(sigmas)[:, None]
    ends = old.carry == 0           # the last row's, where the levels end at 0
    carry = np.where(ends, table.carry, new.carry * table.carry / np.where(ends, 1.0, old.carry))
    top = max(table.sigmas[0], sigmas[0], table.query.max())
    query = np.minimum(sigmas[:-1] * table.query / table.sigmas[:-1], top)
    there = Table(sigmas, query, _scales(table, sigmas, query), carry, weights, keeps_constants=False)
    return lawful(there, flow) if table.keeps_constants else there


def head(table: Table, calls: int, flow: bool) -> Table:
    """The first rows of a table as a table that ends above 0.

    Only the last row obeys the constant law, by its newest weight. So another sampler can continue from a correct
    latent with that much noise.
    """
    return lawful(Table(table.sigmas[:calls + 1], table.query[:calls], table.scale[:calls], table.carry[:calls],
                          table.weights[:calls, :calls], keeps_constants=False), flow)


def from_start(levels, start: float, flow: bool) -> np.ndarray:
    """Levels that end at 0, moved to another start.

    A flow's levels scale in proportion. Others stretch in log sigma above their last level, which stays. If both starts
    are pure noise, arctan sigma scales in proportion, so that hardly anything moves. docs/constants.md has the numbers.
    """
    levels = np.array(levels, dtype=np.float64)
    if flow:
        moved = levels[1:] * (start / levels[0])
    elif min(start, levels[0]) > ENDLESS:
        moved = np.tan(np.arctan(levels[1:]) * (np.arctan(start) / np.arctan(levels[0])))
    elif len(levels) < 3 or start <= levels[-2]:
        moved = levels[1:] * min(1.0, start / levels[0])
    else:
        stretch = np.log(start / levels[-2]) / np.log(levels[0] / levels[-2])
        moved = np.append(levels[-2] * (levels[1:-1] / levels[-2]) ** stretch, 0.0)
    return np.append(start, moved)


def above(window, top: float, steps: int, flow: bool) -> np.ndarray:
    """A whole schedule (steps + 1,) from the top whose last levels are the window's; those above them are even."""
    unit, back = even(flow)
    first = back(np.linspace(unit(top), unit(window[0]), steps - len(window) + 2)[1:-1])
    return np.concatenate([[top], first, window])


def start_ratio(one: float, other: float, flow: bool) -> float:
    """The distance of two starts: the larger noise-to-signal ratio over the smaller, at least 1."""
    first, second = _noise_to_signal(one, flow), _noise_to_signal(other, flow)
    return max(first, second) / min(first, second)


def starts_near(one: float, other: float, flow: bool) -> bool:
    """Whether a table may be adapted from one start to the other: if they are near, or both pure noise in practice."""
    both_noise = min(_noise_to_signal(one, flow), _noise_to_signal(other, flow)) > ENDLESS
    return start_ratio(one, other, flow) <= MOVED_START or both_noise


def _noise_to_signal(level: float, flow: bool) -> float:
    return level / max(1 - level, 1e-9) if flow else level


def distance(levels, others) -> float:
    """The distance of two schedules of the same length between their ends: the mean of |log ratio|."""
    inner = np.log(np.asarray(levels)[1:-1] / np.asarray(others)[1:-1])
    return float(np.abs(inner).mean()) if len(inner) else 0.0


def _check(table: Table, sigmas: np.ndarray) -> None:
    for levels, whose in ((table.sigmas, "the table's"), (sigmas, "the given")):
        if not (np.diff(levels) < 0).all():
            raise ValueError(f"{whose} levels do not fall strictly ({levels.tolist()[:6]}): only a table with one call "
                             "a level can be moved, and only to such levels")
    if sigmas.shape != table.sigmas.shape or (table.sigmas[-1] > 0) != (sigmas[-1] > 0):
        raise ValueError(f"{len(sigmas) - 1} steps to {sigmas[-1]:g} were given to a table of {table.calls} calls to "
                         f"{table.sigmas[-1]:g}: it can be moved to as many others, and from 0 to 0 alone")


def step_units(sigmas: np.ndarray) -> np.ndarray:
    """1 - sigma'/sigma (N,): the unit of a row's learned numbers."""
    return np.maximum(1 - sigmas[1:] / sigmas[:-1], SMALLEST_STEP)


def _scales(table: Table, sigmas: np.ndarray, query: np.ndarray) -> np.ndarray:
    """The scale; where it undoes the denoiser's input scaling for the query, it is recomputed for the new levels."""
    old, new = (np.sqrt((1 + asked ** 2) / (1 + own[:-1] ** 2))
                for asked, own in ((table.query, table.sigmas), (query, sigmas)))
    return np.where((table.scale != 1) & np.isclose(table.scale, old, rtol=1e-6), new, table.scale)


def lawful(table: Table, flow: bool) -> Table:
    """The table with the newest weight of its last row set by the constant law at its end level."""
    weights = table.weights.copy()
    weights[-1, -1] += lawful_total(table.sigmas[0], table.sigmas[-1], flow) - end_response(table)[1]
    return Table(table.sigmas, table.query, table.scale, table.carry, weights)
