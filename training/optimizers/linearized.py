"""Runs of a table with the network linearized: where other free numbers would end, without asking the network.

All of a run but the network's answers is linear in them, and known exactly, however far the numbers move. What a
changed state does to an answer is measured along a few directions, by finite differences:

    the one in which the state moves with its own level: along it answers hardly change, so small errors would be large
    the principal ones of all that the free numbers change in the state, each weighed by how far it may move

For what they leave, the answer is taken to change by the directions' mean slope, and along them by what it shares with
them: the derivative of a denoiser is symmetric (a covariance over sigma^2). Measuring a run of N calls costs 2 N for
itself and its levels, and rank + 1 for each call but the first; all but the run twice where answers are noisy. What
noise then adds to the lengths of the derivatives is subtracted, or it would pass for curvature. A real run elsewhere
corrects the derivative of each answer along the way the state went (Broyden 1965).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...s4s_nodes.core import Table
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs
from .noise import level_nudge, nudge_for

RANK = 6                    # principal directions of a state, at first; half as many where each takes two calls
SKETCHED = 4096             # most numbers kept of an image; larger images are hashed to this many
ROUNDING = 1e-5             # a sum of float32 tensors is zero below this share of their lengths
SECOND = 6                  # squares of a second difference's weights: 1, -2, 1
START, TARGET = 0, 1        # places of a run's start and of its target among its tensors


class Slopes:
    """Derivatives of a table's weights (N, N, k), carry (N, k) and query (N, k) in its free numbers."""

    def __init__(self, parameters: Parameters, vector: Tensor):
        def parts(free):
            table = parameters.table(free)
            return table.weights, table.carry, table.query
        with torch.enable_grad():
            slopes = torch.autograd.functional.jacobian(parts, vector, vectorize=True)
        self.weights, self.carry, self.query = slopes

    def directions(self, row: int, rank: int) -> int:
        """Principal directions worth asking along at this row: at most one for each number that acts before it.

        Where levels move, one of them moves the state along its own direction, which is asked along anyway.
        """
        parts = self.weights[:row].abs().sum((0, 1)), self.carry[:row].abs().sum(0), self.query[:row].abs().sum(0)
        return max(1, min(rank, int((sum(parts) > 0).sum()) - int(self.carry[:row].any()))) if row else -1

    def asks(self, row: int, rank: int, noisy: bool) -> int:
        """Network calls that measuring this row costs."""
        return 1 + (1 + self.directions(row, rank) + int(self.query[row].any())) * (2 if noisy else 1)


