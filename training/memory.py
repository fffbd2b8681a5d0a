"""How much memory a piece of work needs on top of what is held."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .source import Source


def of_a_call(source: Source, images: int = 1, backward: bool = False) -> int:
    """Peak bytes of one network call with this many images, with or without its backward pass."""
    shown = first_call(source, images)
    return peak_bytes(lambda: call(source, shown, backward), source.device)


def first_call(source: Source, images: int) -> tuple[Tensor, Tensor, dict]:
    """(x, sigma (B,), extra) of a run's first network call."""
    x = source.noise(range(images)) * source.sigma_max
    return x, torch.full((images,), source.sigma_max, device=source.device), source.extra(range(images))


def call(source: Source, shown: tuple, backward: bool) -> float:
    """Make a network call and, if `backward`, its backward pass; returns once the device is done."""
    x, sigma, extra = shown
    if not backward:
        return float(source.denoiser(x, sigma, **extra).sum())
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        slope, = torch.autograd.grad(source.denoiser(leaf, sigma, **extra).sum(), leaf)
    return float(slope.sum())


def peak_bytes(work: Callable, device: torch.device) -> int:
    """Peak bytes of work() on top of what is allocated before it.

    On CUDA the allocator's own figure. Elsewhere the live tensors that PyTorch's operations make, without their
    internal buffers.
    """
    if device.type != "cuda":
        with Meter() as meter:
            work()
        return meter.highest
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


class Meter(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it: `held` now, `highest` so far."""

    def __init__(self):
        super().__init__()
        self.held, self.highest, self._known = 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and id(leaf.untyped_storage()) not in before:
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_):
            if self._known.pop(key, None) is not None:
                self.held -= size
        self._known[key] = weakref.ref(storage, gone)
        self.held += size
        self.highest = max(self.highest, self.held)


def size_text(size: float) -> str:
    """A number of bytes for people."""
    mega = size / 2 ** 20
    return f"{mega / 1024:,.1f} GB" if mega >= 1024 else f"{mega:.0f} MB" if mega >= 10 else f"{mega:.1f} MB"
