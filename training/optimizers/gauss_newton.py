"""Learning without a backward pass: Gauss-Newton on a table's few free numbers, with forward calls only.

Works with whatever samples: quantised, compiled, offloaded or non-differentiable networks, at plain sampling's
memory. The endpoint error is a sum of squares in 15 to 60 unknowns, so one Levenberg-Marquardt step (Marquardt
1963) is worth tens of gradient steps. A column of the Jacobian is a finite difference; it re-runs only the rows
behind the number it moves, and a number of the last row costs no network call at all.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, sample
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs
from .gradient import State, mean_error, validate

NUDGE = 1e-2                # finite-difference step in the free numbers' natural units; far above float32 rounding
DAMPING = (1e-3, 1e3)       # range of the Levenberg-Marquardt damping
TRIES = 4                   # damped steps tried before an iteration counts as no progress
EXPLORED = 32               # pairs of the first iterations
CHUNK = 32                  # images per network batch


def learn_forward(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: State,
                  on_progress: Callable | None = None) -> State:
    """Carry the state on to config.iterations Gauss-Newton steps, or until none helps; as `loop.learn` otherwise."""
    if state.iteration == 0 and not state.curve:
        validate(source, parameters, held_out, state, math.nan)
    while state.iteration < config.iterations and not state.finished:
        some = pairs.part(slice(0, pairs_at(state.iteration, config.iterations, len(pairs))))
        now = parameters.at(state.iteration)
        loss, normal, slope = normal_equations(source, now, state.vector, some)
        better, loss, state.damping = damped_step(source, now, state.vector, some, loss, normal, slope, state.damping)
        state.stuck = state.stuck + 1 if better is None and len(some) == len(pairs) else 0
        state.finished = state.stuck >= parameters.turns
        if better is not None:
            state.vector, state.average = better, better
        state.iteration += 1
        validate(source, parameters, held_out, state, loss)
        if on_progress is not None:
            on_progress(state, loss, True)
    return state


def pairs_at(iteration: int, iterations: int, count: int) -> int:
    """Pairs an iteration uses: few while the steps are long, doubling, and all of them in the last two."""
    left = iterations - 1 - iteration
    return min(count, max(EXPLORED, count >> max(0, left - 1)))


@torch.no_grad()
def normal_equations(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs):
    """(mean RMSE, J^T W J, J^T W r) over all pairs at this vector; W weighs each image by 1 / its own RMSE.

    With these weights a Gauss-Newton step lowers the mean of the images' RMSE (iteratively re-weighted least
    squares), in which a few hopeless seeds do not drown the rest.
    """
    table, size = parameters.frozen(vector), len(vector)
    moves = sorted(moved_tables(parameters, vector).items(), key=lambda move: move[1][1])     # by their first row
    normal, slope = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    losses = []
    for i in range(0, len(pairs), CHUNK):
        error, columns_normal, columns_slope = _of_chunk(source, table, moves, size, pairs.part(slice(i, i + CHUNK)))
        normal, slope = normal + columns_normal, slope + columns_slope
        losses.append(error)
    return float(torch.cat(losses).mean()), normal / len(pairs), slope / len(pairs)


def _of_chunk(source: Source, table: Table, moves: list, size: int, part: Pairs):
    """(RMSE of each image, J^T W J, J^T W r) of one batch; what it holds beside the network is gone behind it."""
    end, states, known = recorded(source, table, part)
    miss = (end - part.target).flatten(1).double()
    error = miss.square().mean(1).sqrt().clamp(min=1e-6)
    weight = (1 / (error * miss.shape[1])).sqrt()[:, None]
    found = [torch.zeros_like(end[:0]).flatten()] * size
    for k, (moved, first, nudge) in moves:
        states[:first] = [None] * first                     # no later move begins before its row
        reused = {j: d for j, d in known.items() if j < first + same_call(table, moved, first)}
        there = sample(source.denoiser, states[first], moved, part.extra, first=first, known=reused)
        found[k] = ((there - end).flatten(1) / nudge * weight).flatten().float()
        del there
    columns = torch.stack([one if len(one) else torch.zeros_like(end).flatten().float() for one in found])
    return (error, (columns @ columns.T).double().cpu(),
            (columns @ (miss * weight).flatten().float()).double().cpu())


def damped_step(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs, loss: float, normal: Tensor,
                slope: Tensor, damping: float):
    """(new vector or None, its loss, new damping): the first damped step that lowers the loss, or none of TRIES."""
    moving = parameters.moving().bool() & (normal.diagonal() > 0)
    for attempt in range(TRIES):
        step = torch.zeros_like(vector)
        inner = normal[moving][:, moving]
        step[moving] = -torch.linalg.solve(inner + damping * torch.diag(inner.diagonal()), slope[moving])
        candidate = vector + step.clamp(-1.0, 1.0)
        there = mean_error(source, parameters, pairs, candidate, CHUNK)
        if there < loss * (1 - 1e-4):
            return candidate, there, max(DAMPING[0], damping / 4 if attempt == 0 else damping)
        damping = min(DAMPING[1], damping * 6)
    return None, loss, damping


def calls_per_image(parameters: Parameters) -> int:
    """Network calls one image costs in one Jacobian: the run itself and every column's re-run tail."""
    vector = parameters.initial()
    table = parameters.frozen(vector)
    tails = [table.calls - first - same_call(table, moved, first)
             for moved, first, _ in moved_tables(parameters, vector).values()]
    return table.calls + sum(tails)


def moved_tables(parameters: Parameters, vector: Tensor) -> dict:
    """free number -> (table with it moved, first row that differs, size of the move)."""
    here, moves = parameters.frozen(vector), {}
    for k in torch.nonzero(parameters.moving()).flatten().tolist():
        for nudge in (NUDGE, -NUDGE):
            shifted = vector.clone()
            shifted[k] += nudge
            moved = parameters.frozen(shifted)
            if (first := _first_difference(here, moved)) is not None:
                moves[k] = (moved, first, nudge)
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
