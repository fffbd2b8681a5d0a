"""The tests in tests/comfyui, run by each ComfyUI on this machine with its own Python.

A host is a checkout with an environment beside it: $COMFYUI_PATH and $COMFYUI_NEW_PATH, else
~/.cache/s4s-hosts/comfyui and comfyui-new; each with .venv/bin/python, pytest in it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HOSTS = {"COMFYUI_PATH": "comfyui", "COMFYUI_NEW_PATH": "comfyui-new"}


def python_of(variable: str) -> tuple[Path, Path]:
    """(checkout, its Python), or a skip that says what is missing."""
    folder = Path(os.environ.get(variable) or Path.home() / ".cache" / "s4s-hosts" / HOSTS[variable])
    if not (folder / "comfy" / "samplers.py").is_file():
        pytest.skip(f"no ComfyUI at {folder}: set {variable} to a checkout")
    for python in (folder / ".venv" / "bin" / "python", folder / ".venv" / "Scripts" / "python.exe"):
        if python.is_file():
            return folder, python
    pytest.skip(f"{folder} has no .venv to run it with")


@pytest.mark.host
@pytest.mark.parametrize("variable", HOSTS)
def test_the_pack_passes_its_tests_in(variable):
    folder, python = python_of(variable)
    environment = {**os.environ, "COMFYUI_PATH": str(folder), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run([python, "-m", "pytest", HERE / "comfyui"], cwd=HERE, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1800)
    assert done.returncode == 0, "\n" + done.stdout[-6000:]
