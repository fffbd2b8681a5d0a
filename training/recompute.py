"""Back-propagation through a network with the memory of one call: it runs again in the backward pass.

`torch.utils.checkpoint` gives wrong gradients for networks that add in place into tensors autograd has saved (Flux,
Wan and others do), silently. Here PyTorch keeps copies, in the second run, of what is about to be overwritten.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def recomputed(network: Callable, on_again: Callable | None = None) -> Callable:
    """The network (x, sigma (B,), **extra) -> (B, ...), keeping only x and sigma for its backward pass.

    Differentiable in x and sigma; the network itself must be deterministic. on_again(images) is called for every
    second run.
    """
    def wrapped(x: Tensor, sigma: Tensor, **extra) -> Tensor:
        if not (torch.is_grad_enabled() and (x.requires_grad or sigma.requires_grad)):
            return network(x, sigma, **extra)
        return _Recomputed.apply(network, extra, on_again, x, sigma)
    return wrapped


class _Recomputed(torch.autograd.Function):

    @staticmethod
    def forward(ctx, network, extra, on_again, x, sigma):
        ctx.network, ctx.extra, ctx.on_again = network, extra, on_again
        ctx.save_for_backward(x, sigma)
        return network(x, sigma, **extra)

    @staticmethod
    def backward(ctx, slope):
        if ctx.on_again is not None:
            ctx.on_again(len(slope))
        return (None, None, None,
                *slopes_through(ctx.network, ctx.extra, ctx.saved_tensors, ctx.needs_input_grad[3:], slope))


def slopes_through(network: Callable, extra: dict, arguments, needed, slope: Tensor) -> list:
    """The network run again at its arguments (x, sigma), and the gradients in those that are needed, None elsewhere.

    The slope goes through at size one and the gradients are scaled back, by a power of two and so without rounding:
    that of a mean over a picture's numbers (1e-6) would be lost in a network that computes in fp16.
    """
    leaves = [tensor.detach().requires_grad_(wanted) for tensor, wanted in zip(arguments, needed)]
    with torch.enable_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
        # clones, because a network may write into its arguments, and autograd forbids that for leaves
        answer = network(*(tensor.clone() for tensor in leaves), **extra)
        wanted = [tensor for tensor in leaves if tensor.requires_grad]
        scale = _to_size_one(slope)
        slopes = torch.autograd.grad(answer, wanted, slope * scale, allow_unused=True)
    slopes = [None if gradient is None else gradient / scale for gradient in slopes]
    return [slopes.pop(0) if tensor.requires_grad else None for tensor in leaves]


def _to_size_one(slope: Tensor) -> float:
    """The power of two that brings the largest number into 1..2; 1 where there is none, or it is not finite."""
    largest = float(slope.abs().max()) if slope.numel() else 0.0
    return 2.0 ** -math.floor(math.log2(largest)) if 0 < largest < math.inf else 1.0
