"""Distances (student, target) -> (B,): how far a few calls end from where the teacher ends."""

from __future__ import annotations

from torch import Tensor


def rmse(student: Tensor, target: Tensor) -> Tensor:
    """Root mean square of each item's difference: large misses count once, not squared."""
    return mse(student, target).clamp(min=1e-12).sqrt()


def mse(student: Tensor, target: Tensor) -> Tensor:
    """Mean square of each item's difference."""
    return (student - target).flatten(1).square().mean(1)


def l1(student: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each item."""
    return (student - target).flatten(1).abs().mean(1)


OBJECTIVES = {"rmse": rmse, "mse": mse, "l1": l1}
