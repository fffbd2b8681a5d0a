"""EPD-Solver (arXiv 2507.14797, 2512.22796): parallel middle points. Its files carry no licence to redistribute.

    d = (x - D(x; t)) / t,  m_k = t'^r_k t^(1 - r_k),  x_k = x + (m_k - t) d,  d_k = (x_k - D(x_k; a_k m_k)) / m_k
    x' = x + (t' - t) sum_k w_k o_k d_k

Every middle point is a row of its own: one step of two points costs three calls, whatever runs in parallel. The
plug-in for iPNDM replaces d in x_k by Adams-Bashforth's mean of the last ones. On pixels the first d is analytic.
"""

from __future__ import annotations

import numpy as np

from ..core import Model, Table
from . import grids, models
from .limits import MAX_CALLS, shown
from .lower import ADAMS_BASHFORTH, Run
from .restricted import UnreadableFile, array

SOURCE = "EPD-Solver, arXiv 2507.14797 and 2512.22796; github.com/BeierZhu/EPD"


def table(ratios, shares, directions, times, grid, analytic_first: bool, order: int = 1) -> Table:
    """The table of (N, K) middle points: their places r, weights w, direction scales o and time scales a."""
    steps, points = ratios.shape
    run, past = Run(grid[0], steps * (points + 1) - analytic_first), []
    x = run.start
    for i, (level, after) in enumerate(zip(grid[:-1], grid[1:])):
        slope = x / np.sqrt(1 + level ** 2) if analytic_first and i == 0 else (x - run.call(x, level)) / level
        past = [slope, *past][:order]
        towards = sum(weight * d for weight, d in zip(ADAMS_BASHFORTH[len(past)], past))
        middles = after ** ratios[i] * level ** (1 - ratios[i])
        total = 0
        for k in np.argsort(-middles):                       # falling, so that the rows' levels never rise
            there = x + (middles[k] - level) * towards
            answer = run.call(there, times[i, k] * middles[k], middles[k])
            total = total + shares[i, k] * directions[i, k] * (there - answer) / middles[k]
        x = x + (after - level) * total
    return run.finish(x)


def fits(content) -> bool:
    """Whether a file's content is one of EPD's."""
    return isinstance(content, dict) and grids.class_of(content.get("model")) == "EPD_predictor"


def read(content: dict, model: Model | None) -> tuple[Table, Model, dict]:
    """(table, model, record) of a file's content."""
    state, loss = grids.state_of(content["model"]), grids.state_of(content.get("loss_fn"))
    raw = {key: array(state.get("_parameters", {}).get(key))
           for key in ("r_params", "weight_s", "scale_dir_params", "scale_time_params")}
    shapes = {None if value is None else value.shape for value in raw.values()}
    points = state.get("num_steps")
    whole = len(shapes) == 1 and None not in shapes and type(points) is int and raw["r_params"].ndim == 2
    if not whole or len(raw["r_params"]) != points - 1:
        raise UnreadableFile(f"holds parameters of shapes {sorted(map(str, shapes))}: {shown(points, 20)} levels need "
                             "one row a step in each")
    if (calls := (points - 1) * (raw["r_params"].shape[1] + 1)) > MAX_CALLS:
        raise UnreadableFile(f"means {calls} calls: use at most {MAX_CALLS}")
    model, grid = _model_and_grid(state, loss, points, model)
    directions = _scaled(raw["scale_dir_params"], state.get("scale_dir"))
    if state.get("fcn"):
        directions[-1] = 1.0                                 # their "first-order at the end"
    analytic = bool(state.get("afs"))
    order = state.get("max_order") if state.get("sampler_stu") == "ipndm" else 1
    if type(order) is not int or order not in ADAMS_BASHFORTH:
        raise UnreadableFile(f"uses order {shown(order, 20)}: there are 1 to {len(ADAMS_BASHFORTH)}")
    learned = table(_sigmoid(raw["r_params"]), _softmax(raw["weight_s"]), directions,
                    _scaled(raw["scale_time_params"], state.get("scale_time")), grid, analytic, order)
    record = {**grids.record_of(state, state.get("dataset_name")), "steps": points - 1,
              "points_a_step": raw["r_params"].shape[1]}
    return learned, model, record


def _model_and_grid(state: dict, loss: dict, points: int, model: Model | None) -> tuple[Model, np.ndarray]:
    backend = state.get("backend")
    if backend == "flux":
        mu = state.get("flowmatch_mu")
        shift = float(np.exp(mu if isinstance(mu, float) and abs(mu) < 5 else 1.15))
        return model or models.FLUX, grids.diffusers_flow(points, shift)
    if backend == "sd3":        # diffusers shifts the lowest level once when it is built and once more on the grid
        return model or models.SD3, grids.diffusers_flow(points, 3.0, low=3 * 0.001 / (1 + 2 * 0.001))
    model = model or models.model_for(state.get("dataset_name"))
    return model, grids.of({**state, "t_steps": loss.get("t_steps")}, points, model)


def _scaled(raw, extent) -> np.ndarray:
    """1 within +-extent: 2 sigmoid(raw / 2) extent + 1 - extent; 1 where extent is 0."""
    if not isinstance(extent, (int, float)) or not 0 <= extent < 1:
        raise UnreadableFile(f"scales by up to {shown(extent, 20)}: use less than 1")
    return 2 * _sigmoid(raw / 2) * extent + 1 - extent


def _sigmoid(x) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))


def _softmax(x) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)
