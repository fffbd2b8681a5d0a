"""Learning without a backward pass: Gauss-Newton on a table's few free numbers, with forward calls only.

It works with whatever samples: quantised, compiled, offloaded or non-differentiable networks, at the memory of plain
sampling. The endpoint error is a sum of squares in 15 to 80 unknowns, so one Levenberg-Marquardt step (Marquardt 1963)
is worth tens of gradient steps. A column of the Jacobian is a finite difference; it re-runs only the rows behind the
number it moves, and a number of the last row costs no network call.

The error has long curved valleys: many exact Jacobians on few pairs go further than few on many. Each iteration takes
other pairs and steps on with secant updates of its Jacobian (Broyden 1965). Where what it gains on them hardly shows on
the held-out pairs, the next one takes twice as many. So the way does not depend on the budget; only its length does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, sample
from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs, ends, errors
from .state import GaussNewtonState

NUDGE = 1e-2                # finite-difference step in the free numbers' natural units; far above float32 rounding
LEAST_BATCH = 2             # pairs of the last iteration, where calls are left for no more
GENERAL = 0.3               # share of an iteration's gain that the held-out pairs must show, or the batch is doubled
BLOCK = 4                   # pairs measured at a time, then saved
FACTOR = 10.0               # between two dampings that are tried
LONGEST = 3.0               # step in any free number
DAMPING = (1e-6, 1e2)       # of a Levenberg-Marquardt step, as a share of each number's curvature
SECANT_STEPS = 2            # further steps on a corrected Jacobian
LEAST = 1e-4                # share of the loss that a step must win to be taken
ENOUGH = 5e-3               # and that a secant step must win for another one to follow
MOST_REJECTED = 3           # iterations in a row without a step before the run is given up
TRIALS = 3 + SECANT_STEPS   # runs of an iteration's pairs besides their Jacobian, at most
SKETCHED = 4096             # numbers an image is kept in; larger ones are hashed down to as many


def learn_forward(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, config,
                  state: GaussNewtonState, on_progress: Callable | None = None) -> GaussNewtonState:
    """Carry the state through its batches and return it; on_progress(state, loss, checked) after each piece of work.

    The state is replaced only by whole pieces (a block of measured pairs, or an iteration), so that stopping at any
    time leaves it consistent. `best` is never worse than the start on the held-out pairs.
    """
    while not state.finished and (state.batch or _next_batch(parameters, pairs, held_out, config, state)):
        before, ahead, loss = source.model_calls, replace(state), math.nan
        some = pairs.part(places(state, len(pairs)))
        known = len(state.memory.get("miss", ()))
        if not state.curve:
            _validate(source, parameters, held_out, ahead, math.nan)
        elif known < len(some):
            _measure(source, parameters, some.part(slice(known, known + BLOCK)), ahead)
        else:
            loss = _iterate(source, parameters, some, held_out, ahead)
        used = source.model_calls - before
        ahead.spent, ahead.left = ahead.spent + used, ahead.left - used
        vars(state).update(vars(ahead))
        if on_progress is not None:
            on_progress(state, loss, True)
    return state


def pair_cost(parameters: Parameters, turn: int) -> int:
    """Network calls of one pair in one iteration, at most: its Jacobian, and the steps that are tried."""
    return calls_per_image(parameters.at(turn)) + TRIALS * parameters.calls


def _next_batch(parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: GaussNewtonState) -> bool:
    """Settle how many pairs the next iteration measures; whether the calls that are left afford another one."""
    if 0 < config.iterations <= state.iteration:
        return False
    begun = len(held_out) * parameters.calls * (1 if state.curve else 2)        # validations
    afforded = min(len(pairs), (state.left - begun) // pair_cost(parameters, state.iteration))
    if afforded < LEAST_BATCH:
        return False
    state.batch = state.wanted if 2 * state.wanted <= afforded else afforded
    return True


def places(state: GaussNewtonState, count: int) -> list[int]:
    """The pairs of this iteration: all take turns."""
    return [(state.measured + i) % count for i in range(min(count, state.batch))]


def nudge_for(noise: float) -> float:
    """The finite-difference step for a network whose answers carry relative noise.

    A difference over a step h is off by noise / h, and by the curvature times h: the best h is near the root.
    """
    return float(np.clip(2 * math.sqrt(noise), NUDGE, 0.2))


def _measure(source: Source, parameters: Parameters, block: Pairs, state: GaussNewtonState) -> None:
    miss, jacobian = measured(source, parameters.at(state.iteration), state.vector, block, state.nudge)
    old = state.memory if "miss" in state.memory else {"miss": miss[:0], "jacobian": jacobian[:0]}
    state.memory = {**state.memory, "miss": torch.cat([old["miss"], miss]),
                    "jacobian": torch.cat([old["jacobian"], jacobian])}


def _iterate(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, state: GaussNewtonState) -> float:
    """Step from where the pairs were measured, then on by secants; validate. Returns the loss reached."""
    moving = parameters.at(state.iteration).moving().bool()
    miss, jacobian, vector = state.memory["miss"], state.memory["jacobian"], state.vector
    loss = first = _mean_rmse(miss)

    def trial(damping):
        ahead = vector + damped(jacobian, miss, moving, damping)
        there = _miss(source, parameters, ahead, pairs)
        return damping, ahead, there, math.inf if there is None else _mean_rmse(there)
    taken = best_trial(trial, state.damping, loss)
    if taken is not None:
        state.damping, ahead, there, loss = taken
        state.vector, loss = _secant_steps(source, parameters, pairs, moving, state.damping,
                                           (vector, miss, jacobian), (ahead, there, loss))
    state.rejected = 0 if taken else state.rejected + 1
    if taken is None:
        state.damping = min(DAMPING[1], state.damping * FACTOR)
    state.iteration, state.finished = state.iteration + 1, state.rejected == MOST_REJECTED
    state.memory, state.measured, state.batch = {}, state.measured + len(pairs), 0
    _validate(source, parameters, held_out, state, loss)
    (*_, before, _), (*_, after, _) = state.curve[-2:]
    if not before / after > (first / loss) ** GENERAL:
        state.wanted *= 2
    return loss


def best_trial(trial: Callable, damping: float, loss: float):
    """The best of three dampings near the last one, as trial(damping) -> (damping, ..., loss); None if none helps."""
    first = trial(damping)
    factor = 1 / FACTOR if first[-1] < loss else FACTOR
    second = trial(float(np.clip(damping * factor, *DAMPING)))
    going_on = factor > 1 or second[-1] < first[-1]
    third = trial(float(np.clip(damping * (factor ** 2 if going_on else FACTOR), *DAMPING)))
    best = min((first, second, third), key=lambda each: each[-1])
    return best if best[-1] < loss * (1 - LEAST) else None


def _secant_steps(source, parameters, pairs, moving, damping, before, now) -> tuple[Tensor, float]:
    """(vector, loss) after steps on the Jacobian corrected along the way: Broyden's update, image by image."""
    (vector, miss, jacobian), (ahead, there, loss) = before, now
    for _ in range(SECANT_STEPS):
        step = (ahead - vector).float()
        wrong = there - miss - torch.einsum("nkd,k->nd", jacobian, step)
        jacobian = jacobian + torch.einsum("k,nd->nkd", step / step.square().sum(), wrong)
        vector, miss = ahead, there
        further = vector + damped(jacobian, miss, moving, damping)
        result = _miss(source, parameters, further, pairs)
        after = math.inf if result is None else _mean_rmse(result)
        if not after < loss * (1 - LEAST):
            break
        small = after > loss * (1 - ENOUGH)
        ahead, there, loss = further, result, after
        if small:
            break
    return ahead, loss


