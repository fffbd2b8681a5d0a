"""A network's weights in a few digits, so that a run is never resumed with another network's pairs."""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterable
from types import CellType, FunctionType, MethodType, ModuleType

import torch
from torch import Tensor

SAMPLED = 16                # numbers of a tensor: another training or a merged LoRA changes nearly all of them
DEPTH = 8                   # nested functions, containers and objects that are searched for a network


def digest(tensors: Iterable[Tensor]) -> str:
    """16 hex digits of numbers sampled from every tensor, exact to the bit; "" where a host lets none be read.

    Unlike a preset's sketch it differs between precisions, and it sees matrices.
    """
    seen = hashlib.sha256()
    try:
        for tensor in tensors:
            flat = tensor.detach().flatten()
            some = flat[::max(1, len(flat) // SAMPLED)][:SAMPLED].cpu().contiguous()
            seen.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode() + some.view(torch.uint8).numpy().tobytes())
    except (RuntimeError, NotImplementedError, TypeError) as error:     # offloaded, or a storage of its own kind
        logging.getLogger("S4S").info("a run cannot tell this model from others: its weights cannot be read (%s)",
                                      error)
        return ""
    return seen.hexdigest()[:16]


def digest_of(network: Callable) -> str:
    """`digest` of the torch modules that a function asks, as far as they can be seen from it; "" where none can."""
    around, seen = [network], {}
    for _ in range(DEPTH):
        fresh = {id(each): each for each in around if id(each) not in seen}
        seen |= fresh
        around = [inner for each in fresh.values() for inner in _members(each)]
    modules = [each for each in seen.values() if isinstance(each, torch.nn.Module)]
    return digest(weight for module in modules for weight in module.parameters()) if modules else ""


def _members(each) -> list:
    """What a function, a container or an object holds that may be a network or lead to one."""
    if isinstance(each, (torch.nn.Module, Tensor, ModuleType, type)):
        return []
    if isinstance(each, FunctionType):
        named = [each.__globals__[name] for name in each.__code__.co_names if name in each.__globals__]
        return [*named, *(each.__closure__ or ())]
    if isinstance(each, CellType):
        return [each.cell_contents] if each != CellType() else []
    if isinstance(each, MethodType):
        return [each.__self__, each.__func__]
    if isinstance(each, functools.partial):
        return [each.func, *each.args, *each.keywords.values()]
    if isinstance(each, (list, tuple)):
        return list(each)
    return list(getattr(each, "__dict__", {}).values())
