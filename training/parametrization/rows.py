"""Updates over predictions and states lowered to rows: every state is a sum of x[0] and the host's answers D."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...s4s_nodes.core import TensorTable


def lowered(step: Callable, u: Tensor, v: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """(carry (N,), weights (N, N)) of x[i+1] = step(i, states, seen), linear in the states x[0..i] and in what was
    seen of them, u x + v D (clock.py; a host's denoiser: u = 0, v = 1). Of x[0] the last state keeps only `kept`."""
    unit = torch.eye(len(u) + 1, dtype=torch.float64)           # x[0], D[0], D[1], ...
    states, seen = [unit[0]], []
    for i in range(len(u)):
        seen.append(u[i] * states[i] + v[i] * unit[i + 1])
        states.append(step(i, states, seen))
    states = torch.stack(states)
    carry = torch.cat([states[1:-1, 0] / states[:-2, 0], (kept / states[-2, 0])[None]])
    return carry, states[1:, 1:] - carry[:, None] * states[:-1, 1:]


def data_step(carry: Tensor, weights: Tensor) -> Callable:
    """x' = carry x + sum_j weights[i, j] D[j], for `lowered`."""
    return lambda i, states, seen: carry[i] * states[i] + weights[i, :i + 1] @ torch.stack(seen)


def noise_step(slopes: Tensor, sigmas: Tensor) -> Callable:
    """x' = x + sum_j slopes[i, j] d[j], d = (x - D) / sigma: the noise, for a flow the velocity; for `lowered`."""
    weights = slopes / sigmas[:-1]
    return lambda i, states, seen: states[i] + weights[i, :i + 1] @ (torch.stack(states[:i + 1]) - torch.stack(seen))


def slopes_of(table: TensorTable) -> Tensor:
    """The slopes (N, N) with which `noise_step` is this table. It must keep constants in every row, as solvers do."""
    states = [torch.zeros_like(table.carry)]
    for carry, weights in zip(table.carry, table.weights):
        states.append(carry * states[-1] + weights)             # the shares of D; those of x[0] follow
    states = torch.stack(states)
    noises = (states[:-1] - torch.eye(len(table.carry)).double()) / table.sigmas[:-1, None]
    return torch.linalg.solve_triangular(noises, states[1:] - states[:-1], upper=False, left=False)
