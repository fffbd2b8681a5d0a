"""Progress events of a run, one before each batch of network calls, for bars, previews and cancelling."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


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
    def share(self) -> float:
        """The share of the whole run that is done, 0 to 1."""
        return min(1.0, self.done / max(1, self.total))

    @property
    def closer(self) -> float:
        """How many times closer to the teacher the best state is than the best classical solver; NaN while unknown."""
        return self.classical / self.held_out if math.isfinite(self.classical + self.held_out) else math.nan


class Clock:
    """Estimates the remaining time from the calls of this session."""

    def __init__(self):
        self._opened = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._opened

    def left(self, made: int, to_make: int) -> float:
        """Seconds until `to_make` more calls are made, at the pace of the `made` ones; NaN before the first."""
        return self.seconds / made * max(0, to_make) if made else math.nan
