"""The teacher's error, and how many calls it needs: measured before its pairs are made."""

import math
from collections.abc import Callable
from typing import NamedTuple

from ..baselines.measure import baselines, measured
from ..source import Source
from .pairs import ends, make_pairs, rmse
from .solvers import teacher_of

SHARE = 5                   # least ratio of the student's expected error to the teacher's
GAIN = 3                    # the student's expected error is that of the best of a few baselines, divided by this
QUICK = {("dpmpp_2m", "karras"), ("dpmpp_2m", "beta"), ("dpmpp_2m", "simple"), ("unipc_bh2_2", "karras"),
         ("unipc_bh2_2", "beta"), ("unipc_bh2_2", "simple")}
SMALL_BUDGET = 5_000        # network calls a table
MOST_CALLS = 128            # most calls of a teacher that is chosen by its error


class Convergence(NamedTuple):
    """A teacher's calls, its RMSE to a finer solver of another kind, the student's expected error, the calls spent."""

    calls: int
    error: float
    student: float
    spent: int

    @property
    def suffices(self) -> bool:
        return self.error * SHARE <= self.student

    def doubt(self, source: Source) -> str:
        """A clause that says if the teacher is too coarse; a teacher of the source's own is the user's choice."""
        if self.suffices:
            return ""
        if source.teacher is not None:
            return ", as expected of a distilled model; any other model needs more teacher calls"
        return ", WARNING: more than a fifth of the tables' expected error"


def probes(budget: int) -> int:
    """Held-out seeds that a teacher is measured on."""
    return 2 if budget < SMALL_BUDGET else 4


def probe_calls(calls: int, student_calls: int) -> int:
    """Network calls that measuring a teacher of so many calls takes a seed: with a finer one, and a few baselines."""
    return 3 * calls + len(QUICK) * student_calls


def converge(source: Source, name: str, calls: int, student_calls: int, seeds: range,
             affords: Callable[[int, int], bool]) -> Convergence:
    """Double the teacher's calls until its error is a fifth of the student's, while the budget affords it.

    student_calls: of the table with the most calls, whose error will be the smallest. affords(calls, spent): whether a
    teacher of so many calls may be used, once measuring has cost so much. A source's own teacher is measured only.
    """
    before = source.model_calls
    while True:
        teacher = teacher_of(source, name, calls)
        finer = make_pairs(source, seeds, teacher.finer(None), "", quiet=True)
        error = rmse(ends(source, teacher.from_level(None), finer), finer.target)
        quick = measured(source, baselines(source, student_calls, QUICK), finer)
        student = min((entry.errors.mean() for entry in quick), default=math.inf) / GAIN
        convergence = Convergence(calls, error, student, source.model_calls - before)
        seeds = seeds[:2]                           # enough to see that a finer one suffices
        following = len(seeds) * probe_calls(2 * calls, student_calls)
        fixed = source.teacher is not None or 2 * calls > MOST_CALLS
        if convergence.suffices or fixed or not affords(2 * calls, convergence.spent + following):
            return convergence
        calls *= 2

