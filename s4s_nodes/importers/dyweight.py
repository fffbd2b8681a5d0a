"""DyWeight (arXiv 2603.11607): weights whose sums are the step sizes. Its files carry no licence to redistribute.

    d_i = (x_i - D(x_i; s_i t_i)) / t_i
    x_i+1 = x_i + (g_i+1 - t_i) sum_j w_ij d_j
    t_i+1 = t_i + (g_i+1 - t_i) sum_j w_ij

g is a fixed grid, t the level the state is at. On pixels and LSUN the first direction is analytic.
"""

from __future__ import annotations

import numpy as np
import torch

from ..core import Model, Solver, schedule
from . import grids, models
from .lower import Run
from .restricted import Stub, UnreadableFile, array

SOURCE = "DyWeight, arXiv 2603.11607; github.com/Westlake-AGI-Lab/DyWeight"
_FLUX_SHIFT = np.exp(0.63)              # Flux's own at 512 x 512, where the tables were learned (1,024 tokens)


def exploding_table(weights, scales, grid, analytic_first: bool) -> Solver:
    """The table of a VE sampler; weights (N, N), grid (N+1,), one scale per network call."""
    run, slopes, level = Run(grid[0], len(scales)), [], float(grid[0])
    x, scales = run.start, iter(scales)
    for i, after in enumerate(grid[1:]):
        if analytic_first and i == 0:
            slopes.append(x / np.sqrt(1 + level ** 2))
        else:
            asked = abs(next(scales) * level)
            slopes.append((x - run.call(x, asked, level)) / (level + 1e-8))      # the authors' guard against 0
        x = x + (after - level) * _weighted(weights[i], slopes)
        level = level + (after - level) * float(np.sum(weights[i][:i + 1]))
    return run.finish(x)


def flow_table(weights, scales, grid) -> Solver:
    """The table of a rectified flow, whose network gives the slope v = (x - D) / (level asked for)."""
    run, slopes, level = Run(grid[0], len(scales)), [], float(grid[0])
    x = run.start
    for i, after in enumerate(grid[1:]):
        asked = scales[i] * level
        slopes.append((x - run.call(x, asked, level)) / asked)
        x = x + (after - level) * _weighted(weights[i], slopes)
        level = level + (after - level) * float(np.sum(weights[i][:i + 1]))
    return run.finish(x)


def _weighted(weights, slopes: list) -> torch.Tensor:
    return sum(float(w) * d for w, d in zip(weights, slopes))


def fits(content) -> bool:
    """Whether a file's content is one of DyWeight's."""
    return isinstance(content, dict) and ("dyweight_weights_raw" in content or _class(content) == "DyWeight_predictor")


def read(content: dict, model: Model | None) -> tuple[Solver, Model, dict]:
    """(table, model, record) of a file's content."""
    if "dyweight_weights_raw" in content:
        weights, scales = (array(content.get(f"dyweight_{key}")) for key in ("weights_raw", "t_scales"))
        _check(weights, scales, len(weights) if weights is not None else 0)
        grid = schedule.linear_flow(len(weights), _FLUX_SHIFT)
        band = np.tril(np.triu(np.ones_like(weights), 1 - int(content.get("window_size") or len(weights))))
        return (flow_table(weights * band, scales, grid), model or models.FLUX,
                {"grid": "Flux's at 512 x 512", "teacher": "euler, 28 calls"})
    state = state_of(content["predictor"])
    loss = state_of(content.get("loss_fn"))
    dataset = state.get("dataset_name") or loss.get("dataset_name")
    model = model or models.named(dataset)
    weights, scales = array(state["_parameters"].get("hybrid_weights")), array(state["_parameters"].get("t_scale"))
    steps, analytic = state.get("num_steps"), bool(state.get("afs"))
    calls = steps - 1 - analytic
    scales = np.ones(calls) if scales is None else scales
    mask = array(state.get("_buffers", {}).get("mask"))
    _check(weights, scales, steps - 1, calls)
    grid = grids.of(loss, steps, model)
    table = exploding_table(weights * (1 if mask is None else mask), scales, grid, analytic)
    return table, model, record_of(state, dataset, analytic)


def record_of(state: dict, dataset, analytic: bool) -> dict:
    """What a diff-sampler predictor says of how it was learned."""
    record = {"learned_on": str(dataset)[:60], "analytic_first_step": analytic}
    if isinstance(state.get("guidance_rate"), float) and state["guidance_rate"] > 1:
        record["cfg"] = state["guidance_rate"]
    return record


def state_of(value) -> dict:
    """The attributes of an object that was saved together with its source (NVIDIA's `persistence`)."""
    if isinstance(value, Stub) and value.what.endswith("persistence._reconstruct_persistent_obj") and value.args:
        meta = value.args[0]
        if isinstance(meta, dict) and isinstance(meta.get("state"), dict):
            return meta["state"]
    return {}


def _class(content: dict) -> str | None:
    value = content.get("predictor")
    meta = value.args[0] if isinstance(value, Stub) and value.args else None
    return meta.get("class_name") if isinstance(meta, dict) else None


def _check(weights, scales, steps: int, calls: int | None = None) -> None:
    calls = steps if calls is None else calls
    if weights is None or scales is None or weights.shape != (steps, steps) or scales.shape != (calls,) or calls < 1:
        raise UnreadableFile(f"holds weights of shape {getattr(weights, 'shape', None)} and "
                             f"{getattr(scales, 'shape', None)} time scales: {steps} steps and {calls} calls need "
                             f"({steps}, {steps}) and ({calls},)")
