"""What autograd needs of a host's network: normal weights, normal conditions, a differentiable timestep.

Hosts load and sample under inference mode, and tensors made there can never be saved for a backward pass.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable

import torch
from torch import Tensor


def cloned(content):
    """A conditioning or latent with every tensor in it copied out of inference mode."""
    if isinstance(content, Tensor):
        return content.detach().clone()
    if isinstance(content, dict):
        same = copy.copy(content)                           # a host's own kind of dict knows more than its keys
        same.update({key: cloned(value) for key, value in content.items()})
        return same
    if type(content) in (list, tuple):
        return type(content)(cloned(value) for value in content)
    if isinstance(content, tuple) and hasattr(content, "_fields"):
        return type(content)(*map(cloned, content))
    return content


@contextlib.contextmanager
def visible_weights(model: torch.nn.Module, shown: Callable | None = None):
    """Replace every weight by a normal tensor on the same memory for a while, then restore the same objects.

    shown(weight): what stands in for it; None: `normal`. Enter it after the host has loaded and patched the model: both
    replace weights.
    """
    swapped, frozen = [], []
    for module in model.modules():
        for store in (module._parameters, module._buffers):
            for name, tensor in store.items():
                if tensor is not None and tensor.is_inference():
                    swapped.append((store, name, tensor))
                    store[name] = (shown or normal)(tensor)
        frozen += [p for p in module._parameters.values()
                   if p is not None and p.requires_grad and not p.is_inference()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for store, name, tensor in swapped:
            store[name] = tensor
        for parameter in frozen:
            parameter.requires_grad_(True)


def normal(tensor: Tensor) -> Tensor:
    """A tensor outside inference mode on the same memory; a copy for the quantised kinds that cannot be aliased."""
    if type(tensor) not in (Tensor, torch.nn.Parameter, torch.nn.Buffer):
        return torch.nn.Parameter(tensor.detach().clone(), requires_grad=False)
    alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    alias.set_(tensor.untyped_storage(), tensor.storage_offset(), tensor.size(), tensor.stride())
    return torch.nn.Parameter(alias, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else alias


def between_levels(log_levels: Tensor, sigma: Tensor) -> Tensor:
    """The fractional index of sigma in rising log levels, linear in log sigma, differentiable."""
    at = sigma.log()
    low = (torch.searchsorted(log_levels, at.detach().contiguous()) - 1).clamp(0, len(log_levels) - 2)
    return (low + (at - log_levels[low]) / (log_levels[low + 1] - log_levels[low])).clamp(0, len(log_levels) - 1)
