"""DyWeight (arXiv 2603.11607): weights whose sums are the step sizes. Its files carry no licence to redistribute.

    d_i = (x_i - D(x_i; s_i t_i)) / t_i
    x_i+1 = x_i + (g_i+1 - t_i) sum_j w_ij d_j
    t_i+1 = t_i + (g_i+1 - t_i) sum_j w_ij

g is a fixed grid, t the level the state is at. On pixels and LSUN the first direction is analytic.
"""

from __future__ import annotations

import numpy as np

from ..core import Model, Table, schedules
from . import grids, models
from .limits import MAX_CALLS, shown
from .lower import Run
from .restricted import UnreadableFile, array

SOURCE = "DyWeight, arXiv 2603.11607; github.com/Westlake-AGI-Lab/DyWeight"
_FLUX_SHIFT = np.exp(0.63)              # Flux's own at 512 x 512, where the tables were learned (1,024 tokens)


def table(weights, scales, grid, flow: bool, analytic_first: bool = False) -> Table:
    """The table of a VE sampler or of a rectified flow; weights (N, N), grid (N+1,), one scale per network call.

    A flow's network gives the slope itself: (x - D) / (level asked for).
    """
    run, slopes, level = Run(grid[0], len(scales)), [], float(grid[0])
    x, scales = run.start, iter(scales)
    for i, after in enumerate(grid[1:]):
        if analytic_first and i == 0:
            slopes.append(x / np.sqrt(1 + level ** 2))
        else:
            asked = next(scales) * level if flow else abs(next(scales) * level)
            by = asked if flow else level + 1e-8                                # the authors' guard against 0
            slopes.append((x - run.call(x, asked, level)) / by)
        x = x + (after - level) * sum(float(w) * d for w, d in zip(weights[i], slopes))
        level = level + (after - level) * float(np.sum(weights[i][:i + 1]))
    return run.finish(x)


def fits(content) -> bool:
    """Whether a file's content is one of DyWeight's."""
    return isinstance(content, dict) and ("dyweight_weights_raw" in content
                                          or grids.class_of(content.get("predictor")) == "DyWeight_predictor")


def read(content: dict, model: Model | None) -> tuple[Table, Model, dict]:
    """(table, model, record) of a file's content."""
    if "dyweight_weights_raw" in content:
        return _read_flow(content, model or models.FLUX)
    return _read_exploding(grids.state_of(content["predictor"]), grids.state_of(content.get("loss_fn")), model)


def _read_flow(content: dict, model: Model) -> tuple[Table, Model, dict]:
    weights, scales = (array(content.get(f"dyweight_{key}")) for key in ("weights_raw", "t_scales"))
    steps = 0 if weights is None else len(weights)
    _check(weights, scales, steps, steps)
    window = content.get("window_size")
    window = window if type(window) is int and 0 < window < steps else steps
    band = np.tril(np.triu(np.ones_like(weights), 1 - window))
    learned = table(weights * band, scales, schedules.linear_flow(steps, _FLUX_SHIFT), flow=True)
    return learned, model, {"grid": "Flux's at 512 x 512", "teacher": "euler, 28 calls"}


def _read_exploding(state: dict, loss: dict, model: Model | None) -> tuple[Table, Model, dict]:
    dataset = state.get("dataset_name") or loss.get("dataset_name")
    model = model or models.model_for(dataset)
    weights, scales, mask = (array(state.get(group, {}).get(key)) for group, key in (
        ("_parameters", "hybrid_weights"), ("_parameters", "t_scale"), ("_buffers", "mask")))
    steps, analytic = state["num_steps"] - 1, bool(state.get("afs"))
    if type(steps) is not int or not 0 < steps <= MAX_CALLS:
        raise UnreadableFile(f"has {shown(steps)} steps: expected 1 to {MAX_CALLS}")
    scales = np.ones(steps - analytic) if scales is None else scales
    _check(weights, scales, steps, steps - analytic)
    if mask is not None and mask.shape != weights.shape:
        raise UnreadableFile(f"holds a mask of shape {mask.shape} for weights of shape {weights.shape}")
    grid = grids.of(loss, steps + 1, model)
    learned = table(weights if mask is None else weights * mask, scales, grid, False, analytic)
    return learned, model, grids.record_of(state, dataset)


def _check(weights, scales, steps: int, calls: int) -> None:
    shapes = [None if each is None else each.shape for each in (weights, scales)]
    if shapes != [(steps, steps), (calls,)] or not 1 <= calls <= MAX_CALLS:
        raise UnreadableFile(f"holds weights of shape {shapes[0]} and time scales of shape {shapes[1]}: {steps} steps "
                             f"and {calls} calls need ({steps}, {steps}) and ({calls},)")
