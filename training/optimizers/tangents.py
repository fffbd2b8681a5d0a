"""How far an image's end moves with each free number, by forward calls: tangents pushed through a run, compressed.

A free number moves a table's numbers, these move the states, and the network passes a state's move on. All moves are
sums of a few images: the states, the predictions, their slopes in the noise level and the network's answers to moves.
At each call the moves of all free numbers are replaced by the few directions, image by image, that hold most of them
(Eckart and Young 1936); the network is asked for these alone, each by a finite difference. What the table's own
algebra gives costs nothing. With directions as many as moves it is the exact Jacobian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...s4s_nodes.core import Table
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs
from .gauss_newton import recorded

# an image's directions at a call. On digits-eps at 6 calls the Jacobian is off by 24 % of its size with 4, by 11 % with
# 8, enough for the first steps; but near the optimum the slope then points elsewhere (cosine 0.55; with 14, 0.90)
ROUGH, FINE = 8, 12
NUDGE = 1e-2                # finite-difference step: of the state's size, and of the noise level
SKETCHED = 4096             # numbers an image is kept in; larger ones are hashed down to as many


@dataclass(frozen=True)
class Slopes:
    """Derivatives of a table's numbers in the free ones, float64, the free numbers last; 0 where one does not move."""

    carry: Tensor               # (N, K)
    weights: Tensor             # (N, N, K)
    query: Tensor               # (N, K)
    scale: Tensor               # (N, K)

    @classmethod
    def of(cls, parameters: Parameters, vector: Tensor) -> Slopes:
        def numbers(free):
            table = parameters.table(free)
            return tuple(torch.as_tensor(getattr(table, name), dtype=torch.float64)
                         for name in ("carry", "weights", "query", "scale"))
        with torch.enable_grad():
            found = torch.autograd.functional.jacobian(numbers, vector.detach())
        return cls(*(slope * parameters.moving() for slope in found))


def directions(table: Table, slopes: Slopes, most: int) -> list[int]:
    """How many directions each call is asked for: no more than its state's moves are sums of."""
    counts, moved, answers = [], set(), []
    for i in range(table.calls):
        shown = moved | ({("state", i)} if slopes.scale[i].any() else set())
        counts.append(min(most, len(shown), slopes.carry.shape[1]))
        answers.append({("answer", i, k) for k in range(counts[i])}
                       | ({("level", i)} if slopes.query[i].any() else set()))
        moved = set(moved) if table.carry[i] else set()
        moved |= {("state", i)} if slopes.carry[i].any() else set()
        for j in range(i + 1):
            moved |= {("prediction", j)} if slopes.weights[i, j].any() else set()
            moved |= answers[j]
    return counts


def calls_per_image(parameters: Parameters, vector: Tensor | None = None, most: int = FINE) -> int:
    """Network calls that one image's miss and Jacobian cost."""
    vector = parameters.initial() if vector is None else vector
    table, slopes = parameters.frozen(vector), Slopes.of(parameters, vector)
    return table.calls + sum(directions(table, slopes, most)) + int(slopes.query.any(1).sum())


