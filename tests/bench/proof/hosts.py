"""Real hosts under load: a queue of ComfyUI, four clients of a WebUI. Each picture is the one made alone.

A host is a checkout with a .venv beside it, as for tests/hosts; where none is, its attack makes no tries.
"""

import json
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.proof.attack import Attack
from tests.host_checkout import checkout

TESTS = Path(__file__).parents[2] / "hosts"
TRIES = 200
COMFYUI = [("COMFYUI_NEW_PATH", "comfyui-new", "comfy/samplers.py"), ("COMFYUI_PATH", "comfyui", "comfy/samplers.py")]
FORGE, A1111, REFORGE = ([(f"{name.upper()}_PATH", name, "modules/sd_samplers_kdiffusion.py")]
                         for name in ("forge", "a1111", "reforge"))


class NotHere(Exception):
    """No such host is on this machine; the message says what is missing."""


class Host:
    """A host, and a script that its Python runs; the script tells lines of JSON.

    places: what `checkout` is asked for, one after another. told: the variable that tells the script the folder.
    """

    def __init__(self, places: list[tuple], script: str, told: str):
        self.places, self.script, self.told, self.words = places, TESTS / script, told, ""

    def tries(self, chance: random.Random) -> Iterator[str | None]:
        """What the script tells of each try; the figures it tells are kept as words."""
        try:
            for what in self.answers("--tries", str(TRIES), "--seed", str(chance.randrange(1000))):
                if isinstance(what, dict):
                    self.words = what["figures"]
                else:
                    yield what
            if not self.words:
                yield "the script ended before it told its figures"
        except NotHere:
            return
        except RuntimeError as error:
            yield str(error)

    def answers(self, *options: str) -> Iterator:
        """What the script tells. Raises NotHere, or RuntimeError with its last lines where it breaks off."""
        folder, python = self._place()
        environment = {**os.environ, self.told: str(folder), "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        running = subprocess.Popen([python, str(self.script), *options], cwd=self.script.parent, env=environment,
                                   text=True, errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        last: list = []
        try:
            for line in running.stdout:
                if line.startswith("\x1e"):
                    yield json.loads(line[1:])
                last = [*last[-20:], line]
            if running.wait():
                raise RuntimeError(f"the script ended: {''.join(last)[-1500:]}")
        finally:
            running.terminate()
            running.wait()

    def _place(self) -> tuple[Path, Path]:
        for place in self.places:
            try:
                return checkout(*place)
            except pytest.skip.Exception as reason:
                why = str(reason)
        raise NotHere(why)


UNDER_LOAD = {"comfyui": Host(COMFYUI, "comfyui/under_load.py", "COMFYUI_PATH"),
              "webui": Host([*FORGE, *A1111, *REFORGE], "webui/under_load.py", "S4S_WEBUI_HOST")}
_ALONE = "latent and note as from a fresh server alone; memory flat"
ATTACKS = [
    Attack("hosts", "prompts queued in a real ComfyUI: presets and models change, trainings run, some are interrupted",
           _ALONE, UNDER_LOAD["comfyui"].tries, 0, lambda: UNDER_LOAD["comfyui"].words),
    Attack("hosts", "requests of four clients to a real WebUI, with other checkpoints, presets, samplers",
           "picture and infotext as alone, before and after; memory flat", UNDER_LOAD["webui"].tries, 0,
           lambda: UNDER_LOAD["webui"].words),
]
