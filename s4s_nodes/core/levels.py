"""Shared math on noise levels: comparing starts, interpolating schedules, integrating over a step."""

from collections.abc import Callable
from functools import cache

import numpy as np

ENDLESS = 100.0             # a sigma (noise to signal) above this is noise and nothing else, whatever its number
SAME_TOP = 0.02             # highest levels this close are the same model's: hosts round and interpolate theirs


def same_top(one: float, other: float) -> bool:
    """Whether two highest levels mean the same in practice."""
    return min(one, other) > ENDLESS or abs(one - other) <= SAME_TOP * min(one, other)


def starts_at(level: float, top: float) -> bool:
    """Whether levels starting at `level` are for whole images of a model with this highest level."""
    return abs(level / top - 1) <= SAME_TOP


def starts_below(level: float, top: float) -> bool:
    """Whether levels starting at `level` are for a window below this highest level."""
    return level <= (1 - SAME_TOP) * top


def even(flow: bool) -> tuple[Callable, Callable]:
    """(function, inverse): the coordinate in which the steps of a good schedule are nearly even.

    arctan sigma (Sabour et al. 2024, section 3.1), which has a value at 0 and at infinity; a flow's level itself.
    """
    return (np.asarray, np.asarray) if flow else (np.arctan, np.tan)


def along(levels, places, flow: bool) -> np.ndarray:
    """Levels at places from 0 (first) to 1 (last) of a schedule: linear between its own in `even`'s coordinate."""
    into, back = even(flow)
    return back(np.interp(places, np.linspace(0, 1, len(levels)), into(levels)))


@cache
def gauss(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of the Gauss-Legendre rule on [0, 1]: exact for polynomials of degree 2 count - 1."""
    points, weights = np.polynomial.legendre.leggauss(count)
    return (points + 1) / 2, weights / 2


def lagrange(nodes, j: int, at):
    """The Lagrange polynomial at `at` (array or tensor) that is 1 at nodes[j] and 0 at the other nodes."""
    value = 1 + 0 * at
    for k, node in enumerate(nodes):
        if k != j:
            value = value * (at - node) / (nodes[j] - node)
    return value
