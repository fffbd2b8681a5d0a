"""What the linter and the type checker say of the whole tree."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("rules", [[], ["--select", "S102,S307,E702"]], ids=["ours", "comfy node validate"])
def test_ruff_has_nothing_to_say(rules):
    pytest.importorskip("ruff")
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", *rules, "."], cwd=ROOT,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_mypy_has_nothing_to_say(tmp_path):
    """The package is the clone's folder, whatever its name: mypy finds it as s4s."""
    pytest.importorskip("mypy", reason="mypy is not installed: pip install -e .[test]")
    (tmp_path / "s4s").symlink_to(ROOT, target_is_directory=True)
    done = subprocess.run([sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "--cache-dir",
                           str(ROOT / ".mypy_cache")], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_tensor_becomes_float64_on_its_device():
    """Apple's GPUs know no float64: first to the CPU."""
    code = [*ROOT.glob("s4s_nodes/**/*.py"), *ROOT.glob("training/**/*.py"), *ROOT.glob("scripts/*.py")]
    assert len(code) > 100 and not [str(path) for path in code if ".double().cpu()" in path.read_text("utf-8")]
