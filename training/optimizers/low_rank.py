"""The Jacobian of where a few calls end in a table's free numbers, with few forward calls.

All of a run but the network's answers is linear, so a change of the free numbers is carried through it exactly, but for
what a changed state does to an answer. There the network is asked along a few directions, by finite differences:

    the one in which the state moves with its own level: along it answers hardly change, so small errors would be large
    the principal ones of all that the free numbers change in the state, each weighed by its effect on the end

For what they leave, the answer is taken to change by the directions' mean slope, and along them by what it shares with
them: the derivative of a denoiser is symmetric (a covariance over sigma^2). A run of N calls costs 2 N for itself and
its queries, and rank + 1 for each call but the first; a finite difference for each free number costs about N^3 / 4.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs
from .jacobian import sketch

RANK = 6                    # principal directions of a state, at first
ROUNDING = 1e-5             # a sum of float32 tensors is zero below this share of their lengths
NUDGE = 1e-2                # length of a finite difference: as a share of the state, and of a query's logarithm


class Span:
    """Tensors that a run meets, flat (n, d) on the CPU, and their inner products (n, b, b); states are their sums."""

    def __init__(self, images: int):
        self.tensors: list[Tensor] = []
        self.products = torch.zeros(images, 0, 0, dtype=torch.float64)

    def __len__(self) -> int:
        return len(self.tensors)

    def add(self, tensor: Tensor) -> int:
        """Keep a tensor (n, ...); returns its place."""
        flat = tensor.flatten(1).float().cpu()
        self.tensors.append(flat)
        exact = flat.double()               # a product of two float32 numbers is exact in float64
        new = torch.stack([(exact * other).sum(1) for other in self.tensors], 1)
        grown = self.widened(self.widened(self.products).transpose(1, 2)).transpose(1, 2)
        grown[:, -1], grown[:, :, -1] = new, new
        self.products = grown
        return len(self) - 1

    def widened(self, sums: Tensor) -> Tensor:
        """Coefficients (n, k, b) over an earlier, smaller span in the present one."""
        return pad(sums, (0, len(self) - sums.shape[2]))

    def combined(self, sums: Tensor) -> Tensor:
        """The tensors (n, d) that these coefficients (n, b) give."""
        return sum(each * factor.float()[:, None] for each, factor in zip(self.tensors, sums.unbind(1)))

    def onto(self, sums: Tensor, directions: Tensor) -> Tensor:
        """Inner products (n, k, m) of k sums with m directions."""
        return sums @ self.products @ directions.transpose(1, 2)

    def principal(self, sums: Tensor, own: Tensor, most: int) -> Tensor:
        """Orthonormal directions (n, most, b) that hold most of what `own` (n, 1, b) leaves of these sums (n, k, b).

        Zeros where nothing but rounding is left.
        """
        most_of = sums.abs() @ self.products.diagonal(dim1=1, dim2=2).sqrt()[:, :, None]
        least = (ROUNDING * most_of.amax(1)) ** 2
        rest = sums - self.onto(sums, own) @ own
        sizes, vectors = torch.linalg.eigh(self.onto(rest, rest))
        sizes, vectors = sizes[:, -most:], vectors[:, :, -most:]
        lengths = torch.where(sizes > least, sizes, math.inf).sqrt()
        principal = (vectors / lengths[:, None]).transpose(1, 2) @ rest
        return principal - self.onto(principal, own) @ own


class Slopes:
    """Derivatives of a table's weights (N, N, k), carry (N, k) and query (N, k) in its free numbers."""

    def __init__(self, parameters: Parameters, vector: Tensor):
        def parts(free):
            table = parameters.table(free)
            return table.weights, table.carry, table.query
        with torch.enable_grad():
            slopes = torch.autograd.functional.jacobian(parts, vector)
        self.weights, self.carry, self.query = (each * parameters.moving() for each in slopes)

    def directions(self, row: int, rank: int) -> int:
        """Principal directions worth asking along at this row: at most one for each number that acts before it.

        Where levels move, one of them moves the state along its own direction, which is asked along anyway.
        """
        parts = self.weights[:row].abs().sum((0, 1)), self.carry[:row].abs().sum(0), self.query[:row].abs().sum(0)
        return max(1, min(rank, int((sum(parts) > 0).sum()) - int(self.carry[:row].any())))


