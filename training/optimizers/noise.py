"""The noise of a network's answers, and what it adds to a finite-difference Jacobian.

Half precision, quantisation and non-deterministic kernels make a network's answers noisy. A column of the Jacobian is a
difference of two noisy ends, so the products of columns carry a bias that does not average out over images: it makes
every free number look more effective than it is, and steps too short. The bias is known once the noise of an end is,
and is subtracted (errors in variables; Fuller 1987, ch. 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...s4s_nodes.core import Table, sample
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs, known_pairs
from .jacobian import NUDGE, moved_tables, recorded, tail

APART = 2 ** -8             # relative distance of two states that half precision tells apart
SEEN = 10.0                 # effect of a finite-difference step, over the noise of an end
WIDEST = 0.4                # finite-difference step
LEAST_EFFECT = 0.02         # of a column, over its noise: less cannot be told


@torch.no_grad()
def noise_of(source: Source, seeds: range) -> float:
    """Relative noise in the network's answers, at the middle of its levels.

    It is what a smooth function cannot have: a second difference over a small distance. A float32 network is at 1e-5.
    """
    pairs = known_pairs(source, seeds, None)
    level = float(source.levels[len(source.levels) // 2])
    x = pairs.start(level, source.flow)
    per_image = x.new_full((len(x),), level)
    below, here, above = (source.denoiser(each, per_image, **pairs.extra).double() for each in around(x))
    return math.sqrt(_variance(below, here, above) / float(here.square().mean().clamp(min=1e-24)))


def around(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x between two states beside it."""
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    step = x * signs.to(x) * APART
    return x - step, x, x + step


def _variance(below: Tensor, here: Tensor, above: Tensor) -> float:
    return float((below - 2 * here + above).double().square().mean() / 6)


@torch.no_grad()
def noise_by_tail(source: Source, table: Table, pairs: Pairs) -> Tensor:
    """Variance (calls + 1,) of the numbers of an end whose last 0, 1, ... calls are made anew, from one pair."""
    one, variances = pairs.part(slice(0, 1)), torch.zeros(table.calls + 1, dtype=torch.float64)
    end, states, known = recorded(source, table, one)
    for row, state in enumerate(states):
        reused = {j: denoised for j, denoised in known.items() if j < row}
        below, above = (sample(source.denoiser, each, table, one.extra, first=row, known=reused)
                        for each in around(state)[::2])
        variances[table.calls - row] = _variance(below, end, above)
    return variances


def noise_calls(calls: int) -> int:
    """Network calls of `noise_by_tail` for a table of so many calls."""
    return calls * (calls + 2)


def positive(matrix: Tensor, scale: Tensor) -> Tensor:
    """The symmetric matrix without its negative eigenvalues, in units (k,) of its rows."""
    units = torch.outer(scale, scale)
    values, vectors = torch.linalg.eigh(matrix / units)
    return vectors * values.clamp(min=0) @ vectors.T * units


def nudge_for(noise: float) -> float:
    """The first finite-difference step for a network whose answers carry relative noise.

    A difference over a step h is off by noise / h, and by the curvature times h: the best h is near the root.
    """
    return min(max(2 * math.sqrt(noise), NUDGE), WIDEST)


@dataclass(frozen=True)
class NoiseCovariance:
    """What noise adds to the mean product, over the numbers of the ends, of two columns of a Jacobian.

    columns (k, k): covariance of the columns' errors; miss (k,): theirs with the error of the miss; end: its variance.
    """

    columns: Tensor
    miss: Tensor
    end: float

    @classmethod
    def of(cls, by_tail: Tensor, parameters: Parameters, vector: Tensor, nudges: Tensor,
           balance: float) -> NoiseCovariance:
        """Of the Jacobian at these numbers (k,), by finite differences over these nudges (k,).

        All columns share the noise of the run they are differences to; each has that of its own. by_tail: from
        `noise_by_tail`; balance: mean sign of the moves over the images.
        """
        tails, lengths = torch.zeros(len(vector), dtype=torch.long), torch.full_like(vector, math.inf)
        table = parameters.frozen(vector)
        for k, (moved, first, length) in moved_tables(parameters, vector, nudges).items():
            tails[k], lengths[k] = tail(table, moved, first), length
        own = by_tail[tails]
        shared = by_tail[torch.minimum(tails[:, None], tails[None])]
        return cls((shared + torch.diag(own)) / torch.outer(lengths, lengths), -balance * own / lengths,
                   float(by_tail[-1]))

    def after(self, step: Tensor) -> NoiseCovariance:
        """Once the Jacobian is corrected along a step (k,): there, its error is that of two ends of whole runs."""
        along, length = step / step.norm(), step.norm()
        rest = torch.eye(len(step), dtype=step.dtype) - torch.outer(along, along)
        cross = torch.outer(rest @ self.miss, along) / length
        return NoiseCovariance(rest @ self.columns @ rest + torch.outer(along, along) * 2 * self.end / length ** 2
                               - cross - cross.T, along * self.end / length, self.end)

    def nudges(self, jacobian: Tensor) -> Tensor:
        """Finite-difference steps (k,) that move an end by SEEN times its noise, as this Jacobian (n, k, d) has it."""
        noise = self.columns.diagonal()
        power = jacobian.square().mean((0, 2)).double() - noise
        effect = torch.maximum(power, LEAST_EFFECT * noise).clamp(min=1e-12).sqrt()
        return (SEEN * self.end ** 0.5 / effect).clamp(NUDGE, WIDEST)
