"""What a MODEL is known by: its network's norms and biases as they were loaded, and what LoRAs and patches add to them.

A LoRA changes the matrices alone, so the norms and biases would call it the base model. Patches are known by their
strengths and by numbers sampled from their tensors: fast enough for every sampling, and no two LoRAs share them.
"""

import hashlib
import weakref
from collections import OrderedDict

import torch

from ...library import PATCHES
from ..digest import digest, sketch_of

_OF_STORAGE = ("scale_weight", "scale_input", "weight_scale", "input_scale")     # only a quantised file has them
KEPT = 100                  # sets of patches whose digest is kept
_sketches: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()      # loaded network -> its sketch
_digests: OrderedDict = OrderedDict()                                   # the host's id of a set of patches -> digest


def of(network, patcher) -> dict:
    """{"weights_1d": sketch, "patches": digest}; no patches where nothing is changed, {} where it cannot be read."""
    hashes = _sketch(network, patcher)
    patches = changes(patcher) if hashes else ""
    return {**hashes, PATCHES: patches} if patches else hashes


def _sketch(network, patcher) -> dict:
    if network not in _sketches:
        originals = {key: saved.weight for key, saved in getattr(patcher, "backup", {}).items()}
        weights = {name: originals.get(name, tensor) for name, tensor in network.named_parameters()
                   if tensor.ndim == 1 and name.startswith("diffusion_model.") and not name.endswith(_OF_STORAGE)}
        _sketches[network] = sketch_of(weights)
    return _sketches[network]


def changes(patcher) -> str:
    """16 hex digits of all that changes a MODEL's weights, in whatever order it was added; "" where nothing does."""
    parts = [_patches(patcher)]
    for key, value in getattr(patcher, "object_patches", {}).items():
        if key.startswith("diffusion_model") and isinstance(value, torch.Tensor):
            parts.append(digest([key, value]))
        elif key.startswith("diffusion_model") and isinstance(value, torch.nn.Module):
            compiled = hasattr(value, "_orig_mod")                  # the same weights, faster
            parts.append("" if compiled else digest([key, type(value).__name__]))
    parts += [digest([key, _injected(each)]) for key, each in getattr(patcher, "injections", {}).items()]
    parts = sorted(filter(None, parts))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16] if parts else ""


def _patches(patcher) -> str:
    """Of LoRAs, merges and the like; kept, since the host gives every set of them an id of its own."""
    key, patches = getattr(patcher, "patches_uuid", None), getattr(patcher, "patches", {})
    if not patches:
        return ""
    if key not in _digests:
        _digests[key] = digest([[name, _in_order(patches[name])] for name in sorted(patches, key=str)])
        while len(_digests) > KEPT:
            _digests.popitem(last=False)
    return _digests[key]


def _in_order(patches: list) -> list:
    """Digests of one weight's patches; those that are only added up in an order of their own."""
    digests = [digest(list(patch)) for patch in patches]
    return sorted(digests) if all(patch[2] == 1 for patch in patches) else digests


def _injected(injections) -> list:
    """A LoRA that the host adds in the forward pass keeps its adapters where only its functions see them."""
    cells = [cell.cell_contents for each in injections for cell in getattr(each.inject, "__closure__", None) or ()]
    return [getattr(content, "adapters", type(content).__name__) for content in cells]
