"""The only loop: hosts, trainer and tests all sample through it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Denoiser = Callable[..., Tensor]        # (x, sigma (B,), **extra) -> denoised, k-diffusion's convention


def sample(denoiser: Denoiser, x: Tensor, table, extra: dict | None = None, on_call=None,
           first: int = 0, known: dict[int, Tensor] | None = None) -> Tensor:
    """Carry noise down the table's levels, one network call per row, and return the state after the last row.

    x is (B, ...) of any rank: noise of deviation table.sigmas[0], or a noised latent; the result has its
    shape, dtype and device, and x itself is never written to. table is a Table, or a TensorTable whose
    numbers carry gradients. The denoiser gets the noise level as a (B,) vector, float32 at least.
    on_call(i, x, row, denoised) is told of every call; what it returns is ignored, what it raises passes.
    To go on from the middle of a run, first names the row x stands at and known holds the predictions made so
    far, by call; one that is known is not asked for again.

    Tables are float64 and are rounded once, where they meet the state; sums are made in the state's dtype.
    Differentiable in x, in the network and in a TensorTable's numbers: hosts call it under no_grad, trainers not.
    """
    extra = extra or {}
    per_item = torch.ones(len(x), dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)
    history = dict(known or {})
    for i, row in enumerate(table.rows[first:], first):
        if i not in history:
            shown = x if isinstance(row.scale, float) and row.scale == 1.0 else x * row.scale
            history[i] = denoiser(shown, per_item * row.query, **extra)
            del shown                        # or the state would outlive its last use
            if on_call is not None:
                on_call(i, x, row, history[i])
        x = _next_state(x, row, history)
        for call in row.done:
            del history[call]
    return x


def _next_state(x: Tensor, row, history: dict[int, Tensor]) -> Tensor:
    """carry * x + the weighted predictions, in a new tensor of x's dtype."""
    if isinstance(row.carry, Tensor):
        return _weighted_sum_of_tensors(x, row, history)
    if row.carry == 0.0 and row.terms:
        (call, weight), *terms = row.terms
        total = history[call].to(x.dtype) * weight
    else:
        total, terms = x * row.carry, row.terms
    for call, weight in terms:
        # in place on our own fresh tensor: one pass over memory a term, and autograd allows it
        total.add_(history[call], alpha=weight)
    return total


def _weighted_sum_of_tensors(x: Tensor, row, history: dict[int, Tensor]) -> Tensor:
    """The same with 0-dim float64 weights: they keep their gradients and do not widen the state's dtype."""
    total = x * row.carry.to(x)
    for call, weight in row.terms:
        total = total + history[call].to(x.dtype) * weight.to(x)
    return total
