"""Finite differences of a network: how far from a state to ask, and at which points."""

from __future__ import annotations

import math

import torch
from torch import Tensor

NUDGE = 1e-2                # length of a finite difference: as a share of the state, and of a level's logarithm
WIDEST = 0.4                # where the network's answers are noisy


def nudge_for(noise: float) -> float:
    """The finite difference for a network whose answers carry relative noise.

    A difference over a step h is off by noise / h, and by the curvature times h: the best h is near the root.
    """
    return min(max(2 * math.sqrt(noise), NUDGE), WIDEST)


def design(count: int, noisy: bool) -> Tensor:
    """Points (p, count) around a state at which to ask for its derivatives along so many directions, all 1 away.

    One on each axis, which take the state's own answer with them; or, where answers are noisy, the corners of a regular
    simplex (Box 1952): one more, without that answer, so that its noise is not taken for a derivative.
    """
    if not (noisy and count):
        return torch.eye(count, dtype=torch.float64)
    corners = torch.arange(count + 1, dtype=torch.float64)[:, None] + 0.5
    return (torch.pi / (count + 1) * corners * torch.arange(1, count + 1)).cos() * math.sqrt(2 / count)
