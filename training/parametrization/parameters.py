"""Free numbers -> table: what is learned, and the laws that hold by construction.

    sigmas   sigma[i+1] - end = (sigma[i] - end) * exp(-softplus(gap[i])): they fall by construction, the ends fixed
    weights  the base solver's own coefficients, as functions of these sigmas, plus a residual for every prediction so
             far that starts at 0, in units of the step: weights[i, j] += (1 - sigma[i+1] / sigma[i]) residual[i, j]
    query    query[i] = sigma[i] * exp(offset[i]), never above the model's highest level
    carry    the base solver's
With a boundary, two such tables in a row, one for each of two models, that share the level of the boundary
(core/experts.py); the vector is the one's and the other's. The constant law holds for each.
The newest weight of the last row is whatever the constant law leaves; all other row sums are free.
(Frankel et al. 2025, eq. 5 and App. E.1; analytic part plus residual after GS, arXiv 2510.17699.) Of the paper's
families this is the multistep one with the whole history. It contains the others, predictor-correctors and single-step
solvers: those weigh the same predictions, and carry a state by sigma[i+1] / sigma[i], too.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from ...s4s_nodes.core import Table, TensorTable, classical, end_response, experts, lawful_total
from ...s4s_nodes.select.adapt import SMALLEST_STEP


@dataclass(frozen=True)
class Parameters:
    """The map from one free vector to a table of `calls` rows over the window sigmas[0] .. sigmas[-1].

    start: the initial sigmas (N+1,); base: a solver of one call a step; highest: the model's highest level, start[0]
    where none is given. boundary: the level at which two models change, one of start's.
    The vector is float64: [gaps (N-1), offsets (N), residuals].
    """

    start: np.ndarray
    base: str = "dpmpp_2m"
    flow: bool = False
    highest: float | None = None
    boundary: float | None = None

    @classmethod
    def of(cls, source, start: np.ndarray) -> "Parameters":
        """Those of a table for this source that starts on these levels."""
        start = start if source.boundary is None else experts.pinned(start, source.boundary)
        return cls(start, flow=source.flow, highest=source.sigma_max, boundary=source.boundary)

    @cached_property
    def halves(self) -> "tuple[Parameters, ...]":
        """Those of the two models' tables; () where there is one model."""
        if self.boundary is None:
            return ()
        turn = experts.turn_of(self.start, self.boundary)
        return (replace(self, start=self.start[:turn + 1], boundary=None),
                replace(self, start=self.start[turn:], boundary=None, highest=self.boundary))

    @property
    def calls(self) -> int:
        return len(self.start) - 1

    @cached_property
    def places(self) -> tuple[Tensor, Tensor]:
        """(rows, columns) of the residuals, newest prediction first; the last row's newest is not free."""
        free = [(row, row - age) for row in range(self.calls) for age in range(row + 1)]
        free.remove((self.calls - 1, self.calls - 1))
        rows, columns = torch.tensor(free, dtype=torch.long).reshape(-1, 2).T
        return rows, columns

    @property
    def sizes(self) -> tuple[int, ...]:
        """Lengths of the parts of the vector."""
        return self.calls - 1, self.calls, len(self.places[0])

    def initial(self) -> Tensor:
        """The vector whose table is the base solver on the initial sigmas, exactly."""
        if self.halves:
            return torch.cat([half.initial() for half in self.halves])
        above = self.start[:-1] - self.start[-1]
        ratios = np.log(above[:-1] / above[1:])                                 # softplus(gap) must equal these
        gaps = torch.from_numpy(ratios + np.log(-np.expm1(-ratios)))
        return torch.cat([gaps, torch.zeros(sum(self.sizes[1:]), dtype=torch.float64)])

    def table(self, vector: Tensor) -> TensorTable:
        """The table of a free vector, differentiable in it."""
        if self.boundary is not None:
            high, low = (half.table(part) for half, part in zip(self.halves, self.split(vector)))
            return experts.chained(experts.above(high, self.boundary), low)
        gaps, offsets, residuals = vector.split(list(self.sizes))
        sigmas = self._sigmas(gaps)
        base = classical.SOLVERS[self.base].table(sigmas, self.flow)
        free = sigmas[:-1] * offsets.exp()
        query = free.clamp(max=self._most).detach() + (free - free.detach())    # at the highest level it can still fall
        rows, units = self.places[0], (1 - sigmas[1:] / sigmas[:-1]).clamp(min=SMALLEST_STEP)
        weights = base.weights.index_put(self.places, residuals * units[rows], accumulate=True)
        table = TensorTable(sigmas, query, base.scale, base.carry, weights)
        missing = lawful_total(sigmas[0], sigmas[-1], self.flow) - end_response(table)[1]       # of the constant law
        newest = torch.tensor([self.calls - 1])
        return table._replace(weights=weights.index_put((newest, newest), missing, accumulate=True))

    def bounded(self, vector: Tensor) -> Tensor:
        """The vector with every query at most the model's highest level, where its offset would have no effect."""
        if self.halves:
            return torch.cat([half.bounded(part) for half, part in zip(self.halves, self.split(vector))])
        gaps, offsets, residuals = vector.split(list(self.sizes))
        most = torch.log(self._most / self._sigmas(gaps)[:-1])
        return torch.cat([gaps, torch.minimum(offsets, most), residuals])

    @property
    def _most(self) -> float:
        return max(float(self.start[0]), self.highest or 0.0)

    def split(self, vector: Tensor) -> tuple[Tensor, ...]:
        """The vector's halves, one for each of two models."""
        return vector.split([sum(half.sizes) for half in self.halves])

    def frozen(self, vector: Tensor) -> Table:
        """The checked, frozen table. Raises ValueError if the numbers have diverged."""
        return self.table(vector.detach()).frozen()

    def _sigmas(self, gaps: Tensor) -> Tensor:
        first, end = torch.from_numpy(self.start[[0, -1]]).split(1)
        return torch.cat([first, end + (first - end) * torch.exp(-softplus(gaps).cumsum(0)), end])
