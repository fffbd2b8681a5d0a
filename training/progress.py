"""Progress events of a run, one before each batch of network calls, for bars, previews and cancelling."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm.auto import tqdm


@dataclass(frozen=True)
class Progress:
    """Where a run stands. An on_progress that raises stops the run, which is saved first.

    done and total count network calls of the whole run, one per image (total is a forecast); loss, held_out and
    classical are mean RMSE to the teacher (of the last iteration; of the best state; of the best classical solver
    measured so far), NaN while unknown. preview() -> (student (n, ...), teacher (n, ...)) from the same starts; it
    makes a few network calls that are not counted, and is None while there is no table yet.
    """

    phase: str              # "teacher", "learning" or "saving"
    table: str
    done: int
    total: int
    loss: float = math.nan
    held_out: float = math.nan
    classical: float = math.nan
    seconds_left: float = math.nan
    preview: Callable | None = None

    @property
    def closer(self) -> float:
        """How many times closer to the teacher the best state is than the best classical solver; NaN while unknown."""
        return self.classical / self.held_out if math.isfinite(self.classical + self.held_out) else math.nan


class RunProgress:
    """Where a run stands (phase, table, loss of the last iteration), reported to whoever listens.

    on_progress(Progress) is called before every network call, say(text) with messages; with neither, and not quiet, a
    terminal shows bars. total: a forecast of the run's network calls.
    """

    def __init__(self, on_progress: Callable | None = None, say: Callable | None = None, quiet: bool = False):
        self.on_progress, self.quiet, self._write = on_progress, quiet, say or tqdm.write
        self.bars = not (quiet or say or on_progress)
        self._opened, self.total = time.monotonic(), 0
        self.phase, self.table, self.loss = "teacher", "", math.nan
        self._bar = tqdm(disable=True)

    @property
    def seconds(self) -> float:
        """Seconds of this session."""
        return time.monotonic() - self._opened

    def say(self, text: str) -> None:
        if not self.quiet:
            self._write(text)

    def begin(self, phase: str, table: str = "") -> None:
        self.phase, self.table, self.loss = phase, table, math.nan

    @contextlib.contextmanager
    def bar(self, calls: int):
        """A bar over the network calls of the table that is learned meanwhile."""
        with tqdm(total=calls, desc=f"learning {self.table}", unit="call", disable=not self.bars or None) as self._bar:
            yield

    def note_iteration(self, state, loss: float, all_calls: int) -> None:
        self.loss = loss
        self._bar.set_postfix({"iteration": str(state.iteration), "loss": f"{loss:.4f}",
                               "times the baseline's error": f"{state.best_error / max(state.baseline, 1e-12):.2f}",
                               "all calls": f"{all_calls:,}"})

    def count(self, images: int, source, state, preview: Callable) -> None:
        """Report `images` more network calls of the source. state: the table's."""
        self._bar.update(images)
        if self.on_progress is None:
            return
        done, made = source.all_calls, source.model_calls
        total = max(done, self.total)
        left = self.seconds / made * (total - done) if made else math.nan       # at this session's pace
        self.on_progress(Progress(
            self.phase, self.table, done, total, self.loss, state.best_error if state else math.nan,
            state.baseline if state else math.nan,
            seconds_left=left, preview=preview if state else None))
