"""The sampling loop: hosts, trainer and tests all sample through it."""

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]        # (x, sigma (B,), **extra) -> denoised, k-diffusion's convention


def sample(denoiser: Denoiser, x: Tensor, table, extra: dict | None = None, on_call=None) -> Tensor:
    """Sample from noise with one network call per row of the table, and return the last state.

    x (B, ...): noise with standard deviation table.sigmas[0], or a noised latent; it is never written to, and the
    result has its shape, dtype and device. table: a Table, or a TensorTable whose numbers carry gradients. The
    denoiser gets the noise level as a (B,) vector, at least float32. on_call(i, x, row, denoised) runs after every
    call; its result is ignored, its exceptions pass through.

    Tables are float64 and are rounded once, when they are applied; sums use the dtype of the state.
    Differentiable in x, in the network and in a TensorTable's numbers: hosts call it under no_grad, trainers not.
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
