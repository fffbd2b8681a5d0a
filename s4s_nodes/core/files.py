"""Atomic files: written to a temporary neighbor, then moved into place."""

import os
import stat
import uuid
from pathlib import Path


def write_atomically(path, content: bytes, new: bool = False) -> Path:
    """Write content to path atomically: a crash or a full disk leaves the old file, never half a new one.

    A symbolic link is followed and kept, and so is the file's mode. new: fail if the path exists, even as a broken
    link; of two processes, one succeeds. Raises FileExistsError, or OSError from the system; nothing is left behind.
    """
    path = Path(path)
    place = path if new or not path.is_symlink() else Path(os.path.realpath(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    temporary = place.with_name(f".{place.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            try:
                os.link(temporary, place)
            except OSError:                     # of a file that is there, or of a file system without hard links
                open(place, "xb").close()
                os.replace(temporary, place)
        else:
            if place.exists():
                os.chmod(temporary, stat.S_IMODE(os.stat(place).st_mode))
            os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def stamp(path) -> tuple:
    """(size, times, inode): changes when the file's content does. Raises OSError from the system.

    File systems round times: two changes within `TICK` seconds may have the same stamp.
    """
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev


TICK = 2.0                  # seconds; the coarsest file system's (FAT)
