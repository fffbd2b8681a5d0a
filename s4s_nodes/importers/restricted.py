"""Reads pickles and torch files without unpickling: tensors, numbers and text come out, nothing is ever called."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.model import is_number
from .limits import MAX_BYTES, MAX_ENTRIES, Budget, Stub, UnreadableFile
from .machine import Machine

__all__ = ["MAX_BYTES", "Stub", "UnreadableFile", "array", "content_of", "loads"]

_NUMPY_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C      # torch.serialization's mark of files older than its zip format


def content_of(path) -> bytes:
    """The bytes of a file that is small enough. Raises UnreadableFile for another, OSError as the system gives it."""
    path = Path(path)
    size = path.stat().st_size
    if not path.is_file():
        raise UnreadableFile(f"{path} is not a file")
    if size <= MAX_BYTES:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)                   # whatever it has become since it was measured
        size = len(content)
    if size > MAX_BYTES:
        raise UnreadableFile(f"{path.name} has {size} bytes: a table of coefficients has at most {MAX_BYTES}")
    return content


def loads(content: bytes, name: str = "") -> Any:
    """A file's content: dicts, lists, text, numbers, tensors, and a Stub wherever it asks for an object.

    Takes plain pickles and both formats of torch.save. Raises UnreadableFile for whatever else. name is the file's, for
    messages.
    """
    try:
        return _read(content, Budget(), nested=False)
    except UnreadableFile as error:
        words = str(error)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, zipfile.BadZipFile,
            EOFError, OSError, RuntimeError, AssertionError, struct.error) as error:
        words = f"is damaged or of another kind ({type(error).__name__}: {str(error)[:120]}): download it again"
    # raised out here, where no first error holds on to the content
    raise UnreadableFile(f"{name}: {words}" if name else words)


def _read(content: bytes, budget: Budget, nested: bool) -> Any:
    if content[:4] == b"PK\x03\x04":
        if nested:
            raise UnreadableFile("holds a zip file within a file, which torch never does")
        return _read_zip(content, budget)
    file = io.BytesIO(content)
    value = _machine(budget).run(file)
    return _read_legacy(file, budget) if type(value) is int and value == _LEGACY_MAGIC else value


def _machine(budget: Budget, storage=None) -> Machine:
    return Machine(budget, storage, lambda content: _read(content, budget, nested=True))


def _read_zip(content: bytes, budget: Budget) -> Any:
    """torch.save since 1.6: a zip of stored entries, ARCHIVE/data.pkl and ARCHIVE/data/KEY."""
    if content.count(b"PK\x01\x02") > MAX_ENTRIES:               # each entry of the directory begins with it
        raise UnreadableFile(f"is a zip file of more than {MAX_ENTRIES} entries")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [entry.filename for entry in archive.infolist()]
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableFile("is a zip file, but not one that torch.save wrote")
        folder = pickles[0].split("/")[0]

        def entry(name: str) -> bytes:
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or not info.file_size == info.compress_size <= len(content):
                raise UnreadableFile(f"holds {name[:80]!r} compressed, which torch never does")
            budget.spend(bytes=info.file_size)
            return archive.read(info)

        if f"{folder}/byteorder" in names and entry(f"{folder}/byteorder") != b"little":
            raise UnreadableFile("was written on a big-endian machine")
        known: dict[tuple, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if (dtype, key, count) not in known:
                budget.spend(bytes=count * dtype.itemsize)
                known[dtype, key, count] = _numbers(entry(f"{folder}/data/{key}"), dtype, count)
            return known[dtype, key, count]
        return _machine(budget, storage).run(io.BytesIO(entry(pickles[0])))


def _read_legacy(file: io.BytesIO, budget: Budget) -> Any:
    """torch.save's older format: protocol, system, the object, the storages' keys, then their raw numbers."""
    later: dict[str, Tensor] = {}

    def promise(dtype: torch.dtype, key: str, count: int) -> Tensor:
        budget.spend(numbers=count, bytes=2 * count * dtype.itemsize)
        return later.setdefault(key, torch.zeros(count, dtype=dtype))

    _machine(budget).run(file)                                   # protocol version
    _machine(budget).run(file)                                   # byte order and sizes of the machine it came from
    value = _machine(budget, promise).run(file)
    for key in _machine(budget).run(file):
        numbers = later[key]
        file.read(8)                                             # the count once more
        numbers.copy_(_numbers(file.read(numbers.nbytes), numbers.dtype, len(numbers)))
    return value


def _numbers(raw: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(raw) < count * dtype.itemsize:
        raise UnreadableFile(f"ends within a tensor of {count} numbers: download it again")
    return torch.frombuffer(bytearray(raw), dtype=dtype, count=count) if count else torch.zeros(0, dtype=dtype)


def array(value) -> np.ndarray | None:
    """A float64 array of a tensor, a NumPy array's record, a number or a list of numbers; None of anything else."""
    if isinstance(value, Tensor):
        return value.double().numpy().copy()
    if isinstance(value, Stub):
        return _numpy_array(value)
    if isinstance(value, (list, tuple)) and value and all(is_number(item) for item in value) or is_number(value):
        return np.array(value, dtype=np.float64)
    return None


def _numpy_array(stub: Stub) -> np.ndarray | None:
    """numpy's own two pickled forms: an array (shape, type, bytes in its state) and a scalar."""
    module, _, name = stub.what.rpartition(".")
    if module not in ("numpy.core.multiarray", "numpy._core.multiarray"):
        return None
    if name == "scalar" and len(stub.args) == 2:
        shape, dtype, fortran, raw = (), stub.args[0], False, stub.args[1]
    elif name == "_reconstruct" and isinstance(stub.state, tuple) and len(stub.state) == 5:
        _, shape, dtype, fortran, raw = stub.state
    else:
        return None
    kind = dtype.args[0] if isinstance(dtype, Stub) and dtype.what == "numpy.dtype" and dtype.args else None
    if kind not in _NUMPY_KINDS or not isinstance(raw, bytes):
        raise UnreadableFile("holds a NumPy array that is described wrongly")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C").astype(np.float64)
