"""GITS: the levels between which straight steps deviate least from the teacher's path, found by dynamic programming.

Chen et al. (2024), arXiv 2405.11326, "On the Trajectory Regularity of ODE-based Diffusion Sampling". Paths of all
seeds bend alike, so a few show where steps may be long.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import sample
from ..source import Source
from ..teacher.pairs import known_pairs
from ..teacher.solvers import teacher_table

SEEDS, POINTS = 16, 60      # paths, and the calls each takes
LATER = 1.15                # weight of later deviations, the paper's for images


def gits(source: Source, steps: int) -> np.ndarray:
    """Levels (steps+1,) among those of a fine solver, its first and last included; costs SEEDS x POINTS calls.

    Raises ValueError for more steps than the fine solver has.
    """
    table = teacher_table(source, "auto", POINTS)
    if steps > table.calls:
        raise ValueError(f"{steps} steps asked for: GITS chooses among {table.calls}")
    with torch.no_grad():
        costs = deviations(source, table)
    return np.append(source.sigma_max, table.sigmas[cheapest(costs, steps, LATER)[1:]])


def deviations(source: Source, table) -> np.ndarray:
    """cost[i, j]: how much farther a straight step from level i to level j ends from the chord than the path does."""
    pairs, states, known = known_pairs(source, range(SEEDS), None), [], []

    def on_call(i, x, row, denoised):
        states.append(x)
        known.append(denoised)
    end = sample(source.denoiser, pairs.start(float(table.sigmas[0]), source.flow), table, pairs.extra, on_call)
    path = torch.stack([*states, end]).flatten(2)                                           # (levels, seeds, numbers)
    away, costs = _distances(path, path), np.full((len(path), len(path)), np.inf)
    for i, sigma in enumerate(table.sigmas[:-1]):
        slope = (path[i] - known[i].flatten(1)) / sigma
        moves = torch.as_tensor(table.sigmas[i + 1:] - sigma).to(path)[:, None, None]
        costs[i, i + 1:] = _distances(path[i] + moves * slope, path) - away[i + 1:]
    return costs


def _distances(points: Tensor, path: Tensor) -> np.ndarray:
    """Of points (n, seeds, numbers) from each path's chord, the mean over seeds (n,)."""
    chord = path[-1] - path[0]
    chord = chord / chord.norm(dim=-1, keepdim=True)
    back = path[-1] - points
    return (back - (back * chord).sum(-1, keepdim=True) * chord).norm(dim=-1).mean(1).double().cpu().numpy()


def cheapest(costs: np.ndarray, steps: int, later: float) -> list[int]:
    """The indices (steps+1,) of the path from the first to the last index with the least cost[a, b] + later (rest)."""
    best, onward = costs[:, -1].copy(), []
    for _ in range(steps - 1):
        through = costs + later * best[None, :]
        onward.append(through.argmin(1))
        best = through.min(1)
    path = [0]
    for choice in reversed(onward):
        path.append(int(choice[path[-1]]))
    return [*path, len(costs) - 1]
