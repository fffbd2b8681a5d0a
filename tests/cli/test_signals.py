"""The program is stopped by a signal: in words, with what was learned saved."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
ROOT = Path(__file__).parents[2]


def started(*arguments):
    return subprocess.Popen([sys.executable, "-m", "s4s", *map(str, arguments)], cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"},
                            preexec_fn=heard)


def heard():
    """A shell's background jobs ignore Ctrl-C, and under nohup a closed terminal, and so do their children."""
    for kind in (signal.SIGINT, signal.SIGHUP):             # this runs on POSIX alone
        signal.signal(kind, signal.SIG_DFL)


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, getattr(signal, "SIGHUP", None)])
def test_a_training_that_is_ended_saves_and_says_how_to_resume(tmp_path, kind):
    out = tmp_path / "run"
    with started("train", "--calls", 3, "--budget", 0, "--pairs", 64, "--validation", 8,
                 "--teacher-calls", 8, "--schedule", "karras", "--iterations", 9999, "--out", out) as run:
        while run.poll() is None and not (out / "log.jsonl").exists():
            time.sleep(0.05)
        run.send_signal(kind)
        try:
            said, wrong = run.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            run.kill()
            raise
    assert run.returncode == 130 and "Traceback" not in wrong, wrong
    assert f"stopped and saved; resume with: s4s train --resume {out}" in wrong
    assert (out / "state.safetensors").exists() and not list(out.rglob("*.part"))


@pytest.mark.parametrize("where", ["click", "s4s.training.cli.main", "s4s.training.run", "torch"])
def test_ctrl_c_while_the_program_is_being_imported_gives_no_traceback(where):
    code = ("import sys, s4s.__main__ as door\n"
            "class Stop:\n"
            "    def find_spec(name, *_):\n"
            f"        if name == {where!r}:\n"
            "            raise KeyboardInterrupt\n"
            "sys.meta_path.insert(0, Stop)\n"
            "sys.argv = ['s4s', 'train', '--name', 'x']\n"
            "door.main()")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    more = "" if where == "click" else "; nothing was left half-written"
    assert (done.returncode, done.stderr) == (130, f"\nstopped{more}\n")
