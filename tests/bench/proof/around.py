"""A training whose surroundings change: its folder goes away, the clock jumps, memory runs out, threads are more."""

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from s4s.s4s_nodes.core import preset_file
from tests.bench.proof.attack import Attack
from tests.bench.proof.faults import resumed, stop_somewhere
from tests.bench.proof.forked import Child
from tests.bench.proof.runs import SETTINGS, folder, train, verdict, whole

YEAR = 365 * 86400


def folders(chance: random.Random) -> Iterator[str | None]:
    """At a random network call the run's folder is deleted, emptied or moved away, or another's takes its place."""
    while True:
        name, call, fate = chance.choice(list(SETTINGS)), chance.randint(1, 300), chance.choice(list(FATES))
        with folder() as place:
            stop_somewhere(place / "theirs", name, chance, seed=1)
            (place / "spare").mkdir()
            failure = _when_its_folder(fate, place, name, call)
            yield failure and f"{name}, {fate} at call {call}: {failure}"


FATES: dict[str, Callable[[Path], object]] = {
    "deleted": lambda place: shutil.rmtree(place / "run"),
    "emptied": lambda place: (shutil.rmtree(place / "run"), (place / "run").mkdir()),
    "moved away": lambda place: (place / "run").rename(place / "moved"),
    "another's": lambda place: (shutil.rmtree(place / "run"), shutil.copytree(place / "theirs", place / "run")),
    "a file's": lambda place: (shutil.rmtree(place / "run"), (place / "run").write_text("mine")),
}


def _when_its_folder(fate: str, place: Path, name: str, call: int) -> str | None:
    def work():
        tempfile.tempdir = str(place / "spare")
        return train(place / "run", name, lambda run: at_call(run.source, call, lambda: FATES[fate](place)))
    done = Child(work).result()
    if failure := verdict(done, whole(name), False):
        return failure
    if kept := [preset_file.load(path).hash for path in (place / "spare").rglob("*.safetensors")]:      # it gave way
        untouched = content(place / "run") == (content(place / "theirs") if fate == "another's" else {".": b"mine"})
        told = any("WARNING: cannot write" in words for words in done["result"]["said"])
        return None if told and untouched and kept == [done["result"]["preset"]] else f"{kept}, {untouched}, {told}"
    stayed = [place / name for name in ("run", "moved") if (place / name).exists()]
    return next(filter(None, (resumed(path, name) for path in stayed)), None)


def content(place: Path) -> dict[str, bytes]:
    """What a folder, or a file, holds; not whether somebody locked it."""
    paths = [path for path in place.rglob("*") if path.is_file()] if place.is_dir() else [place]
    return {str(path.relative_to(place)): path.read_bytes() for path in paths if path.name != ".lock"}


def clocks(chance: random.Random) -> Iterator[str | None]:
    """The clock is set back or forward by years at network calls, and so are the files' times between sessions."""
    while True:
        name = chance.choice(list(SETTINGS))
        jumps = [chance.uniform(-3, 3) * YEAR for _ in range(1000)]

        def work(run_folder, name=name, jumps=jumps):
            set_clock(jumps[-1])
            return train(run_folder, name, lambda run: at_calls(run.source, lambda call: set_clock(jumps[call % 1000])))
        with folder() as place:
            stop_somewhere(place / "run", name, chance)
            for path in (place / "run").rglob("*"):
                os.utime(path, (moment := max(0.0, time.time() + chance.choice(jumps)), moment))
            failure = verdict(Child(lambda: work(place / "run")).result(), whole(name), False)
            yield failure or resumed(place / "run", name)


REAL = time.time_ns


def set_clock(seconds: float) -> None:
    """Let this process's clock be that far from the machine's; what only counts on is not touched."""
    time.time_ns = lambda: REAL() + int(seconds * 1e9)
    time.time = lambda: time.time_ns() / 1e9


def memory(chance: random.Random) -> Iterator[str | None]:
    """Memory runs out for some network calls, for some operations of PyTorch, or the system gives no more of it."""
    while True:
        name, how = chance.choice(list(SETTINGS)), chance.choice(["calls", "operations", "limit"])
        first = chance.randint(1, 400 if how == "calls" else 400_000)
        last, error = first + chance.choice([1, 3, 1000]), chance.choice(MEMORY_ERRORS)
        megabytes = 10 ** chance.uniform(-1, 1.5) if how == "limit" else None

        def fail(count, first=first, last=last, error=error):
            if first <= count < last:
                raise error

        def work(run_folder, name=name, how=how, fail=fail):
            if how == "operations":
                with Operations(fail):
                    return train(run_folder, name)
            return train(run_folder, name, lambda run: at_calls(run.source, fail) if how == "calls" else None)
        with folder() as place:
            done = Child(lambda: work(place / "run"), megabytes).result()
            failure = None if out_of_memory(done) else verdict(done, whole(name), False)
            failure = failure or resumed(place / "run", name)
            yield failure and f"{name}, {how} from {first} to {last}, {megabytes} MB: {failure}"


MEMORY_ERRORS = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
                 RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 bytes")]


class Operations(TorchDispatchMode):
    """Calls act(1), act(2), ... before PyTorch's operations."""

    def __init__(self, act: Callable[[int], object]):
        super().__init__()
        self.act, self.count = act, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        self.act(self.count)
        return func(*args, **(kwargs or {}))


def out_of_memory(done: dict) -> bool:
    return any(words in done.get("trace", "") for words in ("MemoryError", "allocate", "failed to map segment"))


def threads(chance: random.Random) -> Iterator[str | None]:
    """Stopped with one number of threads and resumed with another."""
    while True:
        name, count = chance.choice(list(SETTINGS)), chance.choice([2, 3, 4])
        with folder() as place:
            stop_somewhere(place / "run", name, chance)

            def work(place=place, name=name, count=count):
                torch.set_num_threads(count)
                return train(place / "run", name)
            yield verdict(Child(work).result(), whole(name), False)


def at_call(source, call: int, act: Callable) -> None:
    """act() before the network call of that number."""
    at_calls(source, lambda count: act() if count == call else None)


def at_calls(source, act: Callable[[int], object]) -> None:
    network, calls = source.network, [0]

    def counted(x, sigma, **extra):
        calls[0] += 1
        act(calls[0])
        return network(x, sigma, **extra)
    source.network = counted


ATTACKS = [
    Attack("faults", "the folder is deleted, emptied, moved away or another run's, at a random call",
           "the same tensors as never disturbed; what moved in is as it was", folders, 2),
    Attack("faults", "the clock jumps by years at every call and between sessions",
           "the same tensors as never disturbed", clocks),
    Attack("faults", "memory runs out in calls or operations, or is limited; then resumed",
           "the same tensors as never disturbed", memory),
    Attack("faults", "stopped, then resumed with two to four threads",
           "the same tensors as never disturbed (of operations that PyTorch does not split)", threads, 0.5),
]
