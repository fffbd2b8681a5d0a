"""A digest of what a host patches a network with: numbers, texts, containers, and a sample of each tensor."""

from __future__ import annotations

import hashlib

import torch

SAMPLED = 64                # numbers of a tensor


def digest(content) -> str:
    """64 hex digits."""
    seen = hashlib.sha256()
    _feed(seen, content)
    return seen.hexdigest()


def _feed(into, content) -> None:
    """Feed numbers, texts, containers, adapters and a sample of each tensor to a hash; other objects by their kind."""
    if isinstance(content, torch.Tensor):
        flat = content.detach().flatten()
        sample = flat[::max(1, len(flat) // SAMPLED)][:SAMPLED].float().cpu()
        into.update(f"{tuple(content.shape)}".encode() + sample.contiguous().numpy().tobytes())
    elif isinstance(content, dict):
        _feed(into, [[str(key), content[key]] for key in sorted(content, key=str)])
    elif isinstance(content, (list, tuple)):
        into.update(b"[")
        for each in content:
            _feed(into, each)
    elif hasattr(content, "weights"):                               # a LoRA's, LoHa's, LoKr's adapter
        _feed(into, [type(content).__name__, content.weights])
    else:
        plain = content is None or isinstance(content, (str, int, bool))
        text = f"{content:.4g}" if isinstance(content, float) else repr(content) if plain else type(content).__name__
        into.update(text.encode() + b";")
