"""Real trainings of a second, each in a child of its own, and what they come to."""

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch.distributed as dist

from s4s.training.parallel import World
from s4s.training.progress import RunProgress
from s4s.training.run import Run
from s4s.training.source import Source
from tests.bench.proof.forked import Child
from tests.toy import small, toy_source
from tests.training.test_sizes import both

SETTINGS = {        # windows, several calls, what the optimizer keeps between its iterations
    "plain": dict(iterations=3, pairs=16),
    "windows": dict(iterations=2, pairs=8, calls=(2, 3), windows=(1.0, 0.5)),
    "budget": dict(budget=3000, calls=(3,), iterations=0),
    "cfg range": dict(iterations=2, pairs=8, cfg=(1.0, 3.0)),
    "sizes": dict(iterations=2, pairs=8),
}

DIFFERENT = "SILENTLY DIFFERENT"
SMALL = dict(calls=(3,), teacher_calls=8, pairs=66, validation=8, iterations=4)      # 66: two files of pairs


def train(folder: Path, name: str, prepare: Callable = lambda run: None, world=None, **changes) -> dict:
    """Begin or resume the run of these settings to its end; what it came to, JSON-ready. prepare(run) comes first."""
    config = small(**{**SMALL, **SETTINGS[name], **changes})
    said = []
    run = Run(config, folder, resume=True, source=source_of(name),
              progress=RunProgress(say=said.append, quiet=bool(world) and not world.first), world=world)
    prepare(run)
    made = run.carry_out()
    return {"preset": made.hash, "states": states(run), "said": said}


def source_of(name: str) -> Source:
    """What the run of these settings learns on."""
    if name == "sizes":
        return both()
    source = toy_source()
    plain = source.network

    def asked(x, sigma, label, cfg):
        return plain(x, sigma, label) * (1 + 0.01 * cfg[:, None])
    return replace(source, network=asked, any_cfg=True) if name == "cfg range" else source


def of_two(folder: Path, name: str) -> list[Child]:
    """The same run in two processes that share its network calls; the first one's result counts."""
    meeting = folder.parent / f"meeting-{time.monotonic_ns()}"

    def work(rank: int) -> dict:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
        try:
            return train(folder, name, world=World(rank, 2, rank))
        finally:
            dist.destroy_process_group()
    return [Child(lambda rank=rank: work(rank)) for rank in range(2)]


def states(run: Run) -> str:
    """A hash of all that learning left: numbers, best numbers, errors, verdicts."""
    content = {name: [state.vector.tolist(), state.best.tolist(), state.iteration, state.best_error,
                      [row[:3] for row in state.curve]] for name, state in run.states.items()}
    facts = [content, run.facts, run.tables.starts_record()]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def same(one: dict, other: dict) -> bool:
    return (one["preset"], one["states"]) == (other["preset"], other["states"])


@contextmanager
def folder():
    """A place for a run, and for what is set beside it."""
    place = Path(tempfile.mkdtemp(prefix="s4s-proof-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@cache
def whole(name: str, processes: int = 1) -> dict:
    """What the run of these settings comes to when nobody disturbs it, and the seconds it takes."""
    warm()
    with folder() as place:
        began = time.monotonic()
        children = [Child(lambda: train(place / "run", name))] if processes == 1 else of_two(place / "run", name)
        return {**undisturbed(children), "seconds": time.monotonic() - began}


@cache
def warm() -> None:
    """Import here what every child would import anew on first use."""
    with folder() as place:
        train(place / "run", "plain")


def undisturbed(children: list[Child]) -> dict:
    """The first one's result. Raises RuntimeError where one broke off: nobody disturbed them."""
    done = [child.result() for child in children]
    if not all("result" in one for one in done):
        raise RuntimeError(f"an undisturbed run broke off: {done}")
    return done[0]["result"]


def verdict(done: dict, expected: dict, words_will_do: bool) -> str | None:
    """None where a child came to what was expected, or refused in words where that will do."""
    if "result" in done:
        return None if same(done["result"], expected) else f"{DIFFERENT}; said {done['result']['said'][-3:]}"
    if words_will_do and done.get("words") and done["error"]:
        return None
    return done.get("trace") or str(done)
