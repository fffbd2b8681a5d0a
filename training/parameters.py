"""Free numbers -> table: what the trainer turns, and the laws it cannot break.

    sigmas   sigma[i+1] - end = (sigma[i] - end) * exp(-softplus(gap[i])): they fall by construction, the ends fixed
    weights  the base solver's own coefficients, as functions of these sigmas, plus a residual that starts at 0 on
             the newest `order` predictions (0: all), in units of the step:
             weights[i, i-a] += (1 - sigma[i+1] / sigma[i]) residual[i, a]
    query    query[i] = sigma[i] * exp(offset[i]), never above the model's highest level
The newest weight of the last row is whatever the constant law leaves; all other row sums are free.
(Frankel et al. 2025, eq. 5 and App. E.1; analytic part plus residual after GS, arXiv 2510.17699.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from .core import Solver, Table, classical

LEARNABLE = ("sigmas", "query", "weights")


@dataclass(frozen=True)
class Parameters:
    """The map from one free vector to a Table of `calls` rows over the window sigmas[0] .. sigmas[-1].

    start: the initial sigmas (N+1,); base: a name in classical.SOLVERS with one call per step; learn: which of
    LEARNABLE move; highest: the model's highest level, start[0] where none is given. The vector is float64:
    [gaps (N-1), offsets (N), residuals (rows x order)].
    """

    start: np.ndarray
    base: str = "dpmpp_2m"
    order: int = 0
    flow: bool = False
    learn: tuple = LEARNABLE
    highest: float | None = None

    def __post_init__(self):
        if self.base not in classical.SOLVERS or classical.SOLVERS[self.base].calls_per_step != 1:
            usable = [name for name, solver in classical.SOLVERS.items() if solver.calls_per_step == 1]
            raise ValueError(f"base solver {self.base!r}: use one with one call per step: {', '.join(usable)}")
        if not self.learn or set(self.learn) - set(LEARNABLE):
            raise ValueError(f"learn is {self.learn!r}: name at least one of {', '.join(LEARNABLE)}")
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
    def sizes(self) -> tuple[int, int, int]:
        """Lengths of the three parts of the vector."""
        return self.calls - 1, self.calls, len(self._places[0])

    def initial(self) -> Tensor:
        """The vector whose table is the base solver on the initial sigmas, exactly."""
        above = self.start[:-1] - self.start[-1]
        ratios = np.log(above[:-1] / above[1:])                                 # softplus(gap) must equal these
        gaps = torch.from_numpy(ratios + np.log(-np.expm1(-ratios)))
        return torch.cat([gaps, torch.zeros(sum(self.sizes[1:]), dtype=torch.float64)])

    def moving(self) -> Tensor:
        """1.0 where the vector is to be learned, else 0.0."""
        parts = zip(("sigmas", "query", "weights"), self.sizes)
        return torch.cat([torch.full((size,), float(part in self.learn), dtype=torch.float64) for part, size in parts])

    def table(self, vector: Tensor) -> Table:
        """The table of a free vector, differentiable in it."""
        gaps, offsets, residuals = vector.split(list(self.sizes))
        sigmas = self._sigmas(gaps)
        base = classical.SOLVERS[self.base].table(sigmas, self.flow)
        query = (sigmas[:-1] * offsets.exp()).clamp(max=max(float(self.start[0]), self.highest or 0.0))
        step = (1 - sigmas[1:] / sigmas[:-1]).clamp(min=0.05)
        rows, columns = self._places
        weights = base.weights.index_put((rows, columns), residuals * step[rows], accumulate=True)
        return Table(sigmas, query, base.scale, base.carry, _obey_constant_law(weights, base.carry, sigmas, self.flow))

    def solver(self, vector: Tensor) -> Solver:
        """The checked table. Raises ValueError where the numbers have run away."""
        return self.table(vector.detach()).solver()

    def _sigmas(self, gaps: Tensor) -> Tensor:
        first, end = torch.from_numpy(self.start[[0, -1]]).split(1)
        return torch.cat([first, end + (first - end) * torch.exp(-softplus(gaps).cumsum(0)), end])


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
