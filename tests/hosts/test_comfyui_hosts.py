"""The tests in tests/hosts/comfyui, run by each ComfyUI on this machine with its own Python.

A host is a checkout with an environment beside it: $COMFYUI_PATH and $COMFYUI_NEW_PATH, else
~/.cache/s4s-hosts/comfyui and comfyui-new; each with .venv/bin/python, pytest in it.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.host_checkout import checkout

HERE = Path(__file__).parent
HOSTS = {"COMFYUI_PATH": "comfyui", "COMFYUI_NEW_PATH": "comfyui-new"}


@pytest.mark.host
@pytest.mark.parametrize("variable", HOSTS)
def test_the_pack_passes_its_tests_in(variable):
    folder, python = checkout(variable, HOSTS[variable], "comfy/samplers.py")
    environment = {**os.environ, "COMFYUI_PATH": str(folder), "OMP_NUM_THREADS": "1"}
    for name in ("PYTHONPATH", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    done = subprocess.run([python, "-m", "pytest", HERE / "comfyui"], cwd=HERE, env=environment, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=1800)
    assert done.returncode == 0, "\n" + done.stdout[-6000:]
