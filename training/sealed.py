"""Files of tensors and facts with a checksum: read exactly as written, or refused."""

import hashlib
import json
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

FACTS, CHECKSUM = "s4s_run", "sha256"


def to_bytes(tensors: dict[str, Tensor], facts: dict) -> bytes:
    """The content of a file; facts: JSON-ready."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    return safetensors.torch.save(tensors, metadata={FACTS: text, CHECKSUM: checksum(tensors, text)})


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, facts) as they were written. Raises ValueError for a damaged file, OSError as the system gives it."""
    try:
        # not load_file: a host replaces it with one that changes every error and moves the file
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # clones are aligned: sums over tensors in a mapped file differ in the last digits
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        text = metadata[FACTS]
        facts = json.loads(text)
    except MemoryError:
        raise ValueError("it does not fit into memory") from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if metadata.get(CHECKSUM) != checksum(tensors, text):
        raise ValueError("its checksum is another")
    return tensors, facts


def checksum(tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 in hex over the text and every tensor on the CPU: name, type, shape, bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