class Words:
    """Images (n, d) of which all moves are sums, with their inner products (n, words, words), float64 on the CPU."""

    def __init__(self, images: list[Tensor], most: int):
        self.images: list[Tensor] = []
        self.products = torch.zeros(len(images[0]), most, most, dtype=torch.float64)
        for image in images:
            self.add(image)

    def add(self, image: Tensor) -> int:
        """Take in one image a pair (n, ...); its place."""
        self.images.append(image.flatten(1))
        new = len(self.images) - 1
        found = torch.stack([(word.double() if word.device.type != "mps" else word).mul(self.images[new]).sum(1)
                             for word in self.images], 1).double().cpu()
        self.products[:, new, :new + 1] = self.products[:, :new + 1, new] = found
        return new

    def sum(self, shares: Tensor) -> Tensor:
        """The sum (n, d) with these shares (n, words)."""
        terms = [word * shares[:, k, None].to(word) for k, word in enumerate(self.images) if shares[:, k].any()]
        return sum(terms, torch.zeros_like(self.images[0]))

    def directions(self, moves: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """(parts (n, free numbers, count), shares (n, count, words)) whose product is closest to moves (n, free
        numbers, words); the directions are of length 1."""
        squares, turned = torch.linalg.eigh(moves @ self.products @ moves.transpose(1, 2))
        lengths = squares[:, -count:].clamp(min=1e-24).sqrt()
        main = turned[:, :, -count:]
        return main * lengths[:, None, :], main.transpose(1, 2) @ moves / lengths[:, :, None]


@torch.no_grad()
def measured(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs,
             most: int = FINE) -> tuple[Tensor, Tensor]:
    """(miss (n, d), its Jacobian (n, free numbers, d)) of a run at these numbers, both as sketches on the CPU; with at
    most so many directions at a call."""
    table, slopes = parameters.frozen(vector), Slopes.of(parameters, vector)
    end, states, known = recorded(source, table, pairs)
    calls, counts = table.calls, directions(table, slopes, most)
    words = Words([*states, *(known[i] for i in range(calls))], 3 * calls + sum(counts))
    moves, answers = torch.zeros(len(pairs), len(vector), 3 * calls + sum(counts), dtype=torch.float64), []
    for i, count in enumerate(counts):
        shown = float(table.scale[i]) * moves
        shown[:, :, i] += slopes.scale[i]
        ask = Asked(source, table, i, states[i], known[i], pairs.extra)
        answers.append(_answered(ask, words, shown, slopes.query[i], count))
        moves = float(table.carry[i]) * moves
        moves[:, :, i] += slopes.carry[i]
        for j in range(i + 1):
            moves = moves + float(table.weights[i, j]) * answers[j]
            moves[:, :, calls + j] += slopes.weights[i, j]
    kept = torch.stack([sketch(image) for image in words.images])
    return sketch(end - pairs.target), torch.einsum("nkw,wnd->nkd", moves[:, :, :len(kept)].float(), kept)


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


@dataclass(frozen=True)
class Asked:
    """One call of a recorded run, to be made again nearby: the state x (n, ...) before it and the prediction."""

    source: Source
    table: Table
    row: int
    x: Tensor
    denoised: Tensor
    extra: dict

    def again(self, shift: Tensor, query: float) -> Tensor:
        """How the prediction changes (n, ...) where the state shown is shifted and the level told is `query`."""
        shown = self.x * float(self.table.scale[self.row]) + shift
        level = torch.full((len(shown),), query, device=shown.device)
        return self.source.denoiser(shown, level, **self.extra) - self.denoised

    def along(self, direction: Tensor) -> Tensor:
        """The slope (n, ...) of the prediction along a direction (n, d) of length 1 in the state shown."""
        size = self.x.flatten(1).norm(dim=1) * float(self.table.scale[self.row])
        nudge = (NUDGE * size).clamp(min=1e-12).reshape(-1, *[1] * (self.x.ndim - 1))
        return self.again(direction.reshape(self.x.shape) * nudge, float(self.table.query[self.row])) / nudge

    def in_level(self) -> Tensor:
        """The slope (n, ...) of the prediction in the level told, measured inside the model's range."""
        query = float(self.table.query[self.row])
        there = query * math.exp(NUDGE)
        there = query * math.exp(-NUDGE) if there > self.source.sigma_max else there
        return self.again(torch.zeros_like(self.x), there) / (there - query)


def _answered(ask: Asked, words: Words, shown: Tensor, level: Tensor, count: int) -> Tensor:
    """The moves (n, free numbers, words) of a prediction, from those of the state shown and of the level told (free
    numbers,)."""
    found = torch.zeros_like(shown)
    if count:
        parts, shares = words.directions(shown, count)
        for k in range(count):
            found[:, :, words.add(ask.along(words.sum(shares[:, k])))] = parts[:, :, k]
    if level.any():
        found[:, :, words.add(ask.in_level())] = level
    return found
