"""Where the real hosts of the tests are: a checkout that can start, with an environment of its own beside it."""

import os
from pathlib import Path

import pytest


def checkout(variable: str, name: str, landmark: str) -> tuple[Path, Path]:
    """(folder, its Python) of the host at $variable, else ~/.cache/s4s-hosts/name, or a skip that says what is missing.

    landmark is a file that every checkout of the host has; the Python is the one in its .venv.
    """
    folder = Path(os.environ.get(variable) or Path.home() / ".cache" / "s4s-hosts" / name)
    if not (folder / landmark).is_file():
        pytest.skip(f"no host at {folder}: set {variable} to a checkout that starts")
    for python in (folder / ".venv" / "bin" / "python", folder / ".venv" / "Scripts" / "python.exe"):
        if python.is_file():
            return folder, python
    pytest.skip(f"{folder} has no .venv to run it with")
