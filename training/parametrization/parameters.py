"""Free numbers -> table: what is learned, and the laws that hold by construction.

    sigmas   sigma[i+1] - end = (sigma[i] - end) * exp(-softplus(gap[i])): they fall by construction, the ends fixed
    weights  the base solver's own coefficients, as functions of these sigmas, plus a residual that starts at 0, in
             units of the step; where it stands and what it adds is the family's (families.py), by default on the
             newest `order` predictions (0: all): weights[i, i-a] += (1 - sigma[i+1] / sigma[i]) residual[i, a]
    query    query[i] = sigma[i] * exp(offset[i]), never above the model's highest level
    carry    the base solver's, times exp(change[i]): the row's share of x[0], with which the rows are the whole class
             x[i+1] = a[i] x[0] + sum_j b[i, j] D[j] (BNS, arXiv 2403.01329); the newest prediction takes what the
             state loses, so that row sums do not move
With a boundary, two such tables in a row, one for each of two models, that share the level of the boundary
(core/experts.py); the vector is the one's and the other's. The constant law holds for each.
The newest weight of the last row, and its carry, are whatever the constant law leaves; all other row sums are free.
(Frankel et al. 2025, eq. 5 and App. E.1; analytic part plus residual after GS, arXiv 2510.17699.)
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...s4s_nodes.core import Table, TensorTable, experts, lawful_total
from .families import FAMILIES, added, base_table, check_base, places, units

PARTS = ("sigmas", "query", "weights", "carry")
LEARN = {"coefficients": ("weights",), "schedule": ("sigmas", "query"), "joint": ("sigmas", "query", "weights"),
         "generalized": PARTS, "alternate": ("sigmas", "query", "weights")}     # word of `learn` -> parts that move
TURNS = ("schedule", "coefficients")                     # of `alternate`, in this order
LATER = 4                                                # turns in which a carry rests: with it the rest is redundant


@dataclass(frozen=True)
class Parameters:
    """The map from one free vector to a table of `calls` rows over the window sigmas[0] .. sigmas[-1].

    start: the initial sigmas (N+1,); base: a solver the family can start from; learn: a word of LEARN; highest: the
    model's highest level, start[0] where none is given. resting: a part kept still. boundary: the level at which two
    models change, one of start's.
    The vector is float64: [gaps (N-1), offsets (N), residuals], where the carry is learned also [changes (N-1)].
    """

    start: np.ndarray
    base: str = "dpmpp_2m"
    order: int = 0
    flow: bool = False
    learn: str = "joint"
    highest: float | None = None
    family: str = "lms"
    resting: str = ""
    boundary: float | None = None

    def __post_init__(self):
        for name, words in (("learn", LEARN), ("family", FAMILIES)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(words)}")
        check_base(self.family, self.base, self.order)

    @classmethod
    def of(cls, config, source, start: np.ndarray) -> Parameters:
        """What a configuration makes of these levels for a source."""
        start, free = start if source.boundary is None else experts.pinned(start, source.boundary), config.table
        return cls(start, free.base, free.order, source.flow, free.learn, source.sigma_max, free.family,
                   boundary=source.boundary)

    @cached_property
    def halves(self) -> tuple[Parameters, ...]:
        """Those of the two models' tables; () where there is one model."""
        if self.boundary is None:
            return ()
        turn = experts.turn_of(self.start, self.boundary)
        return (replace(self, start=self.start[:turn + 1], boundary=None),
                replace(self, start=self.start[turn:], boundary=None, highest=self.boundary))

    @property
    def turns(self) -> int:
        """The number of turns that move everything once: two for an alternation."""
        return len(TURNS) if self.learn == "alternate" else 1

    def at(self, turn: int) -> Parameters:
        """The parameters that move in this turn: half of them in an alternation; the carry after the first turns."""
        if self.learn == "alternate":
            return replace(self, learn=TURNS[turn % len(TURNS)])
        return replace(self, resting="carry") if self.learn == "generalized" and turn < LATER else self

    @property
    def calls(self) -> int:
        return len(self.start) - 1

    @cached_property
    def _places(self) -> Tensor:
        """(block, row, column) of every residual, (3, n)."""
        free = places(self.family, self.base, self.calls, self.order, self.start[-1] == 0)
        return torch.tensor(free, dtype=torch.long).reshape(-1, 3).T

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the parts of the vector, in the order of PARTS."""
        carries = (self.calls - 1,) if "carry" in LEARN[self.learn] else ()
        return self.calls - 1, self.calls, self._places.shape[1], *carries

    def initial(self) -> Tensor:
        """The vector whose table is the base solver on the initial sigmas, exactly."""
        if self.halves:
            return torch.cat([half.initial() for half in self.halves])
        above = self.start[:-1] - self.start[-1]
        ratios = np.log(above[:-1] / above[1:])                                 # softplus(gap) must equal these
        gaps = torch.from_numpy(ratios + np.log(-np.expm1(-ratios)))
        rest = [torch.zeros(size, dtype=torch.float64) for size in self.sizes[1:]]
        return torch.cat([gaps, *rest])

    def moving(self) -> Tensor:
        """1.0 where the vector is to be learned, else 0.0."""
        if self.halves:
            return torch.cat([half.moving() for half in self.halves])
        parts, moved = zip(PARTS, self.sizes), set(LEARN[self.learn]) - {self.resting}
        return torch.cat([torch.full((size,), float(part in moved), dtype=torch.float64) for part, size in parts])

    def table(self, vector: Tensor) -> TensorTable:
        """The table of a free vector, differentiable in it."""
        if self.boundary is not None:
            high, low = (half.table(part) for half, part in zip(self.halves, self.split(vector)))
            return experts.chained(experts.above(high, self.boundary), low)
        gaps, offsets, residuals, *changes = vector.split(list(self.sizes))
        sigmas = self._sigmas(gaps)
        base = base_table(self.family, self.base, sigmas, self.flow)
        free = sigmas[:-1] * offsets.exp()
        query = free.clamp(max=self._most).detach() + (free - free.detach())    # at the highest level it can still fall
        carry = _ended(base.carry[:-1] * changes[0].exp(), sigmas[-1] / sigmas[0]) if changes else base.carry
        weights = base.weights + added(self.family, self.base, self._blocks(residuals, sigmas), carry)
        weights = weights + torch.diag(base.carry - carry) if changes else weights
        return TensorTable(sigmas, query, base.scale, carry, _obey_constant_law(weights, carry, sigmas, self.flow))

    def bounded(self, vector: Tensor) -> Tensor:
        """The vector with every query at most the model's highest level, where its offset would have no effect."""
        if self.halves:
            return torch.cat([half.bounded(part) for half, part in zip(self.halves, self.split(vector))])
        gaps, offsets, *rest = vector.split(list(self.sizes))
        most = torch.log(self._most / self._sigmas(gaps)[:-1])
        return torch.cat([gaps, torch.minimum(offsets, most), *rest])

    @property
    def _most(self) -> float:
        """The highest level that the network may be asked at."""
        return max(float(self.start[0]), self.highest or 0.0)

    def split(self, vector: Tensor) -> tuple[Tensor, ...]:
        """The vector's halves, one for each of two models."""
        return vector.split([sum(half.sizes) for half in self.halves])

    def frozen(self, vector: Tensor) -> Table:
        """The checked, frozen table. Raises ValueError if the numbers have diverged."""
        return self.table(vector.detach()).frozen()

    def _blocks(self, residuals: Tensor, sigmas: Tensor) -> Tensor:
        """The residuals in their places, (2, N, N), in units of their steps."""
        block, row, column = self._places
        scaled = residuals * units(self.family, self.base, sigmas)[block, row]
        return torch.zeros(2, self.calls, self.calls, dtype=torch.float64).index_put((block, row, column), scaled)

    def _sigmas(self, gaps: Tensor) -> Tensor:
        first, end = torch.from_numpy(self.start[[0, -1]]).split(1)
        return torch.cat([first, end + (first - end) * torch.exp(-softplus(gaps).cumsum(0)), end])


def _ended(carry: Tensor, kept: Tensor) -> Tensor:
    """The carries (N-1,) and the last row's, which leaves of x[0] what the end level keeps of it."""
    return torch.cat([carry, (kept / carry.prod())[None]])


def _obey_constant_law(weights: Tensor, carry: Tensor, sigmas: Tensor, flow: bool) -> Tensor:
    """Set the last row's newest weight so that a constant denoiser is reproduced at the end level."""
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(carry) - 1):
        total = carry[i] * total + weights[i].sum()
    newest = lawful_total(sigmas[0], sigmas[-1], flow) - carry[-1] * total - weights[-1, :-1].sum()
    last = torch.cat([weights[-1, :-1], newest[None]])
    return torch.cat([weights[:-1], last[None]])
