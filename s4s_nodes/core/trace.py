"""Turns any explicit solver into a table by running it once on symbols instead of images."""

from typing import NamedTuple

import torch
from torch import Tensor

from .table import Row, Table

_NOISE = 1e-13      # float64's residue after two equal numbers are subtracted; no real weight is so small


class TensorTable(NamedTuple):
    """The numbers of a Table as float64 tensors that may carry gradients; unchecked. Shapes as in Table."""

    sigmas: Tensor
    query: Tensor
    scale: Tensor
    carry: Tensor
    weights: Tensor

    @property
    def rows(self) -> tuple[Row, ...]:
        """The rows as 0-dim tensors: every prediction so far is a term, so that gradients reach all weights."""
        calls = len(self.query)
        query, scale, carry = self.query.unbind(), self.scale.unbind(), self.carry.unbind()
        weights = [row.unbind() for row in self.weights.unbind()]
        return tuple(Row(self.sigmas[i], query[i], scale[i] if self.scale.requires_grad else float(scale[i]),
                         carry[i], tuple((j, weights[i][j]) for j in range(i, -1, -1)), ())
                     for i in range(calls))

    def frozen(self, keeps_constants: bool = True) -> Table:
        """The checked, frozen table. Raises ValueError as Table does."""
        sigmas, query, scale, carry, weights = (part.detach().cpu().numpy() for part in self)
        return Table(sigmas, query, scale, carry, weights, keeps_constants)


class Trace:
    """The linear state of an explicit solver: each vector holds the weights of x[0], D[0], D[1], ...

    A solver written for images runs unchanged on these vectors; what it does to them is its table.

    Args:
        sigmas (steps + 1,): the noise levels of the solver.
        calls: the most network calls that it makes.
    """

    def __init__(self, sigmas: Tensor, calls: int):
        self._sigmas = sigmas
        self._basis = torch.eye(calls + 1, dtype=torch.float64)
        self._shown, self._query, self._levels = [], [], []

    @property
    def start(self) -> Tensor:
        """x[0]."""
        return self._basis[0]

    def call(self, x: Tensor, sigma, level=None) -> Tensor:
        """D of the next network call, (calls + 1,).

        Args:
            x (calls + 1,): the state that the network is shown.
            sigma: the noise level that the network is told.
            level: the noise level of the state; None: sigma.
        """
        self._shown.append(x)
        self._query.append(torch.as_tensor(sigma, dtype=torch.float64))
        self._levels.append(torch.as_tensor(sigma if level is None else level, dtype=torch.float64))
        return self._basis[len(self._shown)]

    def finish(self, x: Tensor) -> TensorTable:
        """The table whose last state is x (calls + 1,)."""
        calls = len(self._shown)
        states = torch.stack([*self._shown, x])[:, :calls + 1]
        before, after = states[:-1], states[1:]
        carry = _clean(after[:, 0] / before[:, 0])
        weights = _clean(after[:, 1:] - carry[:, None] * before[:, 1:])
        levels = torch.cat([torch.stack(self._levels), self._sigmas[-1:]])
        return TensorTable(levels, torch.stack(self._query), torch.ones(calls, dtype=torch.float64), carry, weights)


def _clean(values: Tensor) -> Tensor:
    return torch.where(values.abs() < _NOISE, torch.zeros_like(values), values)
