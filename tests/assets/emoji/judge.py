"""Tells which class a latent shows: a linear map fitted to the latents of real emoji, so that a test can ask."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

FILE = Path(__file__).parent / "judge.safetensors"
RIDGE = 0.01                            # of the mean square of a latent's number


def fit(latents: Tensor, label: Tensor) -> dict[str, Tensor]:
    """Ridge regression of one-hot classes on latents (n, 16, 8, 8), each class weighing the same."""
    rows = with_one(latents)
    weighed = rows / label.bincount()[label][:, None]
    square = weighed.T @ rows
    damped = square + RIDGE * square.diagonal().mean() * torch.eye(len(square))
    return {"map": torch.linalg.solve(damped, weighed.T @ F.one_hot(label).float()).half().contiguous()}


def read(latents: Tensor, weights: dict[str, Tensor] | None = None) -> Tensor:
    """The class (n,) of latents (n, 16, 8, 8), by the weights given or those of the file."""
    weights = weights or load_file(FILE)
    return (with_one(latents) @ weights["map"].float()).argmax(1)


def with_one(latents: Tensor) -> Tensor:
    """Latents as rows, a one at their end."""
    return F.pad(latents.float().flatten(1), (0, 1), value=1.0)


def unseen(latents: Tensor, label: Tensor, seed: int = 0) -> float:
    """The share judged right of a quarter of the pictures, (n, variants, 16, 8, 8), by a fit to the rest."""
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    kept, tried = order[len(order) // 4:], order[:len(order) // 4]
    variants = latents.shape[1]
    weights = fit(latents[kept].flatten(0, 1), label[kept].repeat_interleave(variants))
    right = read(latents[tried].flatten(0, 1), weights) == label[tried].repeat_interleave(variants)
    return right.float().mean().item()
