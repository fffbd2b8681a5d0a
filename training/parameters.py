"""Free numbers -> table: what the trainer turns, and the laws it cannot break.

    sigmas   sigma[i+1] - end = (sigma[i] - end) * exp(-softplus(gap[i])): they fall by construction, the ends fixed
    weights  the base solver's own coefficients, as functions of these sigmas, plus a residual that starts at 0 on
             the newest `order` predictions (0: all), in units of the step:
             weights[i, i-a] += (1 - sigma[i+1] / sigma[i]) residual[i, a]
    query    query[i] = sigma[i] * exp(offset[i]), never above the model's highest level
    carry    the base solver's, times exp(change[i]): the row's share of x[0], with which the rows are the whole class
             x[i+1] = a[i] x[0] + sum_j b[i, j] D[j] (BNS, arXiv 2403.01329); the newest prediction takes what the
             state loses, so that row sums do not move
The newest weight of the last row, and its carry, are whatever the constant law leaves; all other row sums are free.
(Frankel et al. 2025, eq. 5 and App. E.1; analytic part plus residual after GS, arXiv 2510.17699.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from .core import Solver, Table, classical

PARTS = ("sigmas", "query", "weights", "carry")
LEARN = {"coefficients": ("weights",), "schedule": ("sigmas", "query"), "joint": ("sigmas", "query", "weights"),
         "generalized": PARTS}                           # the words of `learn` -> the parts of the vector that move


@dataclass(frozen=True)
class Parameters:
    """The map from one free vector to a Table of `calls` rows over the window sigmas[0] .. sigmas[-1].

    start: the initial sigmas (N+1,); base: a name in classical.SOLVERS with one call per step; learn: a word of LEARN;
    highest: the model's highest level, start[0] where none is given. The vector is float64: [gaps (N-1), offsets (N),
    residuals (rows x order)], where the carry is learned followed by [changes (N-1)].
    """

    start: np.ndarray
    base: str = "dpmpp_2m"
    order: int = 0
    flow: bool = False
    learn: str = "joint"
    highest: float | None = None

    def __post_init__(self):
        if self.base not in classical.SOLVERS or classical.SOLVERS[self.base].calls_per_step != 1:
            usable = [name for name, solver in classical.SOLVERS.items() if solver.calls_per_step == 1]
            raise ValueError(f"base solver {self.base!r}: use one with one call per step: {', '.join(usable)}")
        if self.learn not in LEARN:
            raise ValueError(f"learn is {self.learn!r}: use one of {', '.join(LEARN)}")
        if self.order < 0:
            raise ValueError(f"order {self.order}: 0 for all predictions so far, or how many of the newest")

    @property
    def calls(self) -> int:
        return len(self.start) - 1

    @property
    def _places(self) -> tuple[Tensor, Tensor]:
        """Row and column of every residual; the last row's newest weight is not free."""
        places = [(i, i - age) for i in range(self.calls) for age in range(min(self.order or self.calls, i + 1))]
        places.remove((self.calls - 1, self.calls - 1))
        rows, columns = torch.tensor(places, dtype=torch.long).reshape(-1, 2).T
        return rows, columns

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the parts of the vector, in the order of PARTS."""
        carries = (self.calls - 1,) if "carry" in LEARN[self.learn] else ()
        return self.calls - 1, self.calls, len(self._places[0]), *carries

    def initial(self) -> Tensor:
        """The vector whose table is the base solver on the initial sigmas, exactly."""
        above = self.start[:-1] - self.start[-1]
        ratios = np.log(above[:-1] / above[1:])                                 # softplus(gap) must equal these
        gaps = torch.from_numpy(ratios + np.log(-np.expm1(-ratios)))
        return torch.cat([gaps, torch.zeros(sum(self.sizes[1:]), dtype=torch.float64)])

    def moving(self) -> Tensor:
        """1.0 where the vector is to be learned, else 0.0."""
        parts, moved = zip(PARTS, self.sizes), LEARN[self.learn]
        return torch.cat([torch.full((size,), float(part in moved), dtype=torch.float64) for part, size in parts])

    def table(self, vector: Tensor) -> Table:
        """The table of a free vector, differentiable in it."""
        gaps, offsets, residuals, *changes = vector.split(list(self.sizes))
        sigmas = self._sigmas(gaps)
        base = classical.SOLVERS[self.base].table(sigmas, self.flow)
        query = (sigmas[:-1] * offsets.exp()).clamp(max=max(float(self.start[0]), self.highest or 0.0))
        step = (1 - sigmas[1:] / sigmas[:-1]).clamp(min=0.05)
        rows, columns = self._places
        weights, carry = base.weights.index_put((rows, columns), residuals * step[rows], accumulate=True), base.carry
        if changes:
            carry = _changed(base.carry, changes[0], sigmas[-1] / sigmas[0])
            weights = weights + torch.diag(base.carry - carry)
        return Table(sigmas, query, base.scale, carry, _obey_constant_law(weights, carry, sigmas, self.flow))

    def solver(self, vector: Tensor) -> Solver:
        """The checked table. Raises ValueError where the numbers have run away."""
        return self.table(vector.detach()).solver()

    def _sigmas(self, gaps: Tensor) -> Tensor:
        first, end = torch.from_numpy(self.start[[0, -1]]).split(1)
        return torch.cat([first, end + (first - end) * torch.exp(-softplus(gaps).cumsum(0)), end])


def _changed(carry: Tensor, changes: Tensor, kept: Tensor) -> Tensor:
    """The carries with all but the last changed; the last leaves of x[0] what the end level keeps of it."""
    free = carry[:-1] * changes.exp()
    return torch.cat([free, (kept / free.prod())[None]])


def _obey_constant_law(weights: Tensor, carry: Tensor, sigmas: Tensor, flow: bool) -> Tensor:
    """Set the last row's newest weight so that a constant denoiser is reproduced at the end level."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(carry) - 1):
        total = carry[i] * total + weights[i].sum()
    kept = sigmas[-1] / sigmas[0]
    wanted = (1 - sigmas[-1]) - (1 - sigmas[0]) * kept if flow else 1 - kept
    newest = wanted - carry[-1] * total - weights[-1, :-1].sum()
    last = torch.cat([weights[-1, :-1], newest[None]])
    return torch.cat([weights[:-1], last[None]])
