"""Reads pickles and torch files without unpickling: tensors, numbers and text come out, nothing is ever called."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .machine import MAX_NUMBERS, Budget, Machine, Storage, Stub, UnreadableFile

MAX_BYTES = 16 * 2 ** 20        # the largest published file of these kinds has 0.4 MB

_NUMPY_KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C      # torch.serialization's mark of files older than its zip format


def load(path) -> Any:
    """The file's content: dicts, lists, text, numbers, arrays, and a Stub wherever it asks for an object.

    Takes plain pickles and both formats of torch.save. Raises UnreadableFile for whatever else, OSError as the
    system gives it.
    """
    path = Path(path)
    size = path.stat().st_size
    if not path.is_file():
        raise UnreadableFile(f"{path} is not a file")
    if size > MAX_BYTES:
        raise UnreadableFile(f"{path.name} has {size} bytes: a table of coefficients has at most {MAX_BYTES}")
    try:
        return loads(path.read_bytes())
    except UnreadableFile as error:
        raise UnreadableFile(f"{path.name}: {error}") from None


def loads(content: bytes) -> Any:
    """`load` for bytes."""
    budget = Budget()
    try:
        return _read(content, budget)
    except UnreadableFile:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, MemoryError,
            UnicodeError, zipfile.BadZipFile, NotImplementedError, EOFError, RuntimeError) as error:
        raise UnreadableFile(f"is damaged or of another kind ({type(error).__name__}: {str(error)[:120]}): "
                             "download it again") from None


def _read(content: bytes, budget: Budget) -> Any:
    if content[:4] == b"PK\x03\x04":
        return _read_zip(content, budget)
    file = io.BytesIO(content)
    value = _machine(budget).run(file)
    return _read_legacy(file, budget) if type(value) is int and value == _LEGACY_MAGIC else value


def _machine(budget: Budget, storage=None) -> Machine:
    return Machine(budget, storage, lambda content: _read(content, budget))


def _read_zip(content: bytes, budget: Budget) -> Any:
    """torch.save since 1.6: a zip of stored entries, ARCHIVE/data.pkl and ARCHIVE/data/KEY."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [entry.filename for entry in archive.infolist()]
        pickles = [name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise UnreadableFile("is a zip file, but not one that torch.save wrote")
        folder = pickles[0].split("/")[0]

        def entry(name: str) -> bytes:
            info = archive.getinfo(name)
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > len(content):
                raise UnreadableFile(f"holds {name[:80]!r} compressed, which torch never does")
            return archive.read(info)

        if f"{folder}/byteorder" in names and entry(f"{folder}/byteorder") != b"little":
            raise UnreadableFile("was written on a big-endian machine")
        machine = _machine(budget, lambda dtype, key, count: _numbers(entry(f"{folder}/data/{key}"), dtype, count))
        return machine.run(io.BytesIO(entry(pickles[0])))


def _read_legacy(file: io.BytesIO, budget: Budget) -> Any:
    """torch.save's older format: protocol, system, the object, the storages' keys, then their raw numbers."""
    later: dict[str, Storage] = {}
    kinds: dict[str, tuple] = {}

    def promise(dtype: str, key: str, count: int) -> np.ndarray:
        budget.spend(numbers=count)
        kinds[key] = (dtype, count)
        return later.setdefault(key, Storage(np.zeros(count, _storage_type(dtype)))).numbers

    _machine(budget).run(file)                                   # protocol version
    _machine(budget).run(file)                                   # byte order and sizes of the machine it came from
    value = _machine(budget, promise).run(file)
    for key in _machine(budget).run(file):
        dtype, count = kinds[key]
        file.read(8)                                             # the count once more
        raw = file.read(count * _item_size(dtype))
        later[key].numbers[:] = _numbers(raw, dtype, count)
    return value


def _item_size(dtype: str) -> int:
    return 2 if dtype == "bf16" else np.dtype(dtype).itemsize


def _storage_type(dtype: str) -> str:
    return "<f4" if dtype == "bf16" else dtype


def _numbers(raw: bytes, dtype: str, count: int) -> np.ndarray:
    if len(raw) < count * _item_size(dtype):
        raise UnreadableFile(f"ends within a tensor of {count} numbers: download it again")
    if dtype == "bf16":                                          # the upper half of a float32
        return (np.frombuffer(raw, "<u2", count).astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, dtype, count).copy()


def array(value) -> np.ndarray | None:
    """A float64 array of a tensor, a NumPy array's record, a number or a list of numbers; None of anything else."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float64)
    if isinstance(value, Stub):
        return _numpy_array(value)
    if isinstance(value, (list, tuple)) and value and all(_is_number(item) for item in value) or _is_number(value):
        return np.array(value, dtype=np.float64)
    return None


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


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
    fits = isinstance(shape, tuple) and all(type(n) is int and n >= 0 for n in shape) and isinstance(raw, bytes)
    if kind not in _NUMPY_KINDS or not fits or len(shape) > 8:
        raise UnreadableFile("holds a NumPy array that is described wrongly")
    count = int(np.prod(np.array(shape, dtype=object))) if shape else 1
    if count > MAX_NUMBERS or len(raw) != count * np.dtype(kind).itemsize:
        raise UnreadableFile("holds a NumPy array whose numbers do not fit its shape")
    return np.frombuffer(raw, kind).reshape(shape, order="F" if fortran else "C").astype(np.float64)
