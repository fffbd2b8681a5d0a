"""A training that is killed, whose disk is full, whose files are damaged, that meets another one."""

import errno
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from s4s.s4s_nodes.core import files, preset_file
from s4s.s4s_nodes.library import save_version
from s4s.training import run, run_folder
from tests.bench.proof.attack import Attack
from tests.bench.proof.forked import Child
from tests.bench.proof.runs import DIFFERENT, SETTINGS, folder, of_two, train, undisturbed, verdict, whole

MOST_KILLS = 3


def kills(chance: random.Random) -> Iterator[str | None]:
    """Killed up to three times at random moments, then resumed."""
    while True:
        name = chance.choice(list(SETTINGS))
        expected = whole(name)
        with folder() as place:
            for _ in range(chance.randint(1, MOST_KILLS)):
                child = Child(lambda: train(place / "run", name))
                time.sleep(chance.uniform(0, 1.1) * expected["seconds"])
                child.kill()
                child.result()
            yield resumed(place / "run", name)


def kills_of_two(chance: random.Random) -> Iterator[str | None]:
    """One of a run's two processes is killed, and the other soon after, as launchers do; then both are resumed."""
    while True:
        name = chance.choice(list(SETTINGS))
        expected = whole(name, 2)
        with folder() as place:
            for _ in range(chance.randint(1, MOST_KILLS)):
                children = of_two(place / "run", name)
                time.sleep(chance.uniform(0, 1.1) * expected["seconds"])
                first, other = chance.sample(children, 2)
                first.kill()
                time.sleep(chance.choice([0, chance.uniform(0, 0.3)]))
                other.kill()
                for child in children:
                    child.result()
            yield resumed(place / "run", name, 2)


def kills_in_a_write(chance: random.Random) -> Iterator[str | None]:
    """Killed before or after a random one of the system calls that write a file, then resumed."""
    while True:
        name = chance.choice(list(SETTINGS))
        with folder() as place:
            for _ in range(chance.randint(1, MOST_KILLS)):
                place_of_death = chance.randint(1, 60)
                Child(lambda: _with_calls(place / "run", name, lambda count: count == place_of_death and os.kill(
                    os.getpid(), signal.SIGKILL))).result()
            yield resumed(place / "run", name)


def full_disks(chance: random.Random) -> Iterator[str | None]:
    """The disk is full, read-only or failing from one write to another; the run goes on in memory, or is resumed."""
    while True:
        name, first = chance.choice(list(SETTINGS)), chance.randint(1, 60)
        last, error = first + chance.choice([1, 3, 1000]), chance.choice([errno.ENOSPC, errno.EROFS, errno.EIO])

        def full(count):
            if first <= count < last:
                raise OSError(error, os.strerror(error))
        with folder() as place:
            failure = verdict(Child(lambda: _with_calls(place / "run", name, full)).result(), whole(name), True)
            yield failure or resumed(place / "run", name)


def small_limits(chance: random.Random) -> Iterator[str | None]:
    """No file may grow beyond a few thousand bytes (RLIMIT_FSIZE); then it may."""
    while True:
        name, limit = chance.choice(list(SETTINGS)), int(10 ** chance.uniform(1, 5.3))

        def limited(run_folder):
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            return train(run_folder, name)
        with folder() as place:
            failure = verdict(Child(lambda: limited(place / "run")).result(), whole(name), True)
            yield failure or resumed(place / "run", name)


