"""Files that are whole or absent: written beside their place, then moved into it."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomically(path, content: bytes) -> Path:
    """Write content to path so that a crash or a full disk leaves the old file, never half of the new one.

    Raises OSError as the system gives it (disk full, no permission), with nothing left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return path


def check_writable(path, size: int = 1 << 20) -> None:
    """Raise OSError where a file could not be written to path now: a full disk, a read-only folder, a refused name.

    Tried with `size` bytes beside it; what is at path stays as it is.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = _temporary(path)
    try:
        with open(trial, "xb") as file:
            file.write(os.urandom(size))
            file.flush()
            os.fsync(file.fileno())
    finally:
        trial.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