@torch.no_grad()
def measured(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs, rank: int = RANK,
             sizes: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(miss (n, d), its Jacobian (n, k, d)) of a run at these k free numbers, both as sketches on the CPU.

    sizes (k,): by which the numbers may move, relative to each other.
    """
    table, slopes = parameters.frozen(vector), Slopes(parameters, vector)
    x = pairs.start(float(table.sigmas[0]), source.flow)
    per_image = torch.ones(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    run = _Run(Span(len(x)), len(vector), x)
    for i, row in enumerate(table.rows):
        def ask(x, query=row.query, scale=row.scale):
            return source.denoiser(x * scale, per_image * query, **pairs.extra)
        denoised = ask(x)
        run.predicted(denoised)
        change = torch.zeros_like(run.state)
        if i:
            directions = run.directions(slopes.directions(i, rank), sizes)
            change = _answered(run.span, run.state, directions, x, denoised, ask)
        if slopes.query[i].any():
            place = run.span.add((denoised - ask(x, row.query * (1 - NUDGE))) / (row.query * NUDGE))
            change = run.span.widened(change)
            change[:, :, place] += slopes.query[i]
        run.step(row.carry, table.weights[i], slopes.carry[i], slopes.weights[i], change)
        x = run.span.combined(run.where[:, 0]).to(x).reshape(x.shape)
    tensors = torch.stack([sketch(each) for each in run.span.tensors], 1)
    return sketch(x - pairs.target), run.state.float() @ tensors


class _Run:
    """A run's state x and its derivatives, as sums of a span: where (n, 1, b) and state (n, k, b)."""

    def __init__(self, span: Span, numbers: int, x: Tensor):
        self.span = span
        span.add(x)
        self.where = torch.ones(len(x), 1, 1, dtype=torch.float64)
        self.state = torch.zeros(len(x), numbers, 1, dtype=torch.float64)
        self.predictions: list[int] = []
        self.changes: list[Tensor] = []                     # derivatives of the predictions, (n, k, b)

    def predicted(self, denoised: Tensor) -> None:
        """Take up the network's answer to x."""
        self.predictions.append(self.span.add(denoised))
        self._widen()

    def _widen(self) -> None:
        self.state, self.where = self.span.widened(self.state), self.span.widened(self.where)

    def directions(self, most: int, sizes: Tensor | None) -> Tensor:
        """Orthonormal directions (n, most + 1, b): x - denoised, in which x moves with its own level, and the principal
        ones of what it leaves of the derivatives of x."""
        span, own = self.span, self.where.clone()
        own[:, :, -1] -= 1
        own = own / span.onto(own, own).clamp(min=1e-24).sqrt()
        state = self.state if sizes is None else sizes[:, None] * self.state
        return torch.cat([own, span.principal(state, own, most)], 1)

    def step(self, carry: float, weights: np.ndarray, carry_slopes: Tensor, weight_slopes: Tensor,
             change: Tensor) -> None:
        """A row: carry, weights (N,), their derivatives (k,) and (N, k), those of the newest prediction (n, k, b)."""
        self.changes.append(change)
        self._widen()
        self.state = carry * self.state + carry_slopes[None, :, None] * self.where
        self.where = carry * self.where
        for j, prediction in enumerate(self.predictions):
            self.state = self.state + weights[j] * self.span.widened(self.changes[j])
            self.state[:, :, prediction] += weight_slopes[j]
            self.where[:, :, prediction] += weights[j]


def _answered(span: Span, state: Tensor, directions: Tensor, x: Tensor, denoised: Tensor, ask) -> Tensor:
    """The derivatives (n, k, b) of the answer to x, whose own are these (n, k, b): asked along the directions."""
    length, slope, images = NUDGE * x.flatten(1).norm(dim=1), torch.zeros(()), []
    for direction in directions.unbind(1):
        way = span.combined(direction)
        moved = ask(x + (way.to(x) * length[:, None]).reshape(x.shape))
        images.append((moved - denoised).flatten(1) / length[:, None])
        slope = slope + (images[-1].cpu() * way).sum(1, dtype=torch.float64) / directions.shape[1]
    along = span.onto(state, directions)
    rest = state - along @ directions
    places = [span.add(image) for image in images]
    rest, directions = span.widened(rest), span.widened(directions)
    change = slope[:, None, None] * rest + (rest @ span.products)[:, :, places] @ directions
    change[:, :, places] += along
    return change


def calls_per_image(parameters: Parameters, rank: int = RANK) -> int:
    """Network calls one image costs in one Jacobian."""
    slopes = Slopes(parameters, parameters.initial())
    asked = sum(slopes.directions(i, rank) + 1 for i in range(1, parameters.calls))
    return parameters.calls + int(slopes.query.any(1).sum()) + asked
