"""Fuzzing that learns: an input that reaches new lines of the package is kept and changed further.

Coverage is of the package's own Python: which line follows which inside a function, by sys.settrace.
"""

import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from s4s.s4s_nodes import core
from tests.bench.proof import fuzz, presets
from tests.bench.proof.attack import Attack
from tests.bench.proof.forked import Child
from tests.bench.proof.fuzz import BATCH, MEGABYTES, SECONDS

PACKAGE = str(Path(core.__file__).parents[1])
LONGEST = 65_536            # bytes of an input
TOKENS = [b"null", b"true", b"NaN", b"1e999", b"-1", b"0", b"9" * 400, b"[]", b"{}", b'"', b'"":', b",", b"[" * 2000,
          b"[" * 600 + b"]" * 600, b'"ratio_95":', b'"cfg":', b'"size":[],', b"S4S table: ",
          b"\\u0000", b"\\ud800", b"\x00" * 8, b"\xff" * 8, b"../", b"calls2", b"sigmas", b"<script>", b"\x1b[2J",
          b".", b"}", b"]"]


class Guided:
    """tries(chance) of target(content, folder), which raises where something is wrong; seeds() are whole inputs."""

    def __init__(self, target: Callable[[bytes, Path], None], seeds: Callable[[], list[bytes]]):
        self.target, self.seeds, self.words = target, seeds, ""

    def tries(self, chance: random.Random) -> Iterator[str | None]:
        """At first the seeds as they are, then changes of what was kept."""
        kept, pairs, some = self.seeds(), set(), self.seeds()
        self.target(kept[0], Path(tempfile.mkdtemp()))              # what is imported on first use counts for none
        while True:
            with tempfile.TemporaryDirectory(prefix="s4s-proof-") as place:
                folder, tried = Path(place), some
                done = Child(lambda: self.batch(tried, pairs, folder), MEGABYTES).result()
            found = done.get("result") or {"failures": [f"the child ended: {done}"], "new": [], "pairs": []}
            if done.get("megabytes", 0) > MEGABYTES:
                found["failures"][-1] = f"a batch took {done['megabytes']:.0f} MB"
            kept += [some[place] for place in found["new"]]
            pairs |= set(found["pairs"])
            self.words = f"{len(pairs):,} pairs of lines reached, {len(kept):,} inputs kept"
            yield from found["failures"]
            some = [changed(chance.choice(kept), kept, chance) for _ in range(BATCH)]

    def batch(self, some: list[bytes], known: set, folder: Path) -> dict:
        """{failures, new: the places of inputs that reached new pairs of lines, pairs: these}."""
        failures, new, pairs = [], [], set()
        for place, content in enumerate(some):
            reached: set = set()
            failures.append(self.one(content, folder, reached))
            if reached - known - pairs:
                new.append(place)
                pairs |= reached - known
        return {"failures": failures, "new": new, "pairs": sorted(pairs)}

    def one(self, content: bytes, folder: Path, reached: set) -> str | None:
        """What is wrong with this input; the pairs of lines on its way are added to `reached`."""
        began = time.process_time()
        try:
            sys.settrace(tracer(reached))
            try:
                self.target(content, folder)
            finally:
                sys.settrace(None)
            if time.process_time() - began > SECONDS:               # tracing is slow: the time counts without it
                began = time.process_time()
                self.target(content, folder)
                assert time.process_time() - began < SECONDS, f"took {time.process_time() - began:.1f} s"
        except BaseException as error:
            return f"{type(error).__name__}: {str(error)[:300]} (input {content[:2000].hex()})"
        return None


def tracer(reached: set) -> Callable:
    """A trace function that adds (file, line before, line) of the package's functions."""
    def called(frame, event, argument):
        path = frame.f_code.co_filename
        if not path.startswith(PACKAGE):
            return None
        before, name = [0], path[len(PACKAGE) + 1:]

        def stepped(frame, event, argument):
            reached.add(f"{name}:{before[0]}:{frame.f_lineno}")
            before[0] = frame.f_lineno
            return stepped
        return stepped
    return called


def changed(content: bytes, kept: list[bytes], chance: random.Random) -> bytes:
    """The input with one to eight changes: bits, spans, tokens, parts of other inputs."""
    made = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 4, 8])):
        start = chance.randrange(len(made) + 1)
        end = min(len(made), start + chance.choice([1, 1, 4, 16, 64, len(made)]))
        kind = chance.randrange(6)
        if kind == 0 and start < len(made):
            made[start] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del made[start:end]
        elif kind == 2:
            made[start:start] = made[start:end] * chance.choice([1, 2, 50])
        elif kind == 3:
            made[start:chance.choice([start, end])] = chance.choice(TOKENS)
        elif kind == 4:
            made[start:end] = chance.randbytes(end - start)
        else:
            other = chance.choice(kept)
            cut = chance.randrange(len(other) + 1)
            made[start:end] = other[cut:cut + chance.choice([4, 64, len(other)])]
        del made[LONGEST:]
    return bytes(made)


def _names() -> list[bytes]:
    return [part.encode("utf-8", "surrogatepass") for part in fuzz.PARTS]


_LIMITS = f"{SECONDS:g} s and {MEGABYTES} MB"
KINDS = {"a preset's description, right checksum": ("refused in words, or usable everywhere", Guided(
             fuzz.described, lambda: [json.dumps(presets.DESCRIPTION).encode()])),
         "a preset's bytes": (f"refused in words, or the same; {_LIMITS}", Guided(
             fuzz.same_or_refused, lambda: [presets.BYTES])),
         "a record in an image's metadata": ("refused in words, or usable", Guided(
             fuzz.recorded, lambda: [fuzz.record().encode()])),
         "a name in every door": ("refused, or one file in its folder", Guided(
             lambda content, folder: fuzz.doors(content.decode("utf-8", "surrogateescape"), folder), _names))}
ATTACKS = [Attack("fuzz", f"guided by coverage: {name}", promise, made.tries, 1, lambda made=made: made.words)
           for name, (promise, made) in KINDS.items()]
