"""What S4S adds to the start of a host, and what its own program takes to start.

Only the standard library is imported here: hosts' Pythons run this file, too (tests/hosts/*/costs.py).
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Start:
    """Seconds of the processor that S4S's import takes, and before it the host's; the modules imported, and ours."""

    seconds: float
    before: float
    modules: int
    ours: int


class Clock:
    """Times two imports, one after the other: the host, and after next() S4S."""

    def __init__(self):
        self._began, self._before = time.process_time(), 0.0

    def next(self) -> None:
        self._before = time.process_time() - self._began
        self._modules, self._began = set(sys.modules), time.process_time()

    def told(self, package: str) -> dict:
        """The fields of Start. package: the name that S4S has here."""
        seconds, new = time.process_time() - self._began, set(sys.modules) - self._modules
        return {"seconds": seconds, "before": self._before, "modules": len(new),
                "ours": sum(name.partition(".")[0] == package for name in new)}


_COMMAND = """
import sys
sys.path.insert(0, {folder!r})
from start_cost import Clock
clock = Clock()
clock.next()
from s4s.__main__ import main
sys.argv = ["s4s", *{arguments!r}]
try:
    main()
except SystemExit:
    pass
import json
print("\\x1e" + json.dumps(clock.told("s4s")))
"""


def of_command(*arguments: str) -> dict:
    """The fields of Start of `s4s ARGUMENTS` in a process of its own, beside Python's own start."""
    code = _COMMAND.format(folder=str(Path(__file__).parent), arguments=arguments)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.partition("\x1e")[2])
