"""A queue of prompts in a running server, while presets change on disk, trainings run and prompts are interrupted.

    PYTHON_OF_THE_HOST tests/hosts/comfyui/under_load.py --tries 200 [--seed 0]

Each latent and each note in a picture has to be the one that a fresh server makes of the same prompt alone. Writes a
line of JSON for each prompt: null, or what is wrong in words; last {"figures": words}. `python -m tests.bench.proof
--only hosts` runs it.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

import s4s_client
import s4s_host
from PIL import Image
from safetensors.torch import load_file

BATCH = 25                      # prompts in the queue at once, between two changes on disk
TRAINED = (2, 5)                # batches in which a training waits among the prompts; the others are interrupted
MOST_GROWTH = 40.0              # MB of the server, from the end of its third batch on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    base = s4s_host.make_base(Path(tempfile.mkdtemp(prefix="s4s-load-")))
    try:
        s4s_host.start(base)
        import tiny_models
        tiny_models.write_all(base / "models")
        Load(base, wanted.seed).carry_out(wanted.tries)
    finally:
        shutil.rmtree(base, ignore_errors=True)


class Load:
    """The queue, and what each of its prompts has to come to."""

    def __init__(self, base: Path, seed: int):
        import s4s_tools
        self.base, self.chance, self.tools = base, random.Random(seed), s4s_tools
        self.model = cache(lambda name: s4s_tools.load(base, name))
        for name in ("sd15", "sd3"):
            for number in range(2):
                self.install(name, f"{name}-{number}", 0.02 + 0.03 * number)

    def install(self, name: str, called: str, by: float) -> None:
        """A preset of 4 and 6 calls for the tiny model, whose numbers depend on `by`."""
        from dataclasses import replace
        made = self.tools.preset_for(self.model(name), name=called)
        self.tools.install(self.base, replace(made, tables={
            key: self.tools.moved(table, by) for key, table in made.tables.items()}))

    def change(self, version: int) -> None:
        """Other numbers under the same names, as after a training."""
        for name in ("sd15", "sd3"):
            self.install(name, f"{name}-changing", 0.01 + 0.02 * version)

    def carry_out(self, tries: int) -> None:
        batches = [self.prompts(min(BATCH, tries - start)) for start in range(0, tries, BATCH)]
        self.change(0)
        server, found, held, interrupts = s4s_client.Server(self.base).wait(), [], [], 0
        try:
            for version, prompts in enumerate(batches):
                self.change(version)
                learned = version in TRAINED
                some, pressed = self.queued(server, prompts, learned and version)
                interrupts += pressed
                found.append(some)
                held.append(memory(server))
        finally:
            server.stop()
        self.compare(batches, found)
        growth = held[-1] - held[min(2, len(held) - 1)]
        stopped = sum(one is None for some in found for one in some)
        tell(None if growth < MOST_GROWTH else f"the server grew by {growth:.0f} MB")
        tell({"figures": f"{interrupts} interruptions pressed, {stopped} prompts stopped by one, "
                         f"{sum(version < len(batches) for version in TRAINED)} trainings in the queue; the server "
                         f"held {held[min(2, len(held) - 1)]:.0f} MB after {3 * BATCH} prompts and {held[-1]:.0f} MB "
                         "at the end"})

    def prompts(self, count: int) -> list[dict]:
        return [self.prompt(self.chance.choice(["sd15", "sd3"]), self.chance.choice(["0", "1", "changing", "rows",
                                                                                     "euler"]),
                            self.chance.choice([4, 6]), self.chance.choice([1, 2])) for _ in range(count)]

    def prompt(self, name: str, kind: str, calls: int, seed: int) -> dict:
        """Both of a named preset's outputs, or a plain KSampler with our rows or without."""
        from test_server import custom, ksampler, node, saved
        if kind in ("rows", "euler"):
            rows = {"rows": {}, "euler": {"sampler": "euler", "scheduler": "normal"}}[kind]
            made = ksampler("sd15", steps=calls, seed=seed, **rows)       # auto: no training makes presets for sd15
            name = "sd15"
        else:
            made = custom(name, f"{name}-{kind}", calls=calls)
            made["noise"]["inputs"]["noise_seed"] = seed
        return saved(made, name, "load") | {"kept": node("SaveLatent", samples=["samples", 0], filename_prefix="load")}

    def training(self, seed: int) -> dict:
        from test_server import graph, node
        return graph("sd3") | {"train": node(
            "S4STrainPreset", model=["model", 0], positive=["positive", 0], negative=["negative", 0],
            latent=["latent", 0], cfg=3.0, calls="3", windows="1.0", mode="forward-only", budget="quick",
            teacher_calls=12, race_seeds=2, name=f"learned-{seed}", seed=seed, resume=False),
            "shown": node("PreviewAny", source=["train", 1])}

    def queued(self, server, prompts: list[dict], learned) -> tuple[list, int]:
        """What came of each: (latent, notes), None where it was interrupted, words; how often that was pressed."""
        def post(prompt):
            from urllib.request import Request, urlopen
            body = json.dumps({"prompt": prompt}).encode()
            with urlopen(Request(f"{server.url}/prompt", body, {"Content-Type": "application/json"}), timeout=60) as a:
                return json.load(a)["prompt_id"]
        keys, pressed, over = [], [0], threading.Event()
        for place, prompt in enumerate(prompts):
            if learned and place == len(prompts) // 2:
                trained = post(self.training(learned))
            keys.append(post(prompt))

        def press():
            while not over.wait(self.chance.uniform(1.5, 5)):
                server.post("/interrupt", {})
                pressed[0] += 1
        if not learned:
            threading.Thread(target=press, daemon=True).start()
        while any(server.get("/queue").values()):
            time.sleep(0.2)
        over.set()
        if learned and server.get(f"/history/{trained}")[trained]["status"]["status_str"] != "success":
            tell("the training among the prompts failed")
        return [self.result(server.get(f"/history/{key}")[key]) for key in keys], pressed[0]

    def result(self, history: dict):
        kinds = [kind for kind, _ in history["status"]["messages"]]
        if "execution_interrupted" in kinds:
            return None
        if history["status"]["status_str"] != "success":
            return f"failed: {str(history['status']['messages'][-1])[:300]}"
        return self.files(history["outputs"])

    def files(self, outputs: dict) -> tuple:
        """(latent, the note on S4S in the picture)."""
        def path(kind, node):
            one = outputs[node][kind][0]
            return self.base / one["type"] / one["subfolder"] / one["filename"]
        with Image.open(path("images", "save")) as picture:
            notes = json.loads(picture.info.get("s4s", "[]"))
        return load_file(path("latents", "kept"))["latent_tensor"], notes

    def compare(self, batches: list, found: list) -> None:
        """With a fresh server, one prompt at a time, the presets as they were."""
        server, known = s4s_client.Server(self.base).wait(), {}
        for path in (self.base / "models" / "s4s_presets").glob("learned-*"):
            path.unlink()
        try:
            for version, (prompts, some) in enumerate(zip(batches, found)):
                self.change(version)
                for prompt, got in zip(prompts, some):
                    text = json.dumps([version, prompt])
                    if isinstance(got, tuple) and text not in known:
                        known[text] = self.files(server.run(prompt).history["outputs"])
                    tell(got if not isinstance(got, tuple) else difference(got, known[text], text))
        finally:
            server.stop()


def difference(got: tuple, alone: tuple, text: str) -> str | None:
    import torch
    if got[0].shape != alone[0].shape or not torch.equal(got[0], alone[0]):
        return f"another latent than alone: {text[:300]}"
    return None if got[1] == alone[1] else f"another note than alone: {got[1]}, not {alone[1]}"


def memory(server) -> float:
    return int(Path(f"/proc/{server._process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def tell(what) -> None:
    print(f"\x1e{json.dumps(what)}", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
