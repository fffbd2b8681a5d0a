"""The linter's opinion of the whole tree."""

import subprocess
import sys
from pathlib import Path

import pytest


def test_ruff_has_nothing_to_say():
    pytest.importorskip("ruff")
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=Path(__file__).parents[1],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
