"""What a run tells: words for people, a bar at a terminal, and a Progress before every batch of network calls."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable

from tqdm.auto import tqdm

from .optimizers.state import State
from .progress import Clock, Progress


class Told:
    """Where a run stands (phase, table, loss of the last iteration), and who is told of it.

    on_progress(Progress) is told before every network call, say(text) of everything else; with neither, and not quiet,
    a terminal sees bars. total: a forecast of the run's network calls.
    """

    def __init__(self, on_progress: Callable | None, say: Callable | None, quiet: bool):
        self.on_progress, self.quiet, self._write = on_progress, quiet, say or tqdm.write
        self.bars = not (quiet or say or on_progress)
        self.clock, self.total = Clock(), 0
        self.phase, self.table, self.loss = "teacher", "", math.nan
        self._bar: tqdm | None = None

    def say(self, text: str) -> None:
        if not self.quiet:
            self._write(text)

    def begin(self, phase: str, table: str = "") -> None:
        self.phase, self.table, self.loss = phase, table, math.nan

    @contextlib.contextmanager
    def bar(self, calls: int):
        """A bar over the network calls of the table that is learned meanwhile."""
        with tqdm(total=calls, desc=f"learning {self.table}", unit="call", disable=None if self.bars else True) as bar:
            self._bar = bar
            try:
                yield
            finally:
                self._bar = None

    def iterated(self, state: State, loss: float, all_calls: int) -> None:
        """Note an iteration's loss and show it on the bar."""
        self.loss = loss
        if self._bar is None:
            return
        self._bar.set_postfix({"iteration": str(state.iteration), "loss": f"{loss:.4f}",
                               "times closer": f"{state.baseline / state.best_error:.2f}",
                               "all calls": f"{all_calls:,}"})

    def counted(self, images: int, done: int, made: int, state: State | None, preview: Callable) -> None:
        """Tell of `images` more network calls. done: the run's so far, made: this session's; state: the table's."""
        if self._bar is not None:
            self._bar.update(images)
        if self.on_progress is None:
            return
        total = max(done, self.total)
        self.on_progress(Progress(
            self.phase, self.table, done, total, self.loss, state.best_error if state else math.nan,
            state.baseline if state else math.nan,
            seconds_left=self.clock.left(made, total - done), preview=preview if state else None))
