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
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
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
