"""Learning on a budget: Gauss-Newton that measures every pair's Jacobian once and keeps it up to date by secants.

With few pairs a table learns the pairs; with many, measuring their Jacobians (tens of network calls a pair) eats the
budget. So pairs join in blocks while the numbers already improve: a block is measured where the numbers then stand,
and from then on each step corrects its Jacobian along the way it went (Broyden 1965), at no further call. Steps are
damped (Marquardt 1963); the damping is searched anew each time, since a trial costs one run only.
"""

from __future__ import annotations

import math
from typing import Callable

import torch
from torch import Tensor

from .denoisers import Source
from .loop import State
from .pairs import Pairs, ends, errors
from .parameters import Parameters
from .tangents import calls_per_image, measured, sketch

BLOCK = 8                   # pairs measured at a time, then saved
MORE = 2                    # pairs that join before a round of steps, for each known; State has those of the first
STEPS = 3                   # most steps of a round
TRIED = 16                  # newest pairs that choose a step's damping
ENOUGH = 0.02               # share of the loss a step must win for another one to follow in its round
DAMPING = (1e-2, 1e2)       # less learns the pairs by heart
TRIALS = 4                  # dampings tried for one step


def learn_sparingly(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: State,
                    on_progress: Callable | None = None) -> State:
    """Carry the state on until its budget is spent or nothing helps any more; as `loop.learn` otherwise.

    state.spent counts all network calls of the table; the next piece of work begins only if it surely fits.
    """
    if not state.curve:
        _validate(source, parameters, held_out, state, math.nan)
    while not state.finished and state.iteration < (config.iterations or math.inf):
        before, loss, steps = source.model_calls, math.nan, state.iteration
        if _may_measure(parameters, pairs, held_out, config, state):
            state.memory = _with_block(source, parameters, state, pairs)
        elif step_calls(parameters, len(state.memory.get("miss", ())), held_out) <= config.budget - state.spent:
            stuck = state.to_measure > 0            # no pair can join any more: the last of the budget is for steps
            loss = _step(source, parameters.at(state.turn), pairs, held_out, state)
            state.turn, state.stuck = state.turn + 1, state.stuck + 1 if stuck and state.iteration == steps else 0
            state.finished = state.stuck >= parameters.turns
        else:
            state.finished = True
        state.spent += source.model_calls - before
        if on_progress is not None:
            on_progress(state, loss, True)
    return state


def _may_measure(parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: State) -> bool:
    """Whether a round still lacks pairs, there are some, and the budget allows one more block and a step."""
    known = len(state.memory.get("miss", ()))
    new = min(BLOCK, len(pairs) - known)
    cost = new * calls_per_image(parameters, state.vector) + step_calls(parameters, known + new, held_out)
    return state.to_measure > 0 and new > 0 and cost <= config.budget - state.spent


def step_calls(parameters: Parameters, known: int, held_out: Pairs) -> int:
    """The most network calls of one step: its trials and its validation."""
    return parameters.calls * (TRIALS * min(TRIED, known) + known + len(held_out))


@torch.no_grad()
def _with_block(source: Source, parameters: Parameters, state: State, pairs: Pairs) -> dict:
    """The memory with the next block of pairs measured at the present numbers."""
    known = len(state.memory.get("miss", ()))
    part = pairs.part(slice(known, known + BLOCK))
    miss, jacobian = measured(source, parameters, state.vector, part)
    state.to_measure -= len(part)
    old = state.memory if known else {"miss": miss[:0], "jacobian": jacobian[:0]}
    return {**state.memory, "miss": torch.cat([old["miss"], miss]),
            "jacobian": torch.cat([old["jacobian"], jacobian])}


def _step(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, state: State) -> float:
    """Take the best of a few damped steps, if it helps, and correct the Jacobian; the loss then."""
    miss, jacobian = state.memory["miss"], state.memory["jacobian"]
    loss, found = _mean_rmse(miss), _search(source, parameters, pairs, state)
    there = None if found is None else _miss(source, parameters, state.vector + found[0].double(),
                                             pairs.part(slice(0, len(miss))))
    after = math.inf if there is None else _mean_rmse(there)
    if not after < loss:
        state.damping, state.to_measure, state.in_round = min(DAMPING[1], state.damping * 10), MORE * len(miss), 0
        return loss
    step, state.damping = found
    wrong = there - miss - torch.einsum("nkd,k->nd", jacobian, step)
    jacobian = jacobian + torch.einsum("k,nd->nkd", step / step.square().sum(), wrong)
    state.memory |= {"miss": there, "jacobian": jacobian}
    state.vector = state.average = state.vector + step.double()
    state.iteration, state.in_round = state.iteration + 1, state.in_round + 1
    if loss - after < ENOUGH * loss or state.in_round == STEPS:
        state.to_measure, state.in_round = MORE * len(miss), 0
    _validate(source, parameters, held_out, state, after)
    return after


def _search(source: Source, parameters: Parameters, pairs: Pairs, state: State) -> tuple[Tensor, float] | None:
    """(step, its damping), the best on the newest pairs: damping rises while nothing helps, falls while it does."""
    miss, known = state.memory["miss"], len(state.memory["miss"])
    newest = slice(max(0, known - TRIED), known)
    best, least, damping = None, _mean_rmse(miss[newest]), state.damping
    for _ in range(TRIALS):
        step = damped(state.memory["jacobian"], miss, parameters.moving().bool(), damping)
        there = _miss(source, parameters, state.vector + step.double(), pairs.part(newest))
        after = math.inf if there is None else _mean_rmse(there)
        if after < least * (1 - 1e-4):
            won, least, best = least - after, after, (step, damping)
            if won < ENOUGH * least or damping / 10 < DAMPING[0]:
                break
            damping /= 10
        elif best is not None or damping * 10 > DAMPING[1]:
            break
        else:
            damping *= 10
    return best


def damped(jacobian: Tensor, miss: Tensor, moving: Tensor, damping: float) -> Tensor:
    """The damped Gauss-Newton step (free numbers,) for the mean of the images' RMSE.

    Each image weighs 1 / its own RMSE, so that a few hopeless seeds do not drown the rest.
    """
    weight = 1 / (miss.square().mean(1).sqrt().clamp(min=1e-6) * miss.shape[1] * len(miss))
    columns = jacobian[:, moving].transpose(0, 1)                                          # (k, n, d)
    weighed = (columns * weight[None, :, None]).flatten(1)
    normal = (weighed @ columns.flatten(1).T).double()
    slope = (weighed @ miss.flatten()).double()
    scale = normal.diagonal().clamp(min=1e-12)
    step = torch.zeros(len(moving))
    step[moving] = -torch.linalg.solve(normal + damping * torch.diag(scale), slope).float()
    return step / step.abs().max().clamp(min=1.0)           # a longer one leaves what the Jacobian knows


def _miss(source: Source, parameters: Parameters, vector: Tensor, used: Pairs) -> Tensor | None:
    """Where these numbers miss the targets, or None where they make no valid table or no picture."""
    try:
        miss = sketch(ends(source, parameters.solver(vector), used) - used.target)
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
    found = torch.from_numpy(errors(ends(source, parameters.solver(state.vector), held_out), held_out.target))
    known = state.memory.get("held_out")
    if known is None or float((found - known).mean()) <= float((found - known).std()) / len(found) ** 0.5:
        state.best, state.best_error = state.vector.clone(), float(found.mean())
        state.memory["held_out"] = found
    state.curve = [*state.curve, [state.iteration, loss, float(found.mean()), source.model_calls]]
