"""Learning without a backward pass: Gauss-Newton on a table's few free numbers, with forward calls only.

It works with every network that can sample, also a quantized, compiled, offloaded or non-differentiable one, with the
memory of plain sampling. A few pairs are run and measured at the present numbers. From then on their runs are known for
other numbers too, with the network linearized (linearized.py): the best numbers near the present ones are found without
a call, at three dampings (Levenberg 1944, Marquardt 1963), real runs of these pairs try each, and the best is taken.
What all three runs show corrects the model, and the next step follows.

Each iteration takes other pairs. If its gain on them hardly shows on the held-out pairs, the next one takes twice as
many. If the held-out pairs clearly lose, the next one starts at the best numbers so far. So a larger budget continues
where a smaller one ends. Where the new pairs say little, the curvature of the former ones' losses holds the numbers
(incremental Gauss-Newton, Bertsekas 1996): a few pairs alone would be fitted too well.

The paper's way, Adam on gradients through the sampler, has two to three times the error: docs/constants.md.
"""

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ...s4s_nodes.core import Table, sample
from ..parametrization.parameters import Parameters
from ..source import NaNFromModel, Source
from ..teacher.pairs import Pairs, ends, errors
from .linearized import RANK, Linearized, Slopes, calls_per_image, measured, sketch
from .state import State

LEAST_BATCH = 2             # fewest pairs of the last iteration
GENERAL = 0.3               # share of an iteration's gain that the held-out pairs must show, or the batch is doubled
BLOCK = 2                   # pairs measured at a time, then saved
FACTOR = 10.0               # ratio of two dampings that are tried
LONGEST = 3.0               # longest step in any free number
DAMPING = (1e-6, 1e2)       # least and most, as a share of each number's curvature
FLOOR = 0.1  # share of the mean curvature added to it, so that a number that hardly acts cannot take a whole step
SOLVING = 10                # Gauss-Newton steps on the linearized runs, at most
SHORTER = 3.0               # a step that does not help is shortened by this factor
SOLVED = 0.02               # share of the model's loss that another step must win
FURTHER = 4                 # real steps on a corrected model
DOUBT = 0.4                 # relative error of the model along a step above which its rank is doubled
MOST_RANK = 12              # beyond it, more pairs are worth more
WORSE = 1.25                # times the best held-out error, above which learning returns to the best numbers
FADE = 0.25                 # share of the curvature of former pairs that stays after an iteration
LEAST = 1e-4                # share of the loss that a step must win to be taken
ENOUGH = 5e-3               # and that a further one must win for another one to follow
MOST_REJECTED = 3           # iterations in a row without a step before the run is given up
TRIALS = 3 + FURTHER        # most runs of an iteration's pairs, beside their measurement
PARTS = [part.name for part in fields(Linearized)]


def learn(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, config,
          state: State, on_progress: Callable | None = None) -> State:
    """Carry the state through its batches and return it; on_progress(state, loss) after each piece of work.

    The state is replaced only by whole pieces (a block of measured pairs, or an iteration), so that stopping at any
    time leaves it consistent. `best` is never worse than the start on the held-out pairs.
    """
    if set(state.memory) != set(PARTS):         # another version's: measured again
        state.memory = {}
    while state.rejected < MOST_REJECTED and (state.batch or _next_batch(parameters, pairs, held_out, config, state)):
        before, ahead, loss = source.model_calls, replace(state), math.nan
        some = pairs.part(places(state, len(pairs)))
        known = len(state.memory.get("tensors", ()))
        if not state.curve:
            _validate(source, parameters, held_out, ahead, math.nan)
        elif known < len(some):
            _measure(source, parameters, some.part(slice(known, known + BLOCK)), ahead)
        else:
            loss = _iterate(source, parameters, some, held_out, ahead)
        ahead.left -= source.model_calls - before
        vars(state).update(vars(ahead))
        if on_progress is not None:
            on_progress(state, loss)
    return state


def pair_cost(parameters: Parameters, rank: int = RANK, noisy: bool = False) -> int:
    """Network calls of one pair in one iteration, at most: its measurement, and the steps that are tried."""
    return calls_per_image(parameters, rank, noisy) + TRIALS * parameters.calls


