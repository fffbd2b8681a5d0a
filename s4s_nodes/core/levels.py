"""What noise levels mean: when two starts are the same, what is noise alone, and in what a schedule is even."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

ENDLESS = 100.0             # a sigma (noise to signal) above this is noise and nothing else, whatever its number
SAME_TOP = 0.02             # highest levels this close are the same model's: hosts round and interpolate theirs


def same_top(one: float, other: float) -> bool:
    """Whether two highest levels are the same in practice."""
    return min(one, other) > ENDLESS or abs(one - other) <= SAME_TOP * min(one, other)


def starts_at(level: float, top: float) -> bool:
    """Whether levels that start here are for whole images of a model with this highest level."""
    return abs(level / top - 1) <= SAME_TOP


def starts_below(level: float, top: float) -> bool:
    """Whether levels that start here are for a window below this highest level."""
    return level <= (1 - SAME_TOP) * top


def even(flow: bool) -> tuple[Callable, Callable]:
    """(function, its inverse) of the levels in which the steps of a good schedule are nearly even.

    arctan sigma (Sabour et al. 2024, section 3.1), which has a value at 0 and at infinity; a flow's level itself.
    """
    return (_same, _same) if flow else (np.arctan, np.tan)


def _same(levels):
    return levels
