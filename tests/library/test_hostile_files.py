"""No file costs more than a second and 100 MB beyond itself, whether it is read or refused, and none kills the host."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are set as Linux has them")

MEGABYTES, SECONDS, DAMAGED = 100, 1, 2000
_READER = Path(__file__).with_name("read_under_limits.py")


@pytest.fixture(scope="module")
def results() -> list[dict]:
    """What `read_under_limits.py` printed."""
    done = subprocess.run([sys.executable, "-W", "ignore", str(_READER), "--megabytes", str(MEGABYTES), "--seconds",
                           str(SECONDS), "--damaged", str(DAMAGED)], stdout=subprocess.PIPE, text=True, timeout=300,
                          check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_hostile_file_is_refused_within_limits(results):
    hostile = [each for each in results if each["name"] != "damaged"]
    assert len(hostile) > 10
    for each in hostile:
        allowed = "read" if each["name"].startswith("a whole") else "refused: "
        assert each["outcome"].startswith(allowed) and len(each["outcome"]) < 600, each
        assert each["seconds"] < SECONDS and each["megabytes"] < MEGABYTES + each["bytes"] / 1e6, each


def test_two_thousand_damaged_files_are_read_or_refused_within_limits(results):
    found = next(each for each in results if each["name"] == "damaged")
    counts = json.loads(found["outcome"])
    assert counts["read"] + counts["refused"] == DAMAGED and counts["refused"] > DAMAGED / 2
    assert counts["slowest"] < SECONDS and found["seconds"] < 20 and found["megabytes"] < MEGABYTES
