"""The Jacobian of where a few calls end in a table's free numbers, by finite differences with forward calls only."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, sample
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs

NUDGE = 1e-2                # finite-difference step in the free numbers' natural units; far above float32 rounding
SKETCHED = 4096             # numbers an image is kept in; larger ones are hashed down to as many


@torch.no_grad()
def measured(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs,
             nudges: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(miss (n, d), its Jacobian (n, free numbers, d)) of a run at these numbers, both as sketches on the CPU."""
    table = parameters.frozen(vector)
    end, states, known = recorded(source, table, pairs)
    jacobian = torch.zeros(len(pairs), len(vector), min(SKETCHED, end[0].numel()))
    for k, (moved, first, length) in moved_tables(parameters, vector, nudges).items():
        reused = {j: d for j, d in known.items() if j < first + same_call(table, moved, first)}
        there = sample(source.denoiser, states[first], moved, pairs.extra, first=first, known=reused)
        jacobian[:, k] = sketch((there - end) / length)
    return sketch(end - pairs.target), jacobian


def calls_per_image(parameters: Parameters, vector: Tensor | None = None) -> int:
    """Network calls one image costs in one Jacobian: the run itself and every column's re-run tail."""
    vector = parameters.initial() if vector is None else vector
    table = parameters.frozen(vector)
    return table.calls + sum(tail(table, moved, first) for moved, first, _ in moved_tables(parameters, vector).values())


def tail(table: Table, moved: Table, first: int) -> int:
    """Network calls of a run of the moved table that continues the table's own at the first row that differs."""
    return table.calls - first - same_call(table, moved, first)


def moved_tables(parameters: Parameters, vector: Tensor, nudges: Tensor | None = None) -> dict:
    """free number -> (table with it moved, first row that differs, size of the move).

    nudges (free numbers,): sizes and signs of the moves, by default NUDGE.
    """
    here, moves = parameters.frozen(vector), {}
    lengths = [NUDGE] * len(vector) if nudges is None else nudges.tolist()
    for k in torch.nonzero(parameters.moving()).flatten().tolist():
        for length in (lengths[k], -lengths[k]):
            shifted = vector.clone()
            shifted[k] += length
            moved = parameters.frozen(shifted)
            if (first := _first_difference(here, moved)) is not None:
                moves[k] = (moved, first, length)
                break                       # a query at the model's highest level only moves down
    return moves


def _first_difference(one: Table, other: Table) -> int | None:
    differs = ((one.weights != other.weights).any(1) | (one.carry != other.carry) | (one.query != other.query)
               | (one.scale != other.scale))
    return int(np.argmax(differs)) if differs.any() else None


def same_call(one: Table, other: Table, row: int) -> bool:
    """Whether both tables ask the network the same at this row, given the same state."""
    return bool(one.query[row] == other.query[row] and one.scale[row] == other.scale[row])


def recorded(source: Source, table: Table, part: Pairs):
    """(end, states by row, predictions by call) of a run."""
    states, known = [], {}

    def on_call(i, x, row, denoised):
        states.append(x)
        known[i] = denoised
    end = sample(source.denoiser, part.start(float(table.sigmas[0]), source.flow), table, part.extra, on_call)
    return end, states, known


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
