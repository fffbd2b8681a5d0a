"""Learning on a budget: Gauss-Newton with Jacobians from compressed tangents, kept up to date by secants.

With few pairs a table learns the pairs; with many, measuring their Jacobians (tens of network calls a pair) eats the
budget. So the first steps, which are long, use few pairs, roughly measured; then all pairs are measured finely where
the numbers stand, and each step corrects their Jacobians along the way it went (Broyden 1965), at no further call.
Steps are damped (Marquardt 1963). Where a run starts from what other models learned, that is its prior, too: few pairs
do not drag the numbers far from it without need (ridge regression, Hoerl and Kennard 1970).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs, ends, errors
from .gradient import State
from .tangents import FINE, ROUGH, calls_per_image, measured, sketch

BLOCK = 8                   # pairs measured at a time, then saved
FIRST, EVERY = State.to_measure, 10 ** 9        # pairs of the first round, and of the second
STEPS = 3                   # most steps of the first round
ENOUGH = (0.02, 0.002)      # share of the loss that a step of either round must win for another one to follow
DAMPING = (3e-2, 1e2)       # less learns the pairs by heart
BEGIN = 0.1                 # damping of a round's first step
TRIALS = 3                  # dampings in a row that may fail
# pull towards a learned start, as a share of each number's curvature: on 256 unseen seeds it took digits-eps from an
# RMSE of 0.064 to 0.056 and a mean of 0.045 to 0.042, digits-flow from 0.049 to 0.048 at the same mean
RIDGE = 0.1
LEAST = 1e-4                # share of the loss that a step must win to be taken


def learn_sparingly(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: State,
                    on_progress: Callable | None = None) -> State:
    """Carry the state on until its budget is spent or nothing helps any more; as `loop.learn` otherwise.

    state.spent counts all network calls of the table; the next piece of work begins only if it surely fits.
    """
    if not state.curve:
        before = source.model_calls
        _validate(source, parameters, held_out, state, math.nan)
        state.spent += source.model_calls - before
    while not state.finished and state.iteration < (config.iterations or math.inf):
        before, loss, left = source.model_calls, math.nan, config.budget - state.spent
        known = len(state.memory.get("miss", ()))
        new = max(0, min(BLOCK, state.to_measure, len(pairs) - known))
        cost = new * calls_per_image(parameters, state.vector, most_directions(state))
        if new and cost + step_calls(parameters, known + new, held_out) <= left:
            state.memory = _with_block(source, parameters, state, pairs.part(slice(known, known + new)))
        elif known and step_calls(parameters, known, held_out) <= left:
            loss = _step(source, parameters, pairs.part(slice(0, known)), held_out, state)
        else:
            state.finished = True
        state.spent += source.model_calls - before
        if on_progress is not None:
            on_progress(state, loss, True)
    return state


def most_directions(state: State) -> int:
    """How finely the pairs of this round are measured."""
    return FINE if state.round else ROUGH


def step_calls(parameters: Parameters, known: int, held_out: Pairs) -> int:
    """The most network calls of one step: all pairs once, and its validation."""
    return parameters.calls * (known + len(held_out))


@torch.no_grad()
def _with_block(source: Source, parameters: Parameters, state: State, block: Pairs) -> dict:
    """The memory with these pairs measured at the present numbers."""
    miss, jacobian = measured(source, parameters, state.vector, block, most_directions(state))
    state.to_measure -= len(block)
    old = state.memory if "miss" in state.memory else {"miss": miss[:0], "jacobian": jacobian[:0]}
    return {**state.memory, "miss": torch.cat([old["miss"], miss]),
            "jacobian": torch.cat([old["jacobian"], jacobian])}


def _step(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, state: State) -> float:
    """Try one damped step on the measured pairs, take it if it helps, and correct the Jacobian; the loss then."""
    miss, jacobian = state.memory["miss"], state.memory["jacobian"]
    loss, moving = _mean_rmse(miss), parameters.at(state.turn).moving().bool()
    off = (state.vector - state.memory.get("prior", state.vector)).float()
    pull = RIDGE * curvature(jacobian, miss) if "prior" in state.memory else torch.zeros(len(off))
    step = damped(jacobian, miss, moving, state.damping, pull, off)
    there = _miss(source, parameters, state.vector + step.double(), pairs)
    after = math.inf if there is None else _mean_rmse(there)
    if not after + penalty(pull, off + step) < (loss + penalty(pull, off)) * (1 - LEAST):
        _failed(state, parameters)
        return loss
    wrong = there - miss - torch.einsum("nkd,k->nd", jacobian, step)
    state.memory |= {"miss": there,
                     "jacobian": jacobian + torch.einsum("k,nd->nkd", step / step.square().sum(), wrong)}
    state.vector = state.average = state.vector + step.double()
    state.damping, state.stuck = max(DAMPING[0], state.damping / 3), 0
    state.iteration, state.in_round, state.turn = state.iteration + 1, state.in_round + 1, state.turn + 1
    _validate(source, parameters, held_out, state, after)
    if state.in_round >= parameters.turns and loss - after < ENOUGH[state.round] * loss or (
            not state.round and state.in_round == STEPS * parameters.turns):
        _end_round(state)
    return after


def _failed(state: State, parameters: Parameters) -> None:
    """Dampen more; after TRIALS of it let the other turn of an alternation try, then end the round."""
    state.damping, state.stuck = min(DAMPING[1], state.damping * 10), state.stuck + 1
    if state.stuck % TRIALS == 0:
        state.turn, state.damping = state.turn + 1, BEGIN
    if state.stuck == TRIALS * parameters.turns:
        _end_round(state)


def _end_round(state: State) -> None:
    """After the first round all pairs are measured anew, where the numbers now stand; the second is the last."""
    if state.round:
        state.finished = True
        return
    state.round, state.to_measure, state.in_round, state.stuck, state.damping = 1, EVERY, 0, 0, BEGIN
    state.memory = {name: state.memory[name] for name in ("held_out", "prior") if name in state.memory}


def damped(jacobian: Tensor, miss: Tensor, moving: Tensor, damping: float, pull: Tensor | None = None,
           off: Tensor | None = None) -> Tensor:
    """The damped Gauss-Newton step (free numbers,) for the mean of the images' RMSE and penalty(pull, off)."""
    columns = jacobian[:, moving].transpose(0, 1)                                          # (k, n, d)
    weighed = (columns * image_weights(miss)[None, :, None]).flatten(1)
    normal = (weighed @ columns.flatten(1).T).double()
    slope = (weighed @ miss.flatten()).double()
    scale = normal.diagonal().clamp(min=1e-12)
    if pull is not None:
        normal, slope = normal + torch.diag(pull[moving].double()), slope + (pull * off)[moving].double()
    step = torch.zeros(len(moving))
    step[moving] = -torch.linalg.solve(normal + damping * torch.diag(scale), slope).float()
    return step / step.abs().max().clamp(min=1.0)           # a longer one leaves what the Jacobian knows


