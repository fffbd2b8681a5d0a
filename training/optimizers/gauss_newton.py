"""Learning without a backward pass: Gauss-Newton on a table's few free numbers, with forward calls only.

It works with whatever samples: quantised, compiled, offloaded or non-differentiable networks, at the memory of plain
sampling. The endpoint error is a sum of squares in 15 to 80 unknowns, so one Levenberg-Marquardt step (Marquardt 1963)
is worth tens of gradient steps. A column of the Jacobian is a finite difference; it re-runs only the rows behind the
number it moves, and a number of the last row costs no network call (jacobian.py). Where a budget affords few of these,
the Jacobian is measured along few directions of the run (low_rank.py): twice as many after a step that it predicted
badly, and exactly after another.

The error has long curved valleys: many Jacobians on few pairs go further than few on many. Each iteration takes other
pairs and steps on with secant updates of its Jacobian (Broyden 1965). Where what it gains on them hardly shows on the
held-out pairs, the next one takes twice as many. So of all budgets with exact Jacobians, a larger one goes on where a
smaller one ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..parametrization.parameters import Parameters
from ..source import NaNFromModel, Source
from ..teacher.pairs import Pairs, ends, errors
from . import low_rank
from .jacobian import calls_per_image, measured, sketch
from .noise import NoiseCovariance, noise_by_tail, noise_calls, positive
from .state import GaussNewtonState

LEAST_BATCH = 2             # pairs of the last iteration, where calls are left for no more
GENERAL = 0.3               # share of an iteration's gain that the held-out pairs must show, or the batch is doubled
BLOCK = 2                   # pairs measured at a time, then saved
FACTOR = 10.0               # between two dampings that are tried
LONGEST = 3.0               # step in any free number
DAMPING = (1e-6, 1e2)       # of a Levenberg-Marquardt step, as a share of each number's curvature
FLOOR = 0.1                 # added to it, of all numbers' mean: one that hardly acts may not take all of a step
SECANT_STEPS = 4            # further steps on a corrected Jacobian
DOUBT = 0.4                 # relative error of the Jacobian along a step above which its rank is doubled
MOST_RANK = 12              # beyond it, finite differences for each number cost little more
LEAST = 1e-4                # share of the loss that a step must win to be taken
ENOUGH = 5e-3               # and that a secant step must win for another one to follow
MOST_REJECTED = 3           # iterations in a row without a step before the run is given up
TRIALS = 3 + SECANT_STEPS   # runs of an iteration's pairs besides their Jacobian, at most


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


def pair_cost(parameters: Parameters, turn: int, rank: int = 0) -> int:
    """Network calls of one pair in one iteration, at most: its Jacobian, and the steps that are tried.

    rank: directions of the Jacobian; 0: an exact one.
    """
    here = parameters.at(turn)
    measuring = low_rank.calls_per_image(here, rank) if rank else calls_per_image(here)
    return measuring + TRIALS * parameters.calls


def _next_batch(parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: GaussNewtonState) -> bool:
    """Settle how many pairs the next iteration measures; whether the calls that are left afford another one."""
    if 0 < config.iterations <= state.iteration:
        return False
    begun = len(held_out) * parameters.calls * (1 if state.curve else 2)        # validations
    begun += noise_calls(parameters.calls) if state.noisy else 0
    afforded = min(len(pairs), (state.left - begun) // pair_cost(parameters, state.iteration, state.rank))
    if afforded < LEAST_BATCH:
        return False
    state.batch = state.wanted if 2 * state.wanted <= afforded else afforded
    return True


def places(state: GaussNewtonState, count: int) -> list[int]:
    """The pairs of this iteration: all take turns."""
    return [(state.measured + i) % count for i in range(min(count, state.batch))]


def _measure(source: Source, parameters: Parameters, block: Pairs, state: GaussNewtonState) -> None:
    """Measure a block of pairs. Wide nudges change sides from block to block, which cancels most of their curvature."""
    known, here = len(state.memory.get("miss", ())), parameters.at(state.iteration)
    if state.rank:
        parts = low_rank.measured(source, here, state.vector, block, state.rank, state.sizes)
    else:
        if state.noisy and not known:
            noise = noise_by_tail(source, here.frozen(state.vector), block)
            state.noise = noise if state.noise is None else (state.noise + noise) / 2
        side = _side(known) if state.noisy else 1
        parts = measured(source, here, state.vector, block, side * state.nudges)
    for name, part in zip(("miss", "jacobian"), parts, strict=True):
        state.memory = {**state.memory, name: torch.cat([state.memory[name], part]) if known else part}
    if state.rank:
        state.sizes = _sizes(state.memory["miss"], state.memory["jacobian"], here.moving().bool())


def _sizes(miss: Tensor, columns: Tensor, moving: Tensor) -> Tensor:
    """By which the numbers (k,) may move, relative to each other: as the damping allows them."""
    curvature = (columns.square().sum(2) * _weights(miss)[:, None]).sum(0).double()
    return (curvature + FLOOR * curvature[moving].mean()).rsqrt()


def _iterate(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, state: GaussNewtonState) -> float:
    """Step from where the pairs were measured, then on by secants; validate. Returns the loss reached."""
    moving = parameters.at(state.iteration).moving().bool()
    miss, jacobian, vector = state.memory["miss"], state.memory["jacobian"], state.vector
    loss = first = _mean_rmse(miss)
    noise = _noise(parameters.at(state.iteration), state)

    def trial(damping):
        ahead = parameters.bounded(vector + damped(jacobian, miss, moving, damping, noise))
        there = _miss(source, parameters, ahead, pairs)
        return damping, ahead, there, math.inf if there is None else _mean_rmse(there)
    taken = best_trial(trial, state.damping, loss)
    if taken is not None:
        state.damping, ahead, there, loss = taken
        surprise = _unpredicted(jacobian, (ahead - vector).float(), there - miss).norm() / (there - miss).norm()
        state.vector, loss = _secant_steps(source, parameters, pairs, moving, state.damping,
                                           (vector, miss, jacobian, noise), (ahead, there, loss))
    if state.rank and (taken is None or surprise > DOUBT):
        state.rank = 2 * state.rank if 2 * state.rank <= MOST_RANK else 0
    state.rejected = 0 if taken else state.rejected + 1
    if taken is None:
        state.damping = min(DAMPING[1], state.damping * FACTOR)
    state.iteration, state.finished = state.iteration + 1, state.rejected == MOST_REJECTED
    if noise:
        state.nudges = noise.nudges(jacobian)
    state.memory, state.measured, state.batch = {}, state.measured + len(pairs), 0
    _validate(source, parameters, held_out, state, loss)
    (*_, before, _), (*_, after, _) = state.curve[-2:]
    if not before / after > (first / loss) ** GENERAL:
        state.wanted *= 2
    return loss


def _unpredicted(jacobian: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """What the Jacobian (n, k, d) did not predict of the change (n, d) along a step (k,)."""
    return change - torch.einsum("nkd,k->nd", jacobian, step)


def _noise(parameters: Parameters, state: GaussNewtonState) -> NoiseCovariance | None:
    """What the network's noise adds to the products of the Jacobian's columns; None where it has next to none."""
    if not state.noisy:
        return None
    sides = [_side(place) for place in range(len(state.memory["miss"]))]
    return NoiseCovariance.of(state.noise, parameters, state.vector, state.nudges, sum(sides) / len(sides))


def _side(place: int) -> int:
    """To which side the numbers are moved for the pair at this place of an iteration."""
    return -1 if place // BLOCK % 2 else 1


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
    (vector, miss, jacobian, noise), (ahead, there, loss) = before, now
    for _ in range(SECANT_STEPS):
        step = (ahead - vector).float()
        wrong = _unpredicted(jacobian, step, there - miss)
        jacobian = jacobian + torch.einsum("k,nd->nkd", step / step.square().sum(), wrong)
        noise = noise and noise.after(step.double())
        vector, miss = ahead, there
        further = parameters.bounded(vector + damped(jacobian, miss, moving, damping, noise))
        result = _miss(source, parameters, further, pairs)
        after = math.inf if result is None else _mean_rmse(result)
        if not after < loss * (1 - LEAST):
            break
        small = after > loss * (1 - ENOUGH)
        ahead, there, loss = further, result, after
        if small:
            break
    return ahead, loss


def damped(jacobian: Tensor, miss: Tensor, moving: Tensor, damping: float,
           noise: NoiseCovariance | None = None) -> Tensor:
    """The Levenberg-Marquardt step (free numbers,), float64, for the mean of the images' RMSE.

    Each image weighs 1 / its own RMSE (iteratively re-weighted least squares), so that a few hopeless seeds do not
    drown the rest. The damping is between Marquardt's, each number's own curvature, and Levenberg's, the same for all.
    What noise adds to the products of columns is subtracted; the damping keeps its full size.
    """
    weight = _weights(miss)
    columns = jacobian[:, moving].transpose(0, 1)                                          # (k, n, d)
    weighed = (columns * weight[None, :, None]).flatten(1)
    normal, slope = (weighed @ columns.flatten(1).T).double(), (weighed @ miss.flatten()).double()
    scale = normal.diagonal().clamp(min=1e-12)
    if noise:
        total = float(weight.sum()) * miss.shape[1]
        normal = positive(normal - total * noise.columns[moving][:, moving], scale.sqrt())
        slope = slope - total * noise.miss[moving]
    step = torch.zeros(len(moving), dtype=torch.float64)
    step[moving] = -torch.linalg.solve(normal + damping * torch.diag(scale + FLOOR * scale.mean()), slope)
    return step / (step.abs().max() / LONGEST).clamp(min=1.0)


def _weights(miss: Tensor) -> Tensor:
    """Of the images (n,), for the mean of their RMSE."""
    return 1 / (miss.square().mean(1).sqrt().clamp(min=1e-6) * miss.shape[1] * len(miss))


def _miss(source: Source, parameters: Parameters, vector: Tensor, used: Pairs) -> Tensor | None:
    """Where these numbers miss the targets, or None where they make no valid table or no picture.

    A network that answers NaN for a finite state may not do so again: the run goes on elsewhere, and says it.
    """
    try:
        miss = sketch(ends(source, parameters.frozen(vector), used) - used.target)
    except NaNFromModel as error:
        if source.say is not None and not error.diverged:
            source.say(f"WARNING: {error}. The step that was tried is not taken; trained again, the table can differ")
        return None
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
