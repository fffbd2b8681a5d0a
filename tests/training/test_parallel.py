"""Two processes learn what one learns, each with half of the network calls."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from s4s.s4s_nodes.core import preset_file
from s4s.training.parallel import launched_alone
from s4s.training.progress import RunProgress
from s4s.training.run import Run
from tests.toy import toy_source
from tests.training.parallel_worker import MODES, settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder in which two processes have trained."""
    folder = tmp_path_factory.mktemp("world")
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
                           "tests/training/parallel_worker.py", str(folder)], cwd=ROOT, capture_output=True, text=True,
                          timeout=240, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def launched(tmp_path, launcher, *arguments):
    """The output of the command line, started in two processes by a launcher of this environment."""
    done = subprocess.run([sys.executable, "-m", *launcher, "tests/training/parallel_cli.py", "train",
                           *map(str, arguments), "--device", "cpu", "--out", str(tmp_path / "two")],
                          cwd=ROOT, capture_output=True, text=True, timeout=240,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ACCELERATE = ("accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
              "--mixed_precision", "no", "--dynamo_backend", "no")
QUICK = ("--calls", 3, "--teacher-calls", 6, "--pairs", 9, "--validation", 4, "--schedule", "time_uniform",
         "--iterations", 2, "--name", "tiny")


@pytest.mark.slow
def test_accelerate_starts_the_command_line_in_two_processes(tmp_path):
    """On CPUs, too: of its own --cpu it starts one process only, and the run says so."""
    pytest.importorskip("accelerate")
    assert launched(tmp_path, ACCELERATE, *QUICK).count("wrote ") == 1
    assert preset_file.load(tmp_path / "two" / "tiny.safetensors").training["processes"] == 2


@pytest.mark.slow
def test_two_processes_train_a_checkpoint(tmp_path):
    from s4s.training.config import Config
    from tests.checkpoints.tiny_checkpoints import folder
    from tests.k_diffusion_real import import_torchvision
    import_torchvision()
    place = folder("sd15", tmp_path / "sd15")
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    given = {"checkpoint": place, "prompts": tmp_path / "prompts.txt", "width": 32, "cfg": 4}
    launched(tmp_path, TORCHRUN, *QUICK, *(word for name, value in given.items() for word in (f"--{name}", value)))
    together = preset_file.load(tmp_path / "two" / "tiny.safetensors")
    settings = dict(zip([word[2:].replace("-", "_") for word in QUICK[::2]], QUICK[1::2]))
    alone = Run(Config.of(**{**settings, **given, "calls": (3,), "cfg": (4,), "checkpoint": str(place), "device": "cpu",
                          "prompts": str(given["prompts"])}), tmp_path / "one", progress=RunProgress(quiet=True))
    wanted = alone.train()
    assert together.training["processes"] == 2
    assert together.training["model_calls"] == wanted.training["model_calls"]
    for part in ("sigmas", "weights"):          # the told level is rounded to whole timesteps here, and may tip over
        np.testing.assert_allclose(getattr(together.tables["calls3"], part), getattr(wanted.tables["calls3"], part),
                                   atol=1e-3)


def test_a_single_process_where_several_were_asked_for_says_so(monkeypatch):
    """The environment in which `accelerate launch --cpu --num_processes 2` starts its one process."""
    assert not launched_alone()
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launched_alone()
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launched_alone()


def told(world, name):
    return [json.loads((world / f"{name}-{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("name", MODES)
def test_two_processes_learn_the_table_of_one(world, tmp_path, name):
    alone = Run(settings(name), tmp_path, progress=RunProgress(quiet=True), source=toy_source())
    wanted = alone.train().tables["calls4"]
    together = preset_file.load(world / name / "my-preset.safetensors")
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
