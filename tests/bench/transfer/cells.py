"""Results on disk, one JSON file a cell: what was measured is not measured again."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from s4s.s4s_nodes.core import Table
from s4s.s4s_nodes.core.files import write_atomically
from s4s.training.teacher.pairs import Pairs, known_pairs, make_pairs
from s4s.training.teacher.solvers import teacher_of

PARTS = ("sigmas", "query", "scale", "carry", "weights")


class OutOfTime(Exception):
    """The minutes that were asked for have passed; what is measured is kept."""


class Store:
    """A cache folder of cells and teacher pairs; minutes: how long new ones are begun."""

    def __init__(self, folder, minutes: float = math.inf):
        self.folder, self._until = Path(folder), time.monotonic() + 60 * minutes

    def cell(self, name: str, make: Callable[[], dict]) -> dict:
        """The JSON of this cell, made now if the folder lacks it. Raises OutOfTime."""
        path = self.folder / "cells" / f"{name}.json"
        if not path.is_file():
            self._check_time()
            path.parent.mkdir(parents=True, exist_ok=True)
            content = make()
            print(f"{name}: {content.get('words', 'done')}", flush=True)
            write_atomically(path, json.dumps(content, indent=1).encode())
        return json.loads(path.read_text())

    def pairs(self, source, mark: str, seeds: range, calls: int = 50) -> Pairs:
        """Teacher pairs of these seeds; mark: what tells this source from others of its name."""
        path = self.folder / "pairs" / f"{mark}-{seeds.start}-{seeds.stop}-{calls}.npy"
        if path.is_file():
            return known_pairs(source, seeds, torch.from_numpy(np.load(path)))
        made = make_pairs(source, seeds, teacher_of(source, "auto", calls).from_level(None), "", quiet=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part.npy")
        np.save(partial, made.target.numpy())
        partial.replace(path)
        return made

    def _check_time(self) -> None:
        if time.monotonic() > self._until:
            raise OutOfTime("the time is over: the same command resumes where this one stopped")


def numbers(table: Table) -> dict:
    """A table, JSON-ready."""
    return {part: getattr(table, part).tolist() for part in PARTS}


def table(content: dict) -> Table:
    """The table of `numbers`."""
    return Table(**{part: np.array(content[part]) for part in PARTS})
