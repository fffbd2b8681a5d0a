"""The learning loop: Adam on a table's free numbers, through the sampler, against cached targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..parametrization.parameters import TURNS, Parameters
from ..source import Source
from ..teacher.pairs import Pairs, ends, errors
from .objective import distances, objective_of, rmse
from .relaxed import trust_region
from .state import AdamState

WARM_UP = 0.05              # share of the iterations in which the rate rises
FLOOR = 0.01                # of the rate, at the end
MOST_SETBACKS = 5           # returns to the best state before a run is given up


def learn(source: Source, parameters: Parameters, pairs: Pairs, held_out: Pairs, config, state: AdamState,
          on_progress: Callable | None = None) -> AdamState:
    """Carry the state on to config.iterations and return it; on_progress(state, loss, checked) after each.

    The state is replaced only by whole iterations, so that stopping at any time (an exception out of the
    network or out of on_progress) leaves it consistent. Validation runs every config.gradient.every iterations, and at
    the start: the best state is never worse than the initial table on the held-out pairs.
    """
    objective = objective_of(config.gradient.objective, source)
    region = trust_region(source, parameters, pairs, objective, config.gradient.relaxed)
    if state.iteration == 0 and not state.curve:
        validate(source, parameters, held_out, state, math.nan, objective)
    while state.iteration < config.iterations:
        moving = turned(parameters, state, config).moving()
        places = batch_indices(len(pairs), config.gradient.batch, config.data.seed, state.iteration)
        try:
            if region is None:
                loss, gradient = loss_and_gradient(source, parameters, state.vector, pairs.part(places), objective)
            else:
                loss, gradient, offer = region.loss_gradient_offer(state.vector, state.memory, places)
            if not (math.isfinite(loss) and bool(torch.isfinite(gradient).all())):
                set_back(state)
                continue
            ahead = replace(state)
            step(ahead, parameters, gradient * moving, config)
            if region is not None:
                ahead.memory = region.kept(ahead.vector, state.memory, offer)
        except (RuntimeError, MemoryError) as error:
            if not source.halve(error, len(places)):    # the backward pass of a part needs more than its forward pass
                raise
            continue
        ahead.losses = [*state.losses, loss]
        checked = ahead.iteration % config.gradient.every == 0 or ahead.iteration == config.iterations
        if checked:
            validate(source, parameters, held_out, ahead, sum(ahead.losses) / len(ahead.losses), objective)
            ahead.losses = []
        vars(state).update(vars(ahead))             # now: one that is stopped in its validation is made again, whole
        if on_progress is not None:
            on_progress(state, loss, checked)
    return state


def turned(parameters: Parameters, state: AdamState, config) -> Parameters:
    """What this iteration may move: of an alternation one half, in config.gradient.rounds turns each.

    A new turn resets the moments; otherwise the resting half would keep moving.
    """
    turns = len(TURNS) * config.gradient.rounds
    turn = state.iteration * turns // max(turns, config.iterations)
    if parameters.learn == "alternate" and turn != state.turn:
        state.turn = turn
        state.moment1, state.moment2 = torch.zeros_like(state.vector), torch.zeros_like(state.vector)
    return parameters.at(turn)


def batch_indices(count: int, size: int, seed: int, iteration: int) -> list:
    """The pairs of one iteration: a new shuffle every pass, computable from the iteration alone (for resuming)."""
    size = min(size, count)
    per_pass = count // size
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 1_000_003 + iteration // per_pass))
    start = iteration % per_pass * size
    return order[start:start + size].tolist()


def loss_and_gradient(source: Source, parameters: Parameters, vector: Tensor, batch: Pairs, objective):
    """Mean objective of a batch and its gradient in the free numbers, by back-propagation through the sampler."""
    free = vector.detach().requires_grad_()
    with torch.enable_grad():
        loss = distances(source, parameters, free, batch, objective).mean()
    gradient, = torch.autograd.grad(loss, free)
    return float(loss.detach()), gradient


def step(state: AdamState, parameters: Parameters, gradient: Tensor, config) -> None:
    """One Adam step (Kingma and Ba 2015) on the clipped gradient, and the moving average after it."""
    norm = float(gradient.norm())
    gradient = gradient * min(1.0, config.gradient.clip / (norm + 1e-12))
    optimiser, vector = adam(state, rate_at(state.iteration, config) * state.rate_factor)
    vector.grad = gradient
    optimiser.step()
    kept = optimiser.state[vector]
    state.vector = parameters.bounded(vector.detach())
    state.moment1, state.moment2 = kept["exp_avg"].detach(), kept["exp_avg_sq"].detach()
    state.iteration += 1
    decay = min(config.gradient.average, state.iteration / (state.iteration + 10))
    state.average = decay * state.average + (1 - decay) * state.vector


def adam(state: AdamState, rate: float):
    """torch's Adam at this state."""
    vector = state.vector.clone().requires_grad_()
    optimiser = torch.optim.Adam([vector], lr=rate, betas=(0.9, 0.99))
    optimiser.state[vector] = {"step": torch.tensor(float(state.iteration)), "exp_avg": state.moment1.clone(),
                               "exp_avg_sq": state.moment2.clone()}
    return optimiser, vector


