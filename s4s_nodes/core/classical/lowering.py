"""From a textbook algorithm to sigmas -> Table: shared by all classical solvers."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from ..table import MAX_CALLS, Table
from ..trace import TensorTable, Trace


def lowered(calls_per_step: int = 1, lawful: bool = True):
    """Turn run(trace, sigmas, flow, **options) -> last state into sigmas -> Table, with `.table` beside it.

    calls_per_step: the most of any step; lawful: whether steps to levels above 0 obey the constant law.
    """
    def wrap(run):
        @functools.wraps(run)
        def table(sigmas, flow: bool = False, **options) -> TensorTable:
            levels = torch.as_tensor(sigmas, dtype=torch.float64)
            _check(levels, flow)
            trace = Trace(levels, calls_per_step * (len(levels) - 1))
            return trace.finish(run(trace, levels, flow, **options))

        @functools.lru_cache(maxsize=4)             # a host samples on the same levels again and again
        def frozen(levels: tuple, flow: bool, options: tuple) -> Table:
            made = table(levels, flow, **dict(options))
            return made.frozen(keeps_constants=lawful or bool(made.sigmas[-1] == 0))

        @functools.wraps(run)
        def solver(sigmas, flow: bool = False, **options) -> Table:
            levels = torch.as_tensor(sigmas, dtype=torch.float64)
            _check(levels, flow)
            return frozen(tuple(levels.tolist()), flow, tuple(sorted(options.items())))
        solver.table, solver.calls_per_step = table, calls_per_step
        return solver
    return wrap


def _check(levels: Tensor, flow: bool) -> None:
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas has shape {tuple(levels.shape)}: a solver needs at least two levels, the start "
                         "and the end")
    if len(levels) > MAX_CALLS + 1:
        raise ValueError(f"{len(levels) - 1} steps asked for: a table holds at most {MAX_CALLS}")
    if not bool(torch.isfinite(levels).all()):
        raise ValueError("sigmas hold NaN or infinity")
    if bool((levels[1:] >= levels[:-1]).any()) or bool(levels[-1] < 0):
        raise ValueError(f"sigmas must fall strictly to an end of at least 0, got {levels.tolist()[:6]}")
    if flow and bool(levels[0] > 1):
        raise ValueError(f"sigmas start at {float(levels[0]):g}, but a flow's levels run from 1 to 0: leave "
                         "flow=False for other models")


def steps(sigmas: Tensor) -> list:
    """(sigma, next sigma) of each step."""
    return list(zip(sigmas[:-1].unbind(), sigmas[1:].unbind()))


def check_order(order: int, highest: int) -> None:
    """Raise ValueError unless order is a whole number from 1 to highest."""
    if isinstance(order, bool) or not isinstance(order, int) or not 1 <= order <= highest:
        raise ValueError(f"order {order!r} asked for: there are orders 1 to {highest}")