@dataclass
class Linearized:
    """Runs of a table for n pairs, exact at one vector of free numbers and linear in the network's answers around it.

    tensors (n, b, d): start, target, the network's answers and their derivatives, as sketches. All others are sums of
    these: states and answers (n, N, b) of each call; slopes (n, N, b), an answer's change with the logarithm of its
    level, which is of `levels` (n, N). A change x of a state changes the answer by
    usual x + sum_ab forms[a, b] <x, tensor a> tensor b: usual (n, N), forms (n, N, b, b). loud (n, b): the part of each
    tensor's mean square that is noise of a measurement.
    """

    tensors: Tensor
    states: Tensor
    answers: Tensor
    usual: Tensor
    forms: Tensor
    slopes: Tensor
    levels: Tensor
    loud: Tensor

    @cached_property
    def products(self) -> Tensor:
        """Inner products (n, b, b) of the tensors, as they would be without noise in the derivatives."""
        exact = self.tensors.double()           # a product of two float32 numbers is exact in float64
        return exact @ exact.transpose(1, 2) - torch.diag_embed(exact.shape[2] * self.loud)

    def run(self, table: Table, slopes: Slopes | None = None, before: Callable | None = None) -> tuple[Tensor, Tensor]:
        """(miss (n, 1, b), its derivatives (n, k, b) in the free numbers; none without slopes) of this table.

        before(i, row, state, moved) is called before each answer.
        """
        n, _, b = self.states.shape
        k = 0 if slopes is None else slopes.carry.shape[1]
        state, moved = torch.zeros(n, 1, b, dtype=torch.float64), torch.zeros(n, k, b, dtype=torch.float64)
        state[:, :, START] = 1
        answers, changes = torch.zeros(n, table.calls, b).double(), torch.zeros(n, table.calls, k, b).double()
        for i, row in enumerate(table.rows):
            if before is not None:
                before(i, row, state, moved)
            answers[:, i] = self._answer(i, row.query, state)
            weights, carry = torch.tensor(table.weights[i, :i + 1]), row.carry
            if slopes is not None:
                level = slopes.query[i][:, None] / row.query
                changes[:, i] = self._response(i, moved) + level * self.slopes[:, i, None]
                moved = carry * moved + slopes.carry[i][:, None] * state \
                    + torch.einsum("j,njkb->nkb", weights, changes[:, :i + 1]) \
                    + torch.einsum("jk,njb->nkb", slopes.weights[i, :i + 1], answers[:, :i + 1])
            state = carry * state + torch.einsum("j,njb->nb", weights, answers[:, :i + 1])[:, None]
        state[:, :, TARGET] -= 1
        return state, moved

    def _answer(self, i: int, level: float, state: Tensor) -> Tensor:
        change = self._response(i, state - self.states[:, i, None])[:, 0]
        return self.answers[:, i] + change + (math.log(level) - self.levels[:, i].log())[:, None] * self.slopes[:, i]

    def _response(self, i: int, change: Tensor) -> Tensor:
        """What changes (n, k, b) of the state change in the answer of call i."""
        return self.usual[:, i, None, None] * change + change @ self.products @ self.forms[:, i]

    def squares(self, sums: Tensor) -> Tensor:
        """Mean squares (n, k) of the tensors that these sums (n, k, b) are."""
        return ((sums @ self.products) * sums).sum(2).clamp(min=0) / self.tensors.shape[2]

    def corrected(self, table: Table, answers: Tensor, noise: float = 0.0) -> "Linearized":
        """The runs, exact at this table, of which these are the real answers (n, N, d) as sketches.

        What was predicted wrongly is put down to the change of state and level together; by a level, a state changes
        along its own direction. noise: of the answers, relative; where it outweighs the change, less is put down.
        """
        calls, b = table.calls, self.tensors.shape[1]
        states, before, slopes = (pad(each, (0, calls)) for each in (self.states, self.answers, self.slopes))
        forms = pad(self.forms, (0, calls, 0, calls))
        ahead = Linearized(torch.cat([self.tensors, answers], 1), states, before, self.usual.clone(), forms, slopes,
                           self.levels.clone(), pad(self.loud, (0, calls)))

        def correct(i, row, state, moved):
            exact = torch.zeros_like(before[:, i])
            exact[:, b + i] = 1
            change, wrong = (state - states[:, i, None])[:, 0], exact - ahead._answer(i, row.query, state)
            level, own = math.log(row.query) - ahead.levels[:, i].log(), states[:, i] - before[:, i]
            of_change, of_own, size, loud = (ahead.squares(each[:, None])[:, 0]
                                             for each in (change, own, states[:, i], noise * before[:, i]))
            length = of_change + of_own * level ** 2 + loud / 2
            share = torch.where(length > ROUNDING ** 2 * size, 1 / length, 0.0)
            forms[:, i] += (share[:, None] / answers.shape[2] * change)[:, :, None] * wrong[:, None]
            slopes[:, i] += (share * of_own * level)[:, None] * wrong
            states[:, i], before[:, i], ahead.levels[:, i] = state[:, 0], exact, row.query
        ahead.run(table, before=correct)
        return ahead


@torch.no_grad()
def measured(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs, rank: int = RANK,
             sizes: Tensor | None = None, noise: float = 0.0) -> Linearized:
    """The runs at these free numbers (k,), asked along so many directions of each state.

    sizes (k,): by which the numbers may move, relative to each other. noise: of the network's answers, relative.
    """
    table, slopes = parameters.frozen(vector), Slopes(parameters, vector)
    measurement = _Measurement(source, table, slopes, pairs, rank, sizes, noise)
    model = measurement.model
    model.run(table, slopes, measurement.ask_about)
    tensors = torch.stack([sketch(each) for each in model.tensors.unbind(1)], 1)
    forms = model.forms * (model.tensors.shape[2] / tensors.shape[2])           # a sketch shortens inner products
    return replace(model, tensors=tensors, forms=forms)


