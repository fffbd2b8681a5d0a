"""Work in a forked child: killed at any moment, or held to limits of time and memory. POSIX only."""

import json
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

_PAGE = resource.getpagesize()


class Child:
    """work() in a child; its result, or what it raised, comes back."""

    def __init__(self, work: Callable, megabytes: float | None = None):
        """megabytes: of address space beyond what this process has."""
        receive, send = os.pipe()
        sys.stdout.flush()
        self.number = os.fork()
        if not self.number:
            os.close(receive)
            _work(work, send, megabytes)
        os.close(send)
        self._pipe = os.fdopen(receive, "rb")

    def kill(self, kind: int = signal.SIGKILL) -> None:
        os.kill(self.number, kind)

    def result(self) -> dict:
        """{"result"} or {"error", "kind", "trace"}, with seconds and megabytes; {"died"} where it was killed."""
        with self._pipe:
            said = self._pipe.read()
        _, status, _ = os.wait4(self.number, 0)
        if os.WIFSIGNALED(status):
            return {"died": signal.Signals(os.WTERMSIG(status)).name}
        return json.loads(said)


def _work(work: Callable, send: int, megabytes: float | None) -> None:
    before = int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE if Path("/proc/self/statm").exists() else 0
    if megabytes is not None:
        space = int(Path("/proc/self/statm").read_text().split()[0]) * _PAGE
        resource.setrlimit(resource.RLIMIT_AS, (space + int(megabytes * 1e6),) * 2)
    began = time.process_time()
    try:
        said = {"result": work()}
    except BaseException as error:
        said = {"error": str(error)[:500], "words": isinstance(error, (ValueError, OSError)),
                "trace": traceback.format_exc()[-1500:]}
    said["seconds"] = time.process_time() - began
    said["megabytes"] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) / 1e6
    with os.fdopen(send, "w") as pipe:
        json.dump(said, pipe)
    os._exit(0)
