"""What a MODEL is known by: its network's norms and biases as they were loaded, and all that changes its answer.

A LoRA changes the matrices alone, so the norms and biases would call it the base model. Patches are known by their
strengths and by numbers sampled from their tensors: fast enough for every sampling, and no two LoRAs share them. What
is hung into the network or its guidance (FreeU, perturbed attention, RescaleCFG) is known by its name and its numbers.
"""

import hashlib
import weakref
from collections import OrderedDict

import torch

from ...core.sketch import PATCHES
from ..digest import described, digest, hung_in, own_parts, sketch_of

_OF_STORAGE = ("scale_weight", "scale_input", "weight_scale", "input_scale")     # only a quantized file has them
_SAME_OBJECTS = ("latent_format", "manual_cast_dtype")
KEPT = 100                  # how many sets of patches have a cached digest
_sketches: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()      # loaded network -> its sketch
_digests: OrderedDict = OrderedDict()                                   # the host's id of a set of patches -> digest


def of(network, patcher) -> dict:
    """{"weights_1d": sketch, "patches": digest}; no patches if nothing is changed, {} if the model cannot be read."""
    if network not in _sketches:
        _sketches[network] = sketch_of({name: tensor for name, tensor in weights(network, patcher).items()
                                        if tensor.ndim == 1 and not name.endswith(_OF_STORAGE)})
    hashes = _sketches[network]
    patches = changes(patcher) if hashes else ""
    return {**hashes, PATCHES: patches} if patches else hashes


def weights(network, patcher) -> dict:
    """{name: tensor} of the network as it was loaded, whatever the host has patched in place."""
    originals = {key: saved.weight for key, saved in getattr(patcher, "backup", {}).items()}
    return {name: originals.get(name, tensor) for name, tensor in network.named_parameters()
            if name.startswith("diffusion_model.")}


def changes(patcher) -> str:
    """16 hex digits of all that changes a MODEL's answer, in whatever order it was added; "" where nothing does."""
    parts = [_patches(patcher)]
    parts += [_object(patcher, *item) for item in getattr(patcher, "object_patches", {}).items()]
    parts += [digest([key, _injected(each)]) for key, each in getattr(patcher, "injections", {}).items()]
    parts += hung_in(patcher)
    parts = sorted(filter(None, parts))
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:16] if parts else ""


def _object(patcher, key: str, value) -> str:
    """A digest of a part of the model that replaces another."""
    if key == "model_sampling":                                     # its levels and prediction are known
        return digest("LCM") if any(kind.__name__ == "LCM" for kind in type(value).__mro__) else ""
    if key in _SAME_OBJECTS or hasattr(value, "_orig_mod"):         # compiled: the same weights, faster
        return ""
    if isinstance(value, torch.nn.Module):
        return digest([key, type(value).__name__])
    return digest([key, value if isinstance(value, torch.Tensor) else described(value, own_parts(patcher))])


def _patches(patcher) -> str:
    """A digest of LoRAs, merges and other weight patches; cached by the id that the host gives every set of them."""
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


def of_hooks(conds: dict) -> str:
    """What the hooks of prompts {"positive": [condition, ...], "negative": ...} change in the model, in words."""
    hung = {(name.split()[0], _hook(hook)) for name, conditions in conds.items() for condition in conditions
            if (group := condition.get("hooks")) is not None for hook in group.hooks
            if getattr(hook, "_strength_model", 1)}                 # 0: for the text encoder alone
    return f"hooks {digest(sorted(hung))[:8]}" if hung else ""


def _hook(hook) -> str:
    """A digest of one hook: a LoRA's numbers, or another hook's functions, and when it applies."""
    held = {key: value for key, value in vars(hook).items() if not key.startswith(("hook_", "_", "custom", "weights"))}
    when = [(key.strength, key.start_percent) for key in hook.hook_keyframe.keyframes]
    return digest([type(hook).__name__, getattr(hook, "weights", None), getattr(hook, "_strength_model", 1), when,
                   described(held)])
