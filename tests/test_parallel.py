"""Two processes learn what one learns, each with half of the network calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s4s_nodes.core import preset
from tests.parallel_worker import MODES, settings
from tests.toy import toy_source
from training.runs import Run

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder in which two processes have trained."""
    folder = tmp_path_factory.mktemp("world")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           "tests/parallel_worker.py", str(folder)], cwd=ROOT, capture_output=True, text=True,
                          timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def told(world, name):
    return [json.loads((world / f"{name}-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", MODES)
def test_two_processes_learn_the_table_of_one(world, tmp_path, name):
    alone = Run(settings(name), tmp_path, quiet=True, source=toy_source())
    wanted = alone.train().tables["calls4"]
    together = preset.load(world / name / "my-preset.safetensors")
    for part in ("sigmas", "query", "carry", "weights"):
        np.testing.assert_allclose(getattr(together.tables["calls4"], part), getattr(wanted, part), atol=2e-4)
    assert together.training["processes"] == 2 and "processes" not in alone.preset().training
    assert [one["all"] for one in told(world, name)] == [alone.source.model_calls] * 2


@pytest.mark.parametrize("name", MODES)
def test_each_makes_half_of_the_calls(world, name):
    for one in told(world, name):
        assert one["made"] < 0.53 * one["all"]


def test_a_finished_run_goes_on_from_what_the_first_process_saved(world):
    assert [one["all"] for one in told(world, "again")] == [0, 0]
