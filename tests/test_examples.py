"""Every script of examples/ runs to its end, as a reader would start it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
SAYS = {"add_a_solver": "baseline table: 6 calls", "preset_with_diffusers": "largest difference to s4s.sample: ",
        "sample_with_preset": "S4S: RMSE 0.0", "train_your_denoiser": "S4S is "}


def test_every_example_is_expected_and_short():
    assert [script.stem for script in SCRIPTS] == sorted(SAYS)
    assert max(len(script.read_text(encoding="utf-8").splitlines()) for script in SCRIPTS) <= 30


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_runs(script, tmp_path):
    if script.stem == "preset_with_diffusers":
        pytest.importorskip("diffusers")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    assert SAYS[script.stem] in done.stdout and not list(tmp_path.iterdir())
