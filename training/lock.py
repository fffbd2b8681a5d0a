"""One training at a time in a folder: the system releases the lock when its holder ends, however it ends."""

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:                 # Windows
    fcntl = None                    # type: ignore[assignment]
    import msvcrt

NAME = ".lock"                      # stays in the folder: whoever deletes it lets a second one in, until `holds` tells
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK}


@contextmanager
def locked(folder: Path, say: Callable) -> Iterator[BinaryIO | None]:
    """Hold the folder while the block runs. Raises ValueError if another process or thread holds it, or for a file.

    Where the system gives no lock (some network drives, a folder that cannot be written), say(text) warns.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / NAME, "ab")
    except (FileExistsError, NotADirectoryError):
        raise ValueError(f"{folder} is not a folder, or is inside a file: choose another folder") from None
    except OSError as error:
        if not folder.is_dir():
            raise ValueError(f"{folder} cannot be created ({error.strerror or error}): choose another folder") from None
        _warn(folder, error, say)
        yield None
        return
    with file:
        try:
            _take(file.fileno())
        except OSError as error:
            if error.errno in _TAKEN:
                raise ValueError(f"another training is running in {folder}: wait, or choose another folder") from None
            _warn(folder, error, say)
        yield file


def holds(lock: BinaryIO | None, folder: Path) -> bool:
    """Whether what `locked` gave is still the folder's lock, and not that of one that was deleted or moved away."""
    try:
        return lock is None or lock.closed or os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / NAME))
    except FileNotFoundError:
        return False


def _take(number: int) -> None:
    if fcntl is not None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    else:
        os.lseek(number, 0, os.SEEK_SET)
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)


def _warn(folder: Path, error: OSError, say: Callable) -> None:
    say(f"WARNING: {folder} cannot be locked ({error.strerror or error}): do not start a second training there")