def damped(jacobian: Tensor, miss: Tensor, moving: Tensor, damping: float) -> Tensor:
    """The Levenberg-Marquardt step (free numbers,), float64, for the mean of the images' RMSE.

    Each image weighs 1 / its own RMSE (iteratively re-weighted least squares), so that a few hopeless seeds do not
    drown the rest.
    """
    weight = 1 / (miss.square().mean(1).sqrt().clamp(min=1e-6) * miss.shape[1] * len(miss))
    columns = jacobian[:, moving].transpose(0, 1)                                          # (k, n, d)
    weighed = (columns * weight[None, :, None]).flatten(1)
    normal, slope = (weighed @ columns.flatten(1).T).double(), (weighed @ miss.flatten()).double()
    scale = normal.diagonal().clamp(min=1e-12)
    step = torch.zeros(len(moving), dtype=torch.float64)
    step[moving] = -torch.linalg.solve(normal + damping * torch.diag(scale), slope)
    return step / (step.abs().max() / LONGEST).clamp(min=1.0)


@torch.no_grad()
def measured(source: Source, parameters: Parameters, vector: Tensor, pairs: Pairs,
             nudge: float = NUDGE) -> tuple[Tensor, Tensor]:
    """(miss (n, d), its Jacobian (n, free numbers, d)) of a run at these numbers, both as sketches on the CPU."""
    table = parameters.frozen(vector)
    end, states, known = recorded(source, table, pairs)
    jacobian = torch.zeros(len(pairs), len(vector), min(SKETCHED, end[0].numel()))
    for k, (moved, first, length) in moved_tables(parameters, vector, nudge).items():
        reused = {j: d for j, d in known.items() if j < first + same_call(table, moved, first)}
        there = sample(source.denoiser, states[first], moved, pairs.extra, first=first, known=reused)
        jacobian[:, k] = sketch((there - end) / length)
    return sketch(end - pairs.target), jacobian