class _Measurement:
    """The network calls that fill a model, row by row. Its tensors (n, b, d) are whole images, flat, on the CPU."""

    def __init__(self, source: Source, table: Table, slopes: Slopes, pairs: Pairs, rank: int, sizes: Tensor | None,
                 noise: float):
        self.source, self.slopes, self.pairs, self.rank, self.sizes = source, slopes, pairs, rank, sizes
        self.noise, self.nudge, self.length = noise, nudge_for(noise), 0
        self.start = pairs.start(float(table.sigmas[0]), source.flow)
        n, calls, b = len(pairs), table.calls, 2 + sum(slopes.asks(i, rank, noise > 0) for i in range(table.calls))
        states, answers, changes = (torch.zeros(n, calls, b).double() for _ in range(3))
        usual, forms = torch.zeros(n, calls).double(), torch.zeros(n, calls, b, b).double()
        self.model = Linearized(torch.zeros(n, b, self.start[0].numel()), states, answers, usual, forms, changes,
                                torch.ones(n, calls).double(), torch.zeros(n, b).double())
        self.model.products = torch.zeros(n, b, b, dtype=torch.float64)         # filled with the tensors
        self.add(self.start)
        self.add(pairs.target)

    def add(self, tensor: Tensor) -> int:
        """Keep a tensor (n, ...); returns its place."""
        model, place = self.model, self.length
        flat = model.tensors[:, place] = tensor.flatten(1).float().cpu()
        new = torch.stack([(flat.double() * model.tensors[:, j]).sum(1) for j in range(place + 1)], 1)
        model.products[:, place, :place + 1] = model.products[:, :place + 1, place] = new
        self.length += 1
        return place

    def image(self, sums: Tensor) -> Tensor:
        """The tensors (n, ...) that these sums (n, b) are."""
        flat = torch.einsum("nb,nbd->nd", sums[:, :self.length].float(), self.model.tensors[:, :self.length])
        return flat.to(self.start).reshape(self.start.shape)

    def ask_about(self, i: int, row, state: Tensor, moved: Tensor) -> None:
        """Ask the network at this state (n, 1, b), whose derivatives are these (n, k, b), and around it."""
        model, x = self.model, self.image(state[:, 0])
        per_image = torch.ones(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)

        def ask(x, level=row.query):
            return self.source.denoiser(x * row.scale, per_image * level, **self.pairs.extra).flatten(1).float().cpu()
        answer = ask(x)
        place, self.rough, places = self.add(answer), (self.noise * answer).square().mean(1), []
        model.states[:, i], model.answers[:, i, place], model.levels[:, i] = state[:, 0], 1, row.query
        directions = self.directions(place, state, moved, self.slopes.directions(i, self.rank)) if i else state[:, :0]
        lengths, by_state = x.flatten(1).norm(dim=1), [1] * (x.dim() - 2)
        nudge = level_nudge(self.nudge, row.query, self.source.flow)            # along x's own direction, too
        for k in range(directions.shape[1]):
            away, width = self.image(directions[:, k]) * lengths.reshape(-1, 1, *by_state), self.nudge if k else nudge
            places.append(self.difference(lambda at, away=away: ask(x + at * away), answer, width, lengths.cpu()))
        if self.slopes.query[i].any():
            level = min(row.query, self.source.sigma_max * math.exp(-nudge)) if self.noise else row.query
            along = self.difference(lambda at: ask(x, level * math.exp(at)), answer, -nudge, torch.ones(len(x)))
            model.slopes[:, i, along] = 1
        model.loud[:, place + 1:self.length] *= self.rough[:, None]
        if places:
            model.usual[:, i], model.forms[:, i] = self.response(directions, places)

    def difference(self, ask: Callable, answer: Tensor, width: float, lengths: Tensor) -> int:
        """Keep the derivative at 0 of ask(at), whose value there is this answer, by `lengths` (n,); returns its place.

        Where answers are noisy, from one point on either side: that answer's noise would pass for a derivative, and
        over a wide difference the curvature cancels. rough (n,): the most that the variance of noise can be so far.
        """
        ahead, behind, apart = ask(width), answer, width
        if self.noise:
            behind, apart = ask(-width), 2 * width
            self.rough = torch.minimum(self.rough, (ahead + behind - 2 * answer).square().mean(1) / SECOND)
        place = self.add((ahead - behind) / apart / lengths[:, None])
        self.model.loud[:, place] = 1 / (2 * (width * lengths) ** 2)            # times `rough`, once that is known
        return place

    def directions(self, answer: int, state: Tensor, moved: Tensor, most: int) -> Tensor:
        """Orthonormal directions (n, most + 1, b): x - answer, in which x moves with its own level, and the principal
        ones of what it leaves of the derivatives of x."""
        products, own = self.model.products, state.clone()
        own[:, :, answer] -= 1
        own = own / (own @ products @ own.transpose(1, 2)).clamp(min=1e-24).sqrt()
        moved = moved if self.sizes is None else self.sizes[:, None] * moved
        return torch.cat([own, _principal(products, moved, own, most)], 1)

    def response(self, directions: Tensor, images: list[int]) -> tuple[Tensor, Tensor]:
        """(usual (n,), form (n, b, b)) of an answer that changes along the directions (n, m, b) as the images say."""
        sums = torch.zeros_like(directions)
        sums[:, range(len(images)), images] = 1
        inner = directions @ self.model.products @ sums.transpose(1, 2)
        usual = inner.diagonal(dim1=1, dim2=2).mean(1)
        both, turned = directions.transpose(1, 2) @ sums, directions.transpose(1, 2)
        inner = inner + usual[:, None, None] * torch.eye(len(images))
        return usual, both + both.transpose(1, 2) - turned @ inner @ directions


