"""Read hostile files, each in a process of its own under limits, and print what came of it as JSON.

    python tests/library/read_under_limits.py [--megabytes 100] [--seconds 1] [--only WORDS] [--damaged 2000]

One line a file: {"name", "bytes", "outcome", "seconds", "megabytes"}; megabytes is what the process held at most
beyond what it held before. An outcome is "read", "refused: ...", or how the process died. POSIX only.
"""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import hostile_files

from s4s.s4s_nodes.core import PresetError, preset_file

_PAGE = resource.getpagesize()


def outcome(path: Path) -> str:
    """What reading the file came to, as a person is told."""
    try:
        preset_file.load(path)
    except PresetError as error:
        return f"refused: {error}"
    return "read"


def _size() -> tuple[int, int]:
    """(address space, resident memory) of this process in bytes."""
    pages = Path("/proc/self/statm").read_text().split()
    return int(pages[0]) * _PAGE, int(pages[1]) * _PAGE


def in_child(work, limit: int, seconds: float) -> dict:
    """work() -> text in a child that gets `limit` bytes and twice the seconds beyond what it has."""
    receive, send = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if not child:
        space, before = _size()
        resource.setrlimit(resource.RLIMIT_AS, (space + limit,) * 2)
        resource.setrlimit(resource.RLIMIT_CPU, (int(2 * seconds + 1),) * 2)
        start, status = time.process_time(), 0
        try:
            words = work()
        except BaseException as error:
            words, status = f"{type(error).__name__}: {str(error)[:200]}", 1
        used = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
        os.write(send, json.dumps({"outcome": words[:2000], "seconds": round(used, 3),
                                   "megabytes": round(peak / 1e6, 1)}).encode())
        os._exit(status)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        said = pipe.read()
    _, status, usage = os.wait4(child, 0)
    if said:
        return json.loads(said)
    died = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"status {status}"
    return {"outcome": f"died: {died}", "seconds": round(usage.ru_utime, 3),
            "megabytes": round((usage.ru_maxrss * 1024 - _size()[1]) / 1e6, 1)}


def all_damaged(path: Path, count: int) -> str:
    """The slowest of the damaged files, and how many were read and refused."""
    slowest, counts = 0.0, {"read": 0, "refused": 0}
    for content in hostile_files.damaged(count):
        path.write_bytes(content)
        start = time.process_time()
        counts[outcome(path).split(":")[0]] += 1
        slowest = max(slowest, time.process_time() - start)
    return json.dumps({"slowest": slowest, **counts})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--damaged", type=int, default=2000)
    wanted = parser.parse_args()
    limit = int(wanted.megabytes * 1e6)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        in_child(lambda: _write(place), 2 ** 34, 60)                # in a child: no freed memory here for the readers
        outcome(place / "real.safetensors")                         # what is loaded on first use counts for none
        for name, file in json.loads((place / "names.json").read_text()).items():
            if wanted.only in name:
                path = place / file
                size = path.stat().st_size
                print(json.dumps({"name": name, "bytes": size,
                                  **in_child(lambda: outcome(path), limit + size, wanted.seconds)}))
        if wanted.damaged:
            print(json.dumps({"name": "damaged", "bytes": 0, **in_child(
                lambda: all_damaged(place / "x.safetensors", wanted.damaged), limit, 20)}))


def _write(place: Path) -> str:
    """Write the corpus and, in names.json, {name: file}."""
    names = {}
    for k, (name, content) in enumerate(hostile_files.hostile().items()):
        names[name] = f"{k}.safetensors"
        (place / names[name]).write_bytes(content)
    (place / "real.safetensors").write_bytes(hostile_files.real())
    (place / "names.json").write_text(json.dumps(names))
    return "written"


if __name__ == "__main__":
    main()