def rate_at(iteration: int, config) -> float:
    """Linear warm-up, then a cosine down to FLOOR of the rate."""
    warm = max(1, int(WARM_UP * config.iterations))
    if iteration < warm:
        return config.gradient.rate * (iteration + 1) / warm
    share = (iteration - warm) / max(1, config.iterations - warm)
    return config.gradient.rate * (FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * share)) / 2)


def validate(source: Source, parameters: Parameters, held_out: Pairs, state: AdamState, loss: float,
             objective: Callable = rmse) -> None:
    """Measure the averaged numbers on the held-out pairs; keep them if the objective was never lower."""
    found = held_out_ends(source, parameters, held_out, state.average)
    off = errors(found, held_out.target) if found is not None else np.full(1, math.inf)
    error, median = _finite(off.mean()), _finite(np.median(off))
    score = error if objective is rmse or error == math.inf else _finite(mean_objective(objective, found, held_out))
    if score < (state.best_error if objective is rmse else state.best_score):
        state.best, state.best_error, state.best_median, state.best_score = state.average.clone(), error, median, score
    state.curve = [*state.curve, [state.iteration, loss, error, source.all_calls]]


def mean_error(source: Source, parameters: Parameters, pairs: Pairs, vector: Tensor, batch: int = 64) -> float:
    """Mean over the pairs of each image's RMSE; infinite where the numbers make no valid table or no picture."""
    found = held_out_ends(source, parameters, pairs, vector, batch)
    return math.inf if found is None else _finite(errors(found, pairs.target).mean())


def held_out_ends(source: Source, parameters: Parameters, pairs: Pairs, vector: Tensor, batch: int = 64):
    """Where these numbers carry the pairs' starts (n, ...); None where they make no valid table."""
    try:
        table = parameters.frozen(vector)
    except ValueError:
        return None
    return ends(source, table, pairs, batch)


@torch.no_grad()
def mean_objective(objective: Callable, found: Tensor, pairs: Pairs, batch: int = 16) -> float:
    """Mean objective of ends (n, ...), a few images at a time."""
    parts = [slice(i, i + batch) for i in range(0, len(pairs), batch)]
    return float(torch.cat([objective(found[part], pairs.target[part]) for part in parts]).mean())


def _finite(error) -> float:
    return float(error) if math.isfinite(error) else math.inf


def set_back(state: AdamState) -> None:
    """Return to the best state with half the rate. Raises RuntimeError when that keeps happening."""
    if state.setbacks >= MOST_SETBACKS:
        raise RuntimeError(f"the loss was not finite {MOST_SETBACKS + 1} times, even at "
                           f"{state.rate_factor:g} of the rate: the model may answer NaN; the best so far is kept")
    state.vector, state.average = state.best.clone(), state.best.clone()
    state.moment1, state.moment2 = torch.zeros_like(state.vector), torch.zeros_like(state.vector)
    state.rate_factor, state.setbacks = state.rate_factor / 2, state.setbacks + 1
