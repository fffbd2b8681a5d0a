"""A fingerprint of a model: sixteen projections of its one-dimensional weights, the same in any precision.

A file hash changes with every conversion, and a LoRA changes the matrices; the norms and biases of a loaded network
change only when it is trained further. The sketch is a random projection (Johnson and Lindenstrauss, 1984): storage
in fp16 or bf16 moves a number by less than 2, another fine-tune by tens.
"""

import re

import numpy as np
import torch

COUNT = 16
KIND = "weights_1d"         # its name among a preset's hashes
HASHES = (KIND, "tensors_sha256", "sha256_10")              # the most telling first; a file's name tells nothing
PATCHES = "patches"         # digest of LoRAs and other changes to the weights; none for the weights as they were loaded
_SKETCH = re.compile(f"[0-9a-f]{{{4 * COUNT}}}")
_UNIT = 1000                # counts per standard deviation of a projection: bf16 rounding is about one count
_ROUNDING = 6               # counts by which two precisions of one network may differ


def sketch(weights: dict) -> str:
    """64 hex digits from {name: tensor (n,)}: sixteen signed projections of the unit-length weights, as int16."""
    numbers = torch.cat([weights[name].detach().float().cpu() for name in sorted(weights)] or [torch.zeros(1)])
    numbers = numbers.double().numpy()
    numbers = numbers / max(np.linalg.norm(numbers), 1e-30)
    signs = np.random.Generator(np.random.PCG64(0)).integers(0, 2, len(numbers)) * 2 - 1
    padded = np.append(signs * numbers, np.zeros(-len(numbers) % COUNT))
    counts = np.rint(padded.reshape(-1, COUNT).sum(0) * COUNT ** 0.5 * _UNIT)
    return counts.clip(-32767, 32767).astype(">i2").tobytes().hex()


def same(one, other) -> bool:
    """Whether two sketches are of the same network, whatever precision it was loaded in."""
    if one == other or not all(isinstance(each, str) and _SKETCH.fullmatch(each) for each in (one, other)):
        return one == other
    apart = np.subtract(*(np.frombuffer(bytes.fromhex(each), ">i2").astype(int) for each in (one, other)))
    return bool(np.abs(apart).max() <= _ROUNDING)


def same_network(hashes: dict, others: dict) -> bool:
    """Whether the most specific hash that both have is the same, whatever LoRAs and patches change the network."""
    kind = next((kind for kind in HASHES if hashes.get(kind) and others.get(kind)), None)
    return kind is not None and same(hashes[kind], others[kind])        # two SHA-256 are never near each other


def same_weights(hashes: dict, others: dict) -> bool:
    """The same with the same LoRAs and patches; true of equal hashes, too, if there are none."""
    return hashes == others or hashes.get(PATCHES) == others.get(PATCHES) and same_network(hashes, others)