def image_weights(miss: Tensor) -> Tensor:
    """Each image weighs 1 / its own RMSE (n,), so that a few hopeless seeds do not drown the rest."""
    return 1 / (miss.square().mean(1).sqrt().clamp(min=1e-6) * miss.shape[1] * len(miss))


def curvature(jacobian: Tensor, miss: Tensor) -> Tensor:
    """The diagonal (free numbers,) of the weighted normal matrix."""
    return torch.einsum("nk,n->k", jacobian.square().sum(2), image_weights(miss))


def penalty(pull: Tensor, off: Tensor) -> float:
    """What it costs to be this far from the prior: numbers that another model's training ended at."""
    return float((pull * off.square()).sum()) / 2


def _miss(source: Source, parameters: Parameters, vector: Tensor, used: Pairs) -> Tensor | None:
    """Where these numbers miss the targets, or None where they make no valid table or no picture."""
    try:
        miss = sketch(ends(source, parameters.frozen(vector), used) - used.target)
    except ValueError:
        return None
    return miss if bool(torch.isfinite(miss).all()) else None


def _mean_rmse(miss: Tensor) -> float:
    return float(miss.square().mean(1).sqrt().mean())


def _validate(source: Source, parameters: Parameters, held_out: Pairs, state: State, loss: float) -> None:
    """Keep the present numbers as the best, unless the held-out pairs are clearly against it.

    There are few of them, and one hard seed among them outweighs a step's gain: what counts is whether they got
    worse by more than the standard error of the paired difference.
    """
    found = torch.from_numpy(errors(ends(source, parameters.frozen(state.vector), held_out), held_out.target))
    known = state.memory.get("held_out")
    if known is None or float((found - known).mean()) <= float((found - known).std()) / len(found) ** 0.5:
        state.best, state.best_error = state.vector.clone(), float(found.mean())
        state.memory["held_out"] = found
    state.curve = [*state.curve, [state.iteration, loss, float(found.mean()), source.model_calls]]
