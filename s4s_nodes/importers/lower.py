"""From a published update, run on symbols, to a checked table."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..core import Table, Trace, constant_law_error
from ..core.classical.slope import EQUAL_STEPS as ADAMS_BASHFORTH
from ..core.table import LAW_TOLERANCE

__all__ = ["ADAMS_BASHFORTH", "Run", "ended", "marked"]


class Run:
    """A sampler run on symbols (core.Trace), with the nominal level of each call beside it.

    A first step that asks no network (the analytic first step: x is noise, so its slope is x / sqrt(1 + t^2))
    leaves a multiple of x[0]; the first call then shows that multiple, so it costs the table nothing.
    """

    def __init__(self, start: float, calls: int):
        self._trace, self._start, self._asked = Trace(torch.zeros(1, dtype=torch.float64), calls), float(start), False

    @property
    def start(self) -> Tensor:
        """x[0]."""
        return self._trace.start

    def call(self, x: Tensor, query, level=None, scale=1.0) -> Tensor:
        """D of the next call: the network is shown scale * x and told query; level is x's own, query unless given."""
        if not self._asked:
            if x[1:].abs().max() > 0:
                raise ValueError("the first call must be shown a multiple of the noise")
            x, scale, level, self._asked = self.start, float(scale) * float(x[0]), self._start, True
        return self._trace.call(x, float(query), float(scale), level)

    def finish(self, x: Tensor) -> Table:
        """The table that ends in x. Authors take their last state for the image, so its level is 0."""
        return marked(self._trace.finish(x).frozen(keeps_constants=False))


def marked(table: Table) -> Table:
    """The table, trusted to keep constants where it does."""
    return replace(table, keeps_constants=bool(constant_law_error(table) <= LAW_TOLERANCE))


def ended(table: Table, factor: float) -> Table:
    """The same with its end called 0 and its last state multiplied: where authors stop above 0 and take that."""
    sigmas, carry, weights = table.sigmas.copy(), table.carry.copy(), table.weights.copy()
    sigmas[-1], carry[-1], weights[-1] = 0.0, factor * carry[-1], factor * weights[-1]
    return marked(replace(table, sigmas=sigmas, carry=carry, weights=weights, keeps_constants=False))
