"""How to recognize a host's loaded model: the sketch of its network, and digests of what changes its weights."""

import functools
import hashlib
import logging
import types

import numpy as np
import torch

from ..core.sketch import KIND, sketch
from . import changing

SAMPLED = 64                # numbers of a tensor
# options of a patched model, and wrappers around it, that change the network's answer
_OPTIONS = ("sampler_pre_cfg_function", "sampler_cfg_function", "sampler_post_cfg_function", "context_handler",
            "sampler_calc_cond_batch_function", "model_function_wrapper", "conditioning_modifiers")
_WRAPPERS = ("predict_noise", "calc_cond_batch", "apply_model", "diffusion_model")
# those that do not: kinds of attention, the host's own notes while it samples
_SAME = ("wrappers", "callbacks", "optimized_attention_override", "sample_sigmas", "sigmas", "cond_or_uncond", "uuids")
_COMPILED = "torch.compile"                             # the host's key of its wrapper


def sketch_of(weights: dict) -> dict:
    """{KIND: sketch} of norms and biases {name: tensor (n,)}; {} where a host keeps them so that none can be read."""
    try:
        with torch.no_grad():
            return {KIND: sketch(weights)}
    except (RuntimeError, NotImplementedError) as error:          # offloaded to nowhere, or a storage of its own kind
        logging.getLogger("S4S").info("S4S finds no preset for this model: its norms and biases cannot be read (%s)",
                                      error)
        return {}


def digest(content, exact: bool = False) -> str:
    """64 hex digits of numbers, texts, containers, adapters and tensors; other objects count by their kind.

    exact: all of each tensor and number; else a sample of the tensors, and four digits.
    """
    seen = hashlib.sha256()
    _feed(seen, content, exact)
    return seen.hexdigest()


def hung_in(patcher) -> list[str]:
    """Digests of the functions and numbers added to a network and its guidance, as ComfyUI's and Forge's
    patched models keep them."""
    options = getattr(patcher, "model_options", {})
    inside = options.get("transformer_options", {})
    hung = [(key, options.get(key)) for key in _OPTIONS]
    hung += [(key, value) for key, value in inside.items() if key not in _SAME]
    hung += [("weights", getattr(patcher, "weight_wrapper_patches", {}))]
    for wrappers in (inside.get("wrappers", {}), getattr(patcher, "wrappers", {})):
        hung += [(kind, each) for kind in _WRAPPERS for key, each in wrappers.get(kind, {}).items() if key != _COMPILED]
    own = own_parts(patcher) if any(each for _, each in hung) else frozenset()
    return [digest([key, described(each, own)]) for key, each in hung if each]


def own_parts(patcher) -> frozenset:
    """The ids of the network's own modules, whose weights are known elsewhere."""
    network = getattr(patcher, "model", None)
    return frozenset(map(id, network.modules())) if isinstance(network, torch.nn.Module) else frozenset()


def described(content, own: frozenset = frozenset(), above: tuple = (), changed: changing.Paths = frozenset(),
              asked: frozenset = frozenset({"__call__"})):
    """What `digest` tells one patch of a model from another by: names of functions and classes, the plain values that
    they hold, and a few weights of networks; not the tensors, which are mostly prompts or images, and not what they
    change themselves when they are called.

    own: as `own_parts`; these, and a whole MODEL, count by their kind. above: what it is held by, by id. changed: paths
    to what the code above changes. asked: the methods it may call.
    """
    if content is None or isinstance(content, (str, int, float, bool)):
        return content
    if isinstance(content, (np.generic, torch.Tensor)) and content.ndim == 0 and not getattr(content, "is_meta", False):
        return content.item()
    whole = isinstance(content, (torch.Tensor, types.ModuleType, logging.Logger)) or hasattr(content, "model_options")
    if whole or id(content) in own or id(content) in above or len(above) > 12:
        return _name(type(content))

    def below(each, changed=changed, asked=asked):
        return described(each, own, (*above, id(content)), changed, asked)

    def parts(named, changed=changed, asked=asked) -> dict:
        """A digest of everything under a name or a key, except what changes as a whole."""
        kept = [(name, each, frozenset(path[1:] for path in changed if path[:1] == (name,))) for name, each in named]
        return {str(name): below(each, paths, asked) for name, each, paths in kept if () not in paths}
    if isinstance(content, dict):
        return parts(content.items())
    if isinstance(content, (list, tuple)):
        return [*parts(enumerate(content)).values()]
    if isinstance(content, torch.nn.Module):
        return [_name(type(content)), [tensor for _, tensor in zip(range(8), content.parameters())]]
    if isinstance(content, functools.partial):
        return below([content.func, content.args, content.keywords], frozenset())
    if isinstance(content, types.MethodType):
        here = below(content.__self__, frozenset(), frozenset({content.__func__.__name__}))
        return [below(content.__func__, frozenset()), here]
    if isinstance(content, types.FunctionType):
        paths, names = changing.by_function(content)
        cells = zip(content.__code__.co_freevars, content.__closure__ or ())
        held = [(name, cell.cell_contents) for name, cell in cells if cell != types.CellType()]
        given = below([content.__defaults__, content.__kwdefaults__], frozenset(), names)
        return [_name(content), [*parts(held, paths, names).values()], given]
    if hasattr(content, "__qualname__"):                            # a class, or a function that is not Python's
        return _name(content)
    paths, names = changing.by_object(content, asked)
    return [_name(type(content)), parts(getattr(content, "__dict__", {}).items(), changed | paths, names)]


def _name(named) -> str:
    """"module:Class:name", the same wherever the module was loaded from and whatever method made a local function."""
    words, module = named.__qualname__.split("."), str(named.__module__).replace("\\", "/")
    return ":".join([module.split("/")[-1].split(".")[-1], words[0], words[-1]])


def _feed(into, content, exact: bool) -> None:
    if isinstance(content, torch.Tensor):
        flat = content.detach().flatten()
        flat = flat if exact else flat[::max(1, len(flat) // SAMPLED)][:SAMPLED]
        into.update(f"{tuple(content.shape)}".encode() + flat.float().cpu().contiguous().numpy().tobytes())
    elif isinstance(content, dict):
        _feed(into, [[str(key), content[key]] for key in sorted(content, key=str)], exact)
    elif isinstance(content, (list, tuple)):
        into.update(b"[")
        for each in content:
            _feed(into, each, exact)
    elif hasattr(content, "weights"):                               # a LoRA's, LoHa's, LoKr's adapter
        _feed(into, [type(content).__name__, content.weights], exact)
    elif isinstance(content, float) and not exact:
        into.update(f"{content:.4g};".encode())
    else:
        plain = content is None or isinstance(content, (str, int, float, bool))
        into.update((repr(content) if plain else type(content).__name__).encode() + b";")
