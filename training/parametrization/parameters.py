"""Free numbers -> table: what the trainer turns, and the laws it cannot break.

    sigmas   sigma[i+1] - end = (sigma[i] - end) * exp(-softplus(gap[i])): they fall by construction, the ends fixed
    weights  the base solver's own coefficients, as functions of these sigmas, plus a residual that starts at 0, in
             units of the step; where it stands and what it adds is the family's (families.py), by default on the
             newest `order` predictions (0: all): weights[i, i-a] += (1 - sigma[i+1] / sigma[i]) residual[i, a]
    query    query[i] = sigma[i] * exp(offset[i]), never above the model's highest level
    carry    the base solver's, times exp(change[i]): the row's share of x[0], with which the rows are the whole class
             x[i+1] = a[i] x[0] + sum_j b[i, j] D[j] (BNS, arXiv 2403.01329); the newest prediction takes what the
             state loses, so that row sums do not move
With the paper's clock (clock.py) the rows so made hold for the predictions it means.
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

from ...s4s_nodes.core import Table, TensorTable, lawful_total
from .clock import meant, shown_scale
from .families import FAMILIES, added, base_table, check_base, places, units
from .rows import data_step, lowered, noise_step, slopes_of

PARTS = ("sigmas", "query", "weights", "carry")
LEARN = {"coefficients": ("weights",), "schedule": ("sigmas", "query"), "joint": ("sigmas", "query", "weights"),
         "generalized": PARTS, "alternate": ("sigmas", "query", "weights")}     # word of `learn` -> parts that move
TURNS = ("schedule", "coefficients")                     # of `alternate`, in this order
CLOCKS = ("host", "paper")
RESTRICT = ("none", "fixed", "sum_to_one")
FORMS = ("data", "noise")
LATER = 4                                                # turns in which a carry rests: with it the rest is redundant
RANDOM = 0.5                                             # deviation of residuals that start at random


@dataclass(frozen=True)
class Parameters:
    """The map from one free vector to a table of `calls` rows over the window sigmas[0] .. sigmas[-1].

    start: the initial sigmas (N+1,); base: a solver the family can start from; learn: a word of LEARN; highest: the
    model's highest level, start[0] where none is given. clock: "paper" shows the network of this prediction its
    state's own input at the offset level, "host" what a host would. restrict: "fixed", one set of residuals for all
    rows; "sum_to_one": rows sum up as the base solver's. random: the seed of residuals to start from, None: zeros.
    form: coefficients weigh predictions of the "data" or of the "noise", (x - D) / sigma. resting: a part kept still.
    The vector is float64: [gaps (N-1), offsets (N), residuals], where the carry is learned also [changes (N-1)].
    """

    start: np.ndarray
    base: str = "dpmpp_2m"
    order: int = 0
    flow: bool = False
    learn: str = "joint"
    highest: float | None = None
    family: str = "lms"
    clock: str = "host"
    prediction: str = "eps"
    restrict: str = "none"
    random: int | None = None
    form: str = "data"
    resting: str = ""

    def __post_init__(self):
        for name, words in (("learn", LEARN), ("family", FAMILIES), ("clock", CLOCKS), ("restrict", RESTRICT),
                            ("form", FORMS)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(words)}")
        check_base(self.family, self.base, self.order)
        check_form(self.form, self.learn)

    @classmethod
    def of(cls, config, source, start: np.ndarray) -> Parameters:
        """What a configuration makes of these levels for a source."""
        return cls(start, config.base, config.order, source.flow, config.learn, source.sigma_max, config.family,
                   config.clock, source.model.prediction, config.restrict,
                   config.seed if config.initial == "random" else None, config.form)

    @property
    def turns(self) -> int:
        """Steps that try everything once: two of an alternation."""
        return len(TURNS) if self.learn == "alternate" else 1

    def at(self, turn: int) -> Parameters:
        """What moves in this turn: of an alternation one half; the carry only after all else has."""
        if self.learn == "alternate":
            return replace(self, learn=TURNS[turn % len(TURNS)])
        return replace(self, resting="carry") if self.learn == "generalized" and turn < LATER else self

    @property
    def calls(self) -> int:
        return len(self.start) - 1

    @cached_property
    def _places(self) -> tuple[Tensor, Tensor]:
        """(block, row, column) of every residual in the rows (3, n), and which free number it is (n,)."""
        found = places(self.family, self.base, self.calls, self.order, self.start[-1] == 0)
        if self.restrict == "sum_to_one":                           # the newest takes what the others leave
            found = [place for place in found if place.row != place.column]
        ranks = sorted({place.rank for place in found})
        numbers = [ranks.index(place.rank) for place in found] if self.restrict == "fixed" else range(len(found))
        index = torch.tensor([place[:3] for place in found], dtype=torch.long).reshape(-1, 3).T
        return index, torch.tensor(numbers, dtype=torch.long)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the parts of the vector, in the order of PARTS."""
        carries = (self.calls - 1,) if "carry" in LEARN[self.learn] else ()
        numbers = self._places[1]
        return self.calls - 1, self.calls, int(numbers.max()) + 1 if len(numbers) else 0, *carries

    def initial(self) -> Tensor:
        """The vector whose table is the base solver on the initial sigmas, exactly, unless it starts at random."""
        above = self.start[:-1] - self.start[-1]
        ratios = np.log(above[:-1] / above[1:])                                 # softplus(gap) must equal these
        gaps = torch.from_numpy(ratios + np.log(-np.expm1(-ratios)))
        rest = [torch.zeros(size, dtype=torch.float64) for size in self.sizes[1:]]
        if self.random is not None:
            generator = torch.Generator().manual_seed(self.random)
            rest[1] = RANDOM * torch.randn(len(rest[1]), generator=generator, dtype=torch.float64)
        return torch.cat([gaps, *rest])

    def moving(self) -> Tensor:
        """1.0 where the vector is to be learned, else 0.0."""
        parts, moved = zip(PARTS, self.sizes), set(LEARN[self.learn]) - {self.resting}
        return torch.cat([torch.full((size,), float(part in moved), dtype=torch.float64) for part, size in parts])

    def table(self, vector: Tensor) -> TensorTable:
        """The table of a free vector, differentiable in it."""
        gaps, offsets, residuals, *changes = vector.split(list(self.sizes))
        sigmas = self._sigmas(gaps)
        base = base_table(self.family, self.base, sigmas, self.flow)
        query = (sigmas[:-1] * offsets.exp()).clamp(max=max(float(self.start[0]), self.highest or 0.0))
        scale, kept, blocks = base.scale, sigmas[-1] / sigmas[0], self._blocks(residuals, sigmas)
        if self.form == "noise":
            slopes = slopes_of(base) + added(self.family, self.base, blocks, torch.ones_like(query))
            step = noise_step(slopes, sigmas)
        else:
            carry = _ended(base.carry[:-1] * changes[0].exp(), kept) if changes else base.carry
            weights = base.weights + added(self.family, self.base, blocks, carry)
            weights = weights + torch.diag(base.carry - carry) if changes else weights
            step = data_step(carry, weights)
        if self.clock == "paper":
            scale = shown_scale(self.prediction, sigmas[:-1], query)
        if (self.form, self.clock) != ("data", "host"):
            carry, weights = lowered(step, *self._seen(sigmas[:-1], query), kept)
        return TensorTable(sigmas, query, scale, carry, _obey_constant_law(weights, carry, sigmas, self.flow))

    def frozen(self, vector: Tensor) -> Table:
        """The checked table. Raises ValueError where the numbers have run away."""
        return self.table(vector.detach()).frozen()

    def _seen(self, sigmas: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """(u, v): what the rows call a prediction is u x + v D."""
        if self.clock == "paper":
            return meant(self.prediction, sigmas, query)
        return torch.zeros_like(query), torch.ones_like(query)

    def _blocks(self, residuals: Tensor, sigmas: Tensor) -> Tensor:
        """The residuals in their places, (2, N, N), in units of their steps."""
        (block, row, column), numbers = self._places
        scaled = residuals[numbers] * units(self.family, self.base, sigmas, self.form)[block, row]
        blocks = torch.zeros(2, self.calls, self.calls, dtype=torch.float64).index_put((block, row, column), scaled)
        return blocks - torch.diag_embed(blocks.sum(2)) if self.restrict == "sum_to_one" else blocks

    def _sigmas(self, gaps: Tensor) -> Tensor:
        first, end = torch.from_numpy(self.start[[0, -1]]).split(1)
        return torch.cat([first, end + (first - end) * torch.exp(-softplus(gaps).cumsum(0)), end])


def check_form(form: str, learn: str) -> None:
    """Raise ValueError for a carry to be learned in rows that have none of their own."""
    if (form, learn) == ("noise", "generalized"):
        raise ValueError("generalized rows weigh the state and the data, and hold every rule that weighs noise: leave "
                         "form at data")


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
