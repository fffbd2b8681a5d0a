"""The raw content of a preset file: float64 tensors and one JSON text, limited in size and unambiguous."""

import hashlib
import json
import math
import os
from pathlib import Path

import numpy as np
import safetensors

from .model import PresetError

MAX_BYTES = 32 * 2 ** 20
MAX_HEADER = 5 * 2 ** 18            # bytes of names and description; shipped presets have up to 10,000
MAX_DIGITS = 4300                   # digits of an integer in the description: Python's own limit, if it has one
MAX_DEPTH = 64                      # nested lists and objects: parsers are recursive
CHECKSUM = "sha256"                 # the description's entry with the checksum of everything else
KEY = "s4s_preset"                  # the one metadata entry: safetensors does not keep several in order


def contents(path: Path) -> tuple[dict, dict]:
    """(description, tensors) of the file, not yet validated. Raises PresetError, or OSError from the system."""
    size = os.stat(path).st_size
    if not path.is_file() or size > MAX_BYTES:
        came = f"{size} bytes" if path.is_file() else "not a file"
        raise PresetError(f"is {came}: a preset is one file of a few kilobytes, {MAX_BYTES} bytes at most")
    try:
        json.loads(header(path), object_pairs_hook=_without_repeats)
        with safetensors.safe_open(path, framework="np") as file:
            metadata, tensors = file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, PresetError):
        raise
    except Exception as error:      # the library's own error type, or NumPy's for a type that it lacks
        raise PresetError(f"is not a whole .safetensors file ({error}): it may be cut off or of another kind; "
                          "download or save it again") from None
    if KEY not in metadata:
        raise PresetError("is a .safetensors file but not an S4S preset: there is no s4s_preset entry in it")
    try:
        return parsed(metadata[KEY]), tensors
    except ValueError as error:
        raise PresetError(f"its description is damaged ({str(error)[:100]}): download or save it again") from None


def parsed(text: str):
    """Untrusted JSON, parsed: finite numbers, no duplicate keys, not nested deeply. Raises ValueError otherwise."""
    try:
        content = json.loads(text, parse_constant=_refuse_constant, parse_int=_integer, parse_float=_float,
                             object_pairs_hook=_without_repeats)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_depth(content, MAX_DEPTH)
    return content


def _check_depth(content, left: int) -> None:
    if not left:
        raise ValueError(f"it is nested too deeply: more than {MAX_DEPTH} lists or objects inside each other")
    for each in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        if isinstance(each, (dict, list)):
            _check_depth(each, left - 1)


def checksum(content: dict, tensors: dict) -> str:
    """SHA-256 in hex over the whole preset: its description (except CHECKSUM itself) and every tensor.

    content: as `parsed` gives it. Raises ValueError for a number that JSON lacks.
    """
    kept = {key: value for key, value in content.items() if key != CHECKSUM}
    digest = hashlib.sha256(json.dumps(kept, sort_keys=True, allow_nan=False).encode())
    for name, array in sorted(tensors.items()):
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_sum(content: dict, tensors: dict, known: set) -> None:
    """Raise PresetError for a description that changed since it was saved.

    known: the entries of versions up to 0.4, which wrote no checksum.
    """
    if CHECKSUM not in content:
        if unknown := sorted(set(content) - known):
            raise PresetError(f"has the unknown entry {unknown[0][:60]!r} and no checksum: download or save it again")
    elif content[CHECKSUM] != (now := checksum(content, tensors)):
        raise PresetError(f"has checksum {now[:10]}... and says {str(content[CHECKSUM])[:10]}...: the file was changed "
                          "or damaged; download or save it again")


def header(path) -> bytes:
    """The header of a .safetensors file, JSON if it is whole. Raises PresetError if it is too large for a preset."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER:
            raise PresetError(f"is not a whole .safetensors file of a preset: header too large ({size} bytes, "
                              f"{MAX_HEADER} at most)")
        return file.read(size)


def is_preset_file(path) -> bool:
    """Whether a file claims to be a preset, even if damaged or of a later format."""
    try:
        fits = os.path.isfile(path) and os.stat(path).st_size <= MAX_BYTES
        return fits and KEY in json.loads(header(path))["__metadata__"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False


def _without_repeats(pairs: list) -> dict:
    """Refuse an object with a duplicate key: parsers disagree on which value counts."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in content if names.count(name) > 1)
        raise ValueError(f"has two entries {twice[:60]!r}")
    return content


def _refuse_constant(text: str):
    raise ValueError(f"{text} is not a number")


def _float(text: str) -> float:
    value = float(text)
    return value if abs(value) != math.inf else _refuse_constant(text[:60])


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)
