"""The sampling loop: hosts, trainer and tests all sample through it."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]        # (x, sigma (B,), **extra) -> denoised, k-diffusion's convention


def sample(denoiser: Denoiser, x: Tensor, table, extra: dict | None = None, on_call=None) -> Tensor:
    """Sample from noise with one network call per row of the table, and return the last state.

    Args:
        denoiser: (x (B, ...), sigma (B,), **extra) -> denoised (B, ...); sigma is at least float32.
        x (B, ...): noise with standard deviation table.sigmas[0], or a noised latent; it is never written to.
        table: a Table, or a TensorTable whose numbers carry gradients.
        extra: keyword arguments for every call of the denoiser.
        on_call: on_call(i, x, row, denoised) runs after every call; its result is ignored, its exceptions pass through.

    The result has the shape, dtype and device of x. Tables are float64 and are rounded once, when they are applied;
    sums use the dtype of the state. Differentiable in x, in the network and in a TensorTable's numbers: hosts call it
    under no_grad, trainers do not.
    """
    extra = extra or {}
    per_item = torch.ones(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    history: dict[int, Tensor] = {}
    for i, row in enumerate(table.rows):
        shown = x if isinstance(row.scale, float) and row.scale == 1.0 else x * row.scale
        history[i] = denoiser(shown, per_item * row.query, **extra)
        del shown                            # or the state would outlive its last use
        if on_call is not None:
            on_call(i, x, row, history[i])
        x = next_state(x, row, history)
        for call in row.done:
            del history[call]
    return x


def next_state(x: Tensor, row, history: dict[int, Tensor]) -> Tensor:
    """carry * x + the weighted predictions, in a new tensor of x's dtype."""
    if isinstance(row.carry, Tensor):       # 0-dim float64 weights keep their gradients and do not widen x's dtype
        total = x * row.carry.to(x)
        for call, weight in row.terms:
            total = total + history[call].to(x.dtype) * weight.to(x)
        return total
    if row.carry == 0.0 and row.terms:
        (call, weight), *terms = row.terms
        total = history[call].to(x.dtype) * weight
    else:
        total, terms = x * row.carry, row.terms
    for call, weight in terms:
        # in place on our own fresh tensor: one pass over memory a term, and autograd allows it
        total.add_(history[call], alpha=weight)
    return total