def _next_batch(parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: State) -> bool:
    """Settle how many pairs the next iteration measures; whether the calls that are left afford another one."""
    if 0 < config.iterations <= state.iteration:
        return False
    begun = len(held_out) * parameters.calls * (1 if state.curve else 2)        # validations
    afforded = min(len(pairs), (state.left - begun) // pair_cost(parameters, state.rank, state.noise > 0))
    if afforded < LEAST_BATCH:
        return False
    state.batch = state.wanted if 2 * state.wanted <= afforded else afforded
    return True


def places(state: State, count: int) -> list[int]:
    """The pairs of this iteration: all take turns."""
    return [(state.measured + i) % count for i in range(min(count, state.batch))]


def _measure(source: Source, parameters: Parameters, block: Pairs, state: State) -> None:
    new = measured(source, parameters, state.vector, block, state.rank, state.sizes, state.noise)
    known = state.memory or {name: getattr(new, name)[:0] for name in PARTS}
    state.memory = {name: torch.cat([known[name], getattr(new, name)]) for name in PARTS}
    if state.sizes is None:
        state.sizes = _scale(new, parameters, state.vector).rsqrt()


def _scale(model: Linearized, here: Parameters, vector: Tensor) -> Tensor:
    """The damping (k,) of each free number: between its own curvature (Marquardt) and the same for all (Levenberg)."""
    curvature = _normal(model, here, vector)[0].diagonal().clamp(min=1e-12)
    return curvature + FLOOR * curvature.mean()


def _weights(model: Linearized, miss: Tensor) -> Tensor:
    """The images' weights (n,), 1 / RMSE (re-weighted least squares), so that hopeless seeds do not drown the rest."""
    return 1 / (model.squares(miss)[:, 0].sqrt().clamp(min=1e-6) * len(miss))


def _iterate(source: Source, here: Parameters, pairs: Pairs, held_out: Pairs, state: State) -> float:
    """Step from where the pairs were measured, then on with the corrected model; validate. Returns the loss reached."""
    model, trials = Linearized(**state.memory), []
    scale, (miss, _) = _scale(model, here, state.vector), model.run(here.frozen(state.vector))
    first = loss = float(model.squares(miss).sqrt().mean())
    former = 0.0 if state.former is None else FADE * state.former

    def hold(damping):
        return torch.diag(damping * scale) + former / len(pairs)

    def trial(damping):
        ahead = solved(model, here, state.vector, hold(damping))
        trials.append((damping, ahead, *_tried(source, here, ahead, pairs)))
        return trials[-1]
    taken, doubt, corrected = best_trial(trial, state.damping, loss), math.inf, model
    if taken is not None:
        state.damping, vector, _, loss = taken
        table = here.frozen(vector)
        for _, ahead, answers, after in sorted(trials, key=lambda each: -each[-1]):         # the one taken is the last
            if math.isfinite(after):
                corrected = corrected.corrected(here.frozen(ahead), answers, state.noise)
        doubt = _error(corrected, table, miss, model.run(table)[0])
        state.vector, loss = _further(source, here, pairs, corrected, vector, loss, hold(state.damping), state.noise)
    curvature, _ = _normal(corrected, here, state.vector)
    if doubt > DOUBT:
        state.rank = min(2 * state.rank, MOST_RANK)
    state.rejected = 0 if taken else state.rejected + 1
    if taken is None:
        state.damping = min(DAMPING[1], state.damping * FACTOR)
    state.memory, state.measured, state.batch = {}, state.measured + len(pairs), 0
    state.sizes = scale.rsqrt()
    _validate(source, here, held_out, state, loss)
    (*_, before, _), (*_, after, _) = state.curve[-2:]
    if not before * loss ** GENERAL > after * first ** GENERAL:     # no ratios: a student may equal its teacher
        state.wanted *= 2
    if after > WORSE * state.best_error:
        state.vector = state.best.clone()
    else:
        state.former = former + len(pairs) * curvature
    return loss


def _error(real: Linearized, table: Table, before: Tensor, predicted: Tensor) -> float:
    """The error of the predicted misses (n, 1, b) at this table, relative to how much the real ones changed."""
    after, _ = real.run(table)
    wrong, change = (after - pad(each, (0, after.shape[2] - each.shape[2])) for each in (predicted, before))
    return float((real.squares(wrong).sum() / real.squares(change).sum().clamp(min=1e-24)).sqrt())


def best_trial(trial: Callable, damping: float, loss: float):
    """The best of three dampings near the last one, as trial(damping) -> (damping, ..., loss); None if none helps."""
    first = trial(damping)
    factor = 1 / FACTOR if first[-1] < loss else FACTOR
    second = trial(float(np.clip(damping * factor, *DAMPING)))
    going_on = factor > 1 or second[-1] < first[-1]
    third = trial(float(np.clip(damping * (factor ** 2 if going_on else FACTOR), *DAMPING)))
    best = min((first, second, third), key=lambda each: each[-1])
    return best if best[-1] < loss * (1 - LEAST) else None


def _further(source: Source, here: Parameters, pairs: Pairs, model: Linearized, vector: Tensor, loss: float,
             hold: Tensor, noise: float) -> tuple[Tensor, float]:
    """(vector, loss) after further steps; the real runs of each correct the model for the next."""
    for _ in range(FURTHER):
        ahead = solved(model, here, vector, hold)
        answers, after = _tried(source, here, ahead, pairs)
        if not after < loss * (1 - LEAST):
            break
        small, vector, loss = after > loss * (1 - ENOUGH), ahead, after
        if small:
            break
        model = model.corrected(here.frozen(vector), answers, noise)
    return vector, loss


def solved(model: Linearized, here: Parameters, start: Tensor, hold: Tensor) -> Tensor:
    """The free numbers (k,) near these that end best by the model: least weighed squares of the misses, and of the
    distance from the start by the metric `hold` (k, k)."""
    miss, _ = model.run(here.frozen(start))
    weights = _weights(model, miss)

    def loss_at(vector):
        try:
            miss, _ = model.run(here.frozen(vector))
        except ValueError:                                          # no valid table
            return math.inf
        return float((weights * model.squares(miss)[:, 0]).sum() + (vector - start) @ hold @ (vector - start))
    vector, loss = start, float((weights * model.squares(miss)[:, 0]).sum())
    for _ in range(SOLVING):
        normal, slope = _normal(model, here, vector, weights)
        step = -torch.linalg.solve(normal + hold, slope + hold @ (vector - start))
        for shortened in range(4):
            away = vector + step / SHORTER ** shortened - start
            ahead = here.bounded(start + away / (away.abs().max() / LONGEST).clamp(min=1.0))
            if (after := loss_at(ahead)) < loss:
                break
        else:
            break
        little, vector, loss = after > loss * (1 - SOLVED), ahead, after
        if little:
            break
    return vector


def _normal(model: Linearized, here: Parameters, vector: Tensor,
            weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The Gauss-Newton curvature (k, k) and half the slope (k,) of the weighed squares of the misses."""
    miss, changes = model.run(here.frozen(vector), Slopes(here, vector))
    weights = _weights(model, miss) if weights is None else weights
    weighed = (weights / model.tensors.shape[2])[:, None, None] * changes @ model.products
    return (weighed @ changes.transpose(1, 2)).sum(0), (weighed @ miss.transpose(1, 2)).sum(0)[:, 0]


def _tried(source: Source, here: Parameters, vector: Tensor, pairs: Pairs) -> tuple[Tensor | None, float]:
    """(sketches (n, N, d) of the network's answers, loss) of a real run; infinite where no table or picture is valid.

    A network that answers NaN for a finite state may not do so again: the run continues elsewhere, and says so.
    """
    answers: list = []

    def keep(i, x, row, denoised):
        answers.append(sketch(denoised))
    try:
        table = here.frozen(vector)
        end = sample(source.denoiser, pairs.start(float(table.sigmas[0]), source.flow), table, pairs.extra, keep)
    except NaNFromModel as error:
        if source.say is not None and not error.diverged:
            source.say(f"WARNING: {error}. This step was not taken. If you train again, the table can differ")
        return None, math.inf
    except ValueError:
        return None, math.inf
    loss = float(sketch(end - pairs.target).square().mean(1).sqrt().mean())
    return torch.stack(answers, 1), loss if math.isfinite(loss) else math.inf


def _validate(source: Source, parameters: Parameters, held_out: Pairs, state: State, loss: float) -> None:
    found = errors(ends(source, parameters.frozen(state.vector), held_out), held_out.target)
    error, median = (float(found.mean()), float(np.median(found))) if np.isfinite(found).all() else (math.inf,) * 2
    state.validated(error, median, loss, source.all_calls)
