"""The families of the paper as ways to fill the one table: where free numbers stand and how they enter its rows.

R, C are what the free numbers add to the base solver's own coefficients in (Frankel et al. 2025, eq. 5, its twin in
data prediction, section on families)

    x' = (sigma' / sigma) x + S Delta,   S = -alpha' (e^-h - 1) = 1 - sigma' / sigma, for a flow as well

    lms  multistep: Delta = sum_j R[i, j] D[j]
    pc   predictor-corrector: call i is made at the predicted u[i] = A x[i-1] + S sum_{j<i} R[i-1, j] D[j] and serves
         twice: x[i] = A x[i-1] + S sum_{j<=i} C[i, j] D[j] corrects it, and the next step predicts from there (UniPC).
         Nothing is corrected after the last step. All of it is a multistep rule of one prediction more
    ss   single-step: a step of k calls sees k - 1 points of its own, each A x + S sum_j R[l, j] D[j] from the step's
         start, and ends likewise (DPM-Solver). The step to 0 has one call, the one before it what is left over
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ...s4s_nodes.core import Table, TensorTable, classical
from ...s4s_nodes.select import adapt

FAMILIES = {"lms": "dpmpp_2m", "pc": "unipc_bh2_3", "ss": "dpm_2"}       # and the usual base solver of each
LEAST_STEP = adapt.SMALLEST_STEP                        # of S: the unit of a free number never vanishes


class Place(NamedTuple):
    """Where a free number stands: block 0 is R, 1 is C."""

    block: int
    row: int
    column: int


def usual_base(family: str, order: int) -> str:
    """The base solver that "auto" stands for."""
    return "dpmpp_3s" if (family, order) == ("ss", 3) else FAMILIES[family]


def check_base(family: str, base: str, order: int) -> None:
    """Raise ValueError for a base solver that the family cannot start from."""
    if family == "ss":
        usable, kind = list(classical.SINGLE_STEP), "a single-step solver"
    else:
        usable = [name for name, solver in classical.SOLVERS.items() if solver.calls_per_step == 1]
        kind = "one with one call per step"
    if base not in usable:
        raise ValueError(f"base solver {base!r}: use {kind}: {', '.join(usable)}")
    if order < 0:
        raise ValueError(f"order {order}: 0 for all predictions so far, or how many of the newest")
    if family == "ss" and order not in (0, classical.SINGLE_STEP[base].calls):
        raise ValueError(f"order {order}: {base} makes {classical.SINGLE_STEP[base].calls} calls a step; leave order "
                         "at 0 or use another base")


def step_sizes(family: str, base: str, calls: int) -> tuple[int, ...]:
    """Calls of each step: one; single-step solvers make several, one in the step to 0, the rest in that before it."""
    if family != "ss":
        return (1,) * calls
    whole, left = divmod(calls - 1, classical.SINGLE_STEP[base].calls)
    return (classical.SINGLE_STEP[base].calls,) * whole + (left,) * (left > 0) + (1,)


def base_table(family: str, base: str, sigmas: Tensor, flow: bool) -> TensorTable:
    """The base solver on all levels (N+1,), differentiable in them."""
    if family != "ss":
        return classical.SOLVERS[base].table(sigmas, flow)
    return classical.SINGLE_STEP[base].function.table(sigmas, flow, sizes=step_sizes(family, base, len(sigmas) - 1))


def start_on(family: str, base: str, schedule: Callable, calls: int, flow: bool) -> Table:
    """The base solver of so many calls on a schedule (steps -> levels)."""
    sizes = step_sizes(family, base, calls)
    levels = schedule(len(sizes))
    if family != "ss":
        return classical.SOLVERS[base](levels, flow=flow)
    return base_table(family, base, classical.SINGLE_STEP[base].levels_on(levels, sizes, flow), flow).frozen()


def places(family: str, base: str, calls: int, order: int, ends_at_zero: bool) -> list[Place]:
    """Every free number's place; the last row's newest weight is not free, the constant law sets it."""
    if family == "ss":
        free, at = [], 0
        for size in step_sizes(family, base, calls):
            free += [Place(0, at + row, at + column)
                      for row in range(size) for column in range(row, -1, -1)]
            at += size
    else:
        free = [Place(0, row, row - age) for row in range(calls)
                 for age in range(min(order or calls, row + 1))]
    if family == "pc":
        corrected = range(1, calls - ends_at_zero)          # what the last row carries nothing of needs no correction
        free += [Place(1, row, row - age) for row in corrected
                  for age in range(min(order or calls, row) + 1)]
    return [place for place in free if place != (0, calls - 1, calls - 1)]


def units(family: str, base: str, sigmas: Tensor) -> Tensor:
    """S of R and of C in every row, (2, N)."""
    begin = _begins(step_sizes(family, base, len(sigmas) - 1))
    reached = (1 - sigmas[1:] / sigmas[begin]).clamp(min=LEAST_STEP)
    return torch.stack([reached, torch.cat([reached[:1], reached[:-1]])])


def added(family: str, base: str, blocks: Tensor, carry: Tensor) -> Tensor:
    """What S R and S C, (2, N, N), add to the weights (N, N) of rows with this carry."""
    if family == "lms":
        return blocks[0]
    before = torch.cat([torch.zeros_like(blocks[0, :1]), blocks[0, :-1]])       # what the state before has of it
    if family == "pc":
        return blocks[0] + carry[:, None] * (blocks[1] - before)
    inside = _begins(step_sizes(family, base, len(carry))) != torch.arange(len(carry))
    return blocks[0] - (carry * inside)[:, None] * before


def _begins(sizes: tuple) -> Tensor:
    """The row at which each row's step begins."""
    return torch.tensor([sum(sizes[:step]) for step, size in enumerate(sizes) for _ in range(size)])