def _principal(products: Tensor, sums: Tensor, own: Tensor, most: int) -> Tensor:
    """Orthonormal directions (n, most, b) that hold most of what `own` (n, 1, b) leaves of these sums (n, k, b).

    Zeros where nothing but rounding is left.
    """
    least = ROUNDING * (sums.abs() @ products.diagonal(dim1=1, dim2=2).sqrt()[:, :, None]).amax(1)
    rest = sums - (sums @ products @ own.transpose(1, 2)) @ own
    sizes, vectors = torch.linalg.eigh(rest @ products @ rest.transpose(1, 2))
    sizes, vectors = sizes[:, -most:], vectors[:, :, -most:]
    lengths = torch.where(sizes > least ** 2, sizes, math.inf).sqrt()
    principal = (vectors / lengths[:, None]).transpose(1, 2) @ rest
    return principal - (principal @ products @ own.transpose(1, 2)) @ own


def calls_per_image(parameters: Parameters, rank: int = RANK, noisy: bool = False) -> int:
    """Network calls that measuring a run of one pair costs."""
    start, *settings = (getattr(parameters, part.name) for part in fields(parameters))
    return _calls_per_image(rank, noisy, tuple(start), *settings)


@lru_cache(maxsize=256)
def _calls_per_image(rank: int, noisy: bool, start: tuple, *settings) -> int:
    """Cached: each iteration asks, and plans of several budgets."""
    parameters = Parameters(np.array(start), *settings)
    slopes = Slopes(parameters, parameters.initial())
    return sum(slopes.asks(i, rank, noisy) for i in range(parameters.calls))


def sketch(difference: Tensor) -> Tensor:
    """The difference (n, ...) as (n, at most SKETCHED): hashed with signs, which keeps inner products on average.

    Charikar, Chen and Farach-Colton (2002). Scaled so that the mean of squares is kept.
    """
    flat = difference.flatten(1).float().cpu()
    size = flat.shape[1]
    if size <= SKETCHED:
        return flat
    generator = torch.Generator().manual_seed(size)
    place = torch.randint(0, SKETCHED, (size,), generator=generator)
    sign = torch.randint(0, 2, (size,), generator=generator).float() * 2 - 1
    return torch.zeros(len(flat), SKETCHED).index_add_(1, place, flat * sign) * (SKETCHED / size) ** 0.5
