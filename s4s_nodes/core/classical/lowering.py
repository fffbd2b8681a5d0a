"""From a textbook algorithm to sigmas -> Table: shared by all classical solvers."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from ..table import MAX_CALLS, Table
from ..trace import TensorTable, Trace


class Solver:
    """A classical solver, sigmas (N+1,) -> Table, from its run(trace, sigmas, flow, **options) -> last state.

    calls_per_step: the most of any step; lawful: whether steps to levels above 0 obey the constant law.
    """

    __name__: str

    def __init__(self, run: Callable, calls_per_step: int = 1, lawful: bool = True, **options):
        functools.update_wrapper(self, run)
        self.run, self.calls_per_step, self.lawful, self.options = run, calls_per_step, lawful, options
        self._frozen = functools.lru_cache(maxsize=4)(lambda levels, flow, options: self.table(     # a host asks again
            levels, flow, **dict(options)).frozen(keeps_constants=lawful or levels[-1] == 0))

    def with_options(self, **options) -> "Solver":
        """The same solver with these options by default."""
        return Solver(self.run, self.calls_per_step, self.lawful, **{**self.options, **options})

    def table(self, sigmas, flow: bool = False, **options) -> TensorTable:
        """The table, differentiable in the sigmas."""
        levels = torch.as_tensor(sigmas, dtype=torch.float64)
        _check(levels, flow)
        trace = Trace(levels, self.calls_per_step * (len(levels) - 1))
        return trace.finish(self.run(trace, levels, flow, **{**self.options, **options}))

    def __call__(self, sigmas, flow: bool = False, **options) -> Table:
        """The frozen table. flow: a rectified flow's levels, from 1 to 0. Raises ValueError for unusable levels."""
        levels = torch.as_tensor(sigmas, dtype=torch.float64)
        _check(levels, flow)
        return self._frozen(tuple(levels.tolist()), flow, tuple(sorted(options.items())))


def lowered(calls_per_step: int = 1, lawful: bool = True) -> Callable[[Callable], Solver]:
    """Decorate run(trace, sigmas, flow, **options) -> last state to make a Solver of it."""
    return lambda run: Solver(run, calls_per_step, lawful)


def _check(levels: Tensor, flow: bool) -> None:
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas has shape {tuple(levels.shape)}: a solver needs at least two levels")
    if len(levels) > MAX_CALLS + 1:
        raise ValueError(f"{len(levels) - 1} steps asked for: a table holds at most {MAX_CALLS}")
    if not bool(torch.isfinite(levels).all()):
        raise ValueError("sigmas hold NaN or infinity")
    if bool((levels[1:] >= levels[:-1]).any()) or bool(levels[-1] < 0):
        raise ValueError(f"sigmas must fall strictly to an end of at least 0, got {levels.tolist()[:6]}: give "
                         "the highest first, and each once")
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
