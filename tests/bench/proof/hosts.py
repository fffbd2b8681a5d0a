"""Real hosts under load: a queue of ComfyUI, four clients of a WebUI. Each picture is the one made alone.

A host is a checkout with a .venv beside it, as for tests/hosts; where none is, its attack makes no tries.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.bench.proof.attack import Attack

TESTS = Path(__file__).parents[2] / "hosts"
TRIES = 200


class Host:
    """One host and the script that puts it under load; tries(chance) are those that the script tells of."""

    def __init__(self, variables: tuple, script: str, told: str):
        self.variables, self.script, self.told, self.words = variables, TESTS / script, told, ""

    def tries(self, chance: random.Random) -> Iterator[str | None]:
        folder = next((os.environ[name] for name in self.variables if os.environ.get(name)), None)
        if folder is None:
            return
        command = [f"{folder}/.venv/bin/python", str(self.script), "--tries", str(TRIES), "--seed",
                   str(chance.randrange(1000))]
        environment = {**os.environ, self.told: folder, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        running = subprocess.Popen(command, cwd=self.script.parent, env=environment, text=True, errors="replace",
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            yield from self._told(running)
        finally:
            running.terminate()
            running.wait()

    def _told(self, running: subprocess.Popen) -> Iterator[str | None]:
        """What the script says; its last lines where it ends before it told of all."""
        last: list = []
        for line in running.stdout:
            if line.startswith("\x1e"):
                what = json.loads(line[1:])
                if isinstance(what, dict):
                    self.words = what["figures"]
                else:
                    yield what
            last = [*last[-20:], line]
        if not self.words:
            yield f"the script ended: {''.join(last)[-1500:]}"


COMFYUI = Host(("COMFYUI_NEW_PATH", "COMFYUI_PATH"), "comfyui/under_load.py", "COMFYUI_PATH")
WEBUI = Host(("FORGE_PATH", "A1111_PATH", "REFORGE_PATH"), "webui/under_load.py", "S4S_WEBUI_HOST")
_ALONE = "latent and note as from a fresh server alone; memory flat"
ATTACKS = [
    Attack("hosts", "prompts queued in a real ComfyUI: presets change, trainings run, prompts are interrupted",
           _ALONE, COMFYUI.tries, 0, lambda: COMFYUI.words),
    Attack("hosts", "requests of four clients to a real WebUI, with other presets, samplers, steps",
           "picture and infotext as alone, before and after; memory flat", WEBUI.tries, 0, lambda: WEBUI.words),
]
