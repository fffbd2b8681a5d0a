"""What a host's loaded model is known by: the sketch of its network, and digests of whatever changes its weights."""

import hashlib
import logging

import torch

from ..core.sketch import KIND, sketch

SAMPLED = 64                # numbers of a tensor


def sketch_of(weights: dict) -> dict:
    """{KIND: sketch} of norms and biases {name: tensor (n,)}; {} where a host keeps them so that none can be read."""
    try:
        with torch.no_grad():
            return {KIND: sketch(weights)}
    except (RuntimeError, NotImplementedError) as error:          # offloaded to nowhere, or a storage of its own kind
        logging.getLogger("S4S").info("this model's norms and biases cannot be read (%s): no preset is its own", error)
        return {}


def digest(content, exact: bool = False) -> str:
    """64 hex digits of numbers, texts, containers, adapters and tensors; other objects count by their kind.

    exact: all of each tensor and number; else a sample of the tensors, and four digits.
    """
    seen = hashlib.sha256()
    _feed(seen, content, exact)
    return seen.hexdigest()


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