def damages(chance: random.Random) -> Iterator[str | None]:
    """One file of a stopped or finished run is truncated, flipped, swapped, deleted or emptied; then it is resumed."""
    while True:
        name = chance.choice(list(SETTINGS))
        with folder() as place:
            stopped, other = place / "run", place / "other"
            stop_somewhere(stopped, name, chance)
            stop_somewhere(other, name, chance, **chance.choice([{"seed": 1}, {"teacher_calls": 9}, {"pairs": 80}]))
            for number in range(8):                 # as many damages of one stopped run
                copy = Path(shutil.copytree(stopped, place / f"copy{number}"))
                paths = sorted(path for path in copy.rglob("*") if path.is_file() and path.name != ".lock")
                if not paths:
                    break
                path = chance.choice(paths)
                theirs = other / path.relative_to(copy)
                what = _damage(path, theirs, paths, chance)
                failure = verdict(Child(lambda: train(copy, name)).result(), whole(name), True)
                yield failure and f"{name}: {path.relative_to(copy)} {what}: {failure}"


def broken_networks(chance: random.Random) -> Iterator[str | None]:
    """The network fails in a random call: NaN, an error of a driver, an interruption; then the run is resumed.

    Not memory that runs out: the run continues with smaller parts, and rounds otherwise.
    """
    while True:
        name, call = chance.choice(list(SETTINGS)), chance.randint(1, 400)
        kind = chance.choice([RuntimeError, KeyboardInterrupt, None])
        with folder() as place:
            done = Child(lambda: train(place / "run", name, lambda run: _break(run.source, call, kind))).result()
            failure = resumed(place / "run", name)
            warned = any("answered NaN" in words for words in done.get("result", {}).get("said", []))
            yield None if warned and DIFFERENT in (failure or "") else failure


def other_versions(chance: random.Random) -> Iterator[str | None]:
    """A run that was stopped is resumed by a version of another name, with the same arithmetic."""
    def of_another(place: Path, name: str) -> dict:
        run_folder.TRAINER = run.TRAINER = "s4s 99.0"
        return train(place, name)
    while True:
        name = chance.choice(list(SETTINGS))
        with folder() as place:
            stop_somewhere(place / "run", name, chance)
            yield verdict(Child(lambda: of_another(place / "run", name)).result(), whole(name), True)


def two_trainings(chance: random.Random) -> Iterator[str | None]:
    """Two trainings start in one folder at nearly the same time: one ends as alone, the other too or is told."""
    while True:
        name = chance.choice(list(SETTINGS))
        expected = whole(name)
        with folder() as place:
            first = Child(lambda: train(place / "run", name))
            time.sleep(chance.choice([0, 0, chance.uniform(0, expected["seconds"])]))
            second = Child(lambda: train(place / "run", name))
            done = [first.result(), second.result()]
            failures = [verdict(one, expected, True) for one in done]
            alone = [one for one in done if "result" in one]
            yield next(filter(None, failures), None) or (None if alone else f"both were refused: {done}") \
                or resumed(place / "run", name)


def two_settings(chance: random.Random) -> Iterator[str | None]:
    """Two trainings of different settings start in one folder: what is there at the end is one of them, whole."""
    while True:
        with folder() as place:
            names = chance.sample(list(SETTINGS), 2)
            children = [Child(lambda name=name: train(place / "run", name)) for name in names]
            done = [child.result() for child in children]
            ends = [one["result"]["preset"] for one in done if "result" in one]
            kept = preset_file.load(place / "run" / "my-preset.safetensors").hash
            told = all("result" in one or one.get("words") for one in done)
            yield None if told and ends == [kept] else f"{kept} of {done}"


def one_name(chance: random.Random) -> Iterator[str | None]:
    """Four processes save different presets under one name at once: all four are there."""
    table = preset_file.Preset
    with folder() as place:
        undisturbed([Child(lambda: train(place / "run", "plain"))])
        made = preset_file.load(place / "run" / "my-preset.safetensors")
    while True:
        with folder() as place:
            marks = [f"{chance.random()}" for _ in range(4)]
            children = [Child(lambda mark=mark: save_version(table(
                made.name, made.tables, made.model, {**made.training, "mark": mark}), place)[0].name) for mark in marks]
            done = [child.result() for child in children]
            kept = sorted(preset_file.load(path).training["mark"] for path in place.glob("*.safetensors"))
            yield None if kept == sorted(marks) else f"{len(kept)} of 4 are there: {done}"


