"""A table between two learned ones: for a guidance scale between those they were learned at.

Both tables are first moved to common levels (core/adapt.py), where their carries agree, so that a mean of them obeys
the constant law as they do.
"""

from __future__ import annotations

from .adapt import adapted, lawful
from .solver import Solver


def between(low: Solver, high: Solver, share: float, flow: bool) -> Solver:
    """The table that is `low` at share 0 and `high` at share 1: levels and queries even in log, weights linear.

    Raises ValueError for a share outside 0..1, and where the tables have different numbers of calls or ends, or one
    of a kind that cannot be moved.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share {share:g}: tables are interpolated from 0 to 1, never beyond")
    if low.sigmas.shape != high.sigmas.shape:
        raise ValueError(f"tables of {low.calls} and {high.calls} calls: only tables of as many calls have others "
                         "between them")
    if share in (0, 1):
        return high if share else low
    there = low.sigmas ** (1 - share) * high.sigmas ** share
    first, second = adapted(low, there, flow), adapted(high, there, flow)
    made = Solver(there, first.query ** (1 - share) * second.query ** share,
                  first.scale ** (1 - share) * second.scale ** share,
                  (1 - share) * first.carry + share * second.carry,
                  (1 - share) * first.weights + share * second.weights, keeps_constants=False)
    return lawful(made, flow) if low.keeps_constants and high.keeps_constants else made
