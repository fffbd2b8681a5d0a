"""The tests in tests/hosts/webui, run by each WebUI host on this machine with its own Python.

A host is a checkout that can start, with an environment beside it: $FORGE_PATH, $A1111_PATH, $REFORGE_PATH,
$FORGE_NEO_PATH and $ERSATZFORGE_PATH, else the folders of HOSTS in ~/.cache/s4s-hosts; each with
.venv/bin/python, pytest in it.
"""

import os
import subprocess
from pathlib import Path

import pytest

from tests.host_checkout import checkout

HERE = Path(__file__).parent
HOSTS = {"FORGE_PATH": "forge", "A1111_PATH": "a1111", "REFORGE_PATH": "reforge"}
RELATED = {"FORGE_NEO_PATH": "forge-neo", "ERSATZFORGE_PATH": "ersatz-forge"}
EVERY = [*HOSTS, *(pytest.param(variable, marks=pytest.mark.slow) for variable in RELATED)]


def run(variable: str, *command, timeout: float = 1800):
    """A command of the host's Python, as its launcher would start it; its finished process."""
    folder, python = checkout(variable, {**HOSTS, **RELATED}[variable], "modules/sd_samplers_kdiffusion.py")
    environment = {**os.environ, "S4S_WEBUI_HOST": str(folder), "OMP_NUM_THREADS": "1"}
    for name in ("PYTHONPATH", "PYTEST_ADDOPTS"):
        environment.pop(name, None)
    return subprocess.run([python, *command], cwd=HERE, env=environment, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=timeout)


@pytest.mark.host
@pytest.mark.parametrize("test", ["test_modules.py", "test_server.py",
                                  pytest.param("test_training.py", marks=pytest.mark.slow)])
@pytest.mark.parametrize("variable", EVERY)
def test_the_extension_passes_its_tests_in(variable, test):
    done = run(variable, "-m", "pytest", HERE / "webui" / test)
    assert done.returncode == 0, "\n" + done.stdout[-6000:]


@pytest.mark.host
@pytest.mark.parametrize("variable", EVERY)
def test_install_is_silent_in(variable):
    """The host's launcher runs it at every start and prints what it says."""
    done = run(variable, HERE.parents[1] / "install.py")
    assert (done.returncode, done.stdout) == (0, "")