# --- how ----------------------------------------------------------------------------------------------------------

def resumed(place: Path, name: str, processes: int = 1) -> str | None:
    children = [Child(lambda: train(place, name))] if processes == 1 else of_two(place, name)
    done = [child.result() for child in children]
    failure = verdict(done[0], whole(name, processes), False)
    parts = [str(path) for path in place.rglob("*.part")]
    return failure and f"{name}: {failure}" or (f"left behind: {parts}" if parts else None)


def _with_calls(place: Path, name: str, on_call) -> dict:
    """train, and on_call(count) around the system calls that write a file: 1, 2, ..."""
    count = [0]

    def counted(real):
        def call(*given):
            count[0] += 1
            on_call(count[0])
            made = real(*given)
            count[0] += 1
            on_call(count[0])
            return made
        return call
    files.os = type(os)("os")
    vars(files.os).update(vars(os), fsync=counted(os.fsync), replace=counted(os.replace))
    return train(place, name)


def stop_somewhere(place: Path, name: str, chance: random.Random, **changes) -> None:
    """Half of the time to the end."""
    call = chance.choice([10 ** 9, chance.randint(20, 300)])
    Child(lambda: train(place, name, lambda run: _break(run.source, call, KeyboardInterrupt), **changes)).result()


def _break(source, call: int, kind) -> None:
    network, calls = source.network, [0]

    def breaking(x, sigma, **extra):
        calls[0] += 1
        if calls[0] == call and kind is not None:
            raise kind("the driver went away")
        answer = network(x, sigma, **extra)
        return answer * float("nan") if calls[0] == call else answer
    source.network = breaking


def _damage(path: Path, theirs: Path, paths: list, chance: random.Random) -> str:
    """Damage the file, and say how."""
    content = path.read_bytes()
    kind = chance.choice(["flipped", "flipped", "flipped", "truncated", "swapped", "exchanged", "deleted", "emptied"])
    if kind == "flipped" and content:
        at = chance.randrange(8 * len(content))
        path.write_bytes(content[:at // 8] + bytes([content[at // 8] ^ 1 << at % 8]) + content[at // 8 + 1:])
    elif kind == "truncated":
        path.write_bytes(content[:chance.randrange(len(content) + 1)])
    elif kind == "swapped" and theirs.exists():
        shutil.copy(theirs, path)
    elif kind == "exchanged":
        path.write_bytes(chance.choice(paths).read_bytes())
    else:
        path.unlink() if kind == "deleted" else path.write_bytes(b"")
    return kind


_EQUAL = "the same tensors as never disturbed"
_OR_WORDS = f"{_EQUAL}, or an answer in words"
ATTACKS = [
    Attack("faults", "kill -9 at a random moment, one to three times", _EQUAL, kills, 3),
    Attack("faults", "kill -9 of one of a run's two processes", "the same tensors as two that nobody disturbed",
           kills_of_two, 2),
    Attack("faults", "kill -9 around a system call that writes", _EQUAL, kills_in_a_write, 2),
    Attack("faults", "a file of the run flipped, cut, swapped, deleted", _OR_WORDS, damages, 4),
    Attack("faults", "a full, read-only or failing disk for some writes, then resumed", _EQUAL, full_disks),
    Attack("faults", "files limited in size, then resumed", _EQUAL, small_limits),
    Attack("faults", "the network fails in a random call, then resumed",
           f"{_EQUAL}, or a warning of NaN", broken_networks),
    Attack("faults", "stopped, then resumed by another version", _OR_WORDS, other_versions, 0.5),
    Attack("faults", "two trainings start in one folder", "one ends as alone, the other too or is told", two_trainings),
    Attack("faults", "two trainings of other settings in one folder", "one of them, whole", two_settings, 0.3),
    Attack("faults", "four presets saved at once under one name", "all four are there", one_name, 0.3),
]