def calls_per_image(parameters: Parameters, vector: Tensor | None = None) -> int:
    """Network calls one image costs in one Jacobian: the run itself and every column's re-run tail."""
    vector = parameters.initial() if vector is None else vector
    table = parameters.frozen(vector)
    tails = [table.calls - first - same_call(table, moved, first)
             for moved, first, _ in moved_tables(parameters, vector).values()]
    return table.calls + sum(tails)


def moved_tables(parameters: Parameters, vector: Tensor, nudge: float = NUDGE) -> dict:
    """free number -> (table with it moved, first row that differs, size of the move)."""
    here, moves = parameters.frozen(vector), {}
    for k in torch.nonzero(parameters.moving()).flatten().tolist():
        for length in (nudge, -nudge):
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


def _miss(source: Source, parameters: Parameters, vector: Tensor, used: Pairs) -> Tensor | None:
    """Where these numbers miss the targets, or None where they make no valid table or no picture."""
    try:
        miss = sketch(ends(source, parameters.frozen(vector), used) - used.target)
    except ValueError:
        return None
    return miss if bool(torch.isfinite(miss).all()) else None


def _mean_rmse(miss: Tensor) -> float:
    return float(miss.square().mean(1).sqrt().mean())


def _validate(source: Source, parameters: Parameters, held_out: Pairs, state: GaussNewtonState, loss: float) -> None:
    """Keep the present numbers as the best if their held-out score is the lowest so far.

    The score is the geometric mean of the images' mean and median RMSE; where either is above the start's, infinite:
    neither the tail nor the typical image may be lost.
    """
    found = errors(ends(source, parameters.frozen(state.vector), held_out), held_out.target)
    error, median = (float(found.mean()), float(np.median(found))) if np.isfinite(found).all() else (math.inf,) * 2
    if not state.curve:
        return state.begin(error, median, source.all_calls)
    lost = error > state.start_error or median > state.start_median
    score = math.inf if lost else math.sqrt(error * median)
    if score < state.best_score:
        state.best, state.best_error, state.best_median, state.best_score = state.vector.clone(), error, median, score
    state.curve = [*state.curve, [state.iteration, loss, error, source.all_calls]]
