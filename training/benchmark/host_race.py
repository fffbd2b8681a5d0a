"""A race as a host holds it: a preset against the classical pairs, for so many network calls, told as it goes.

Beside distil.py the other way into the trainer: a host hands over a Source and gets numbers, words and latents.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from torch import Tensor

from ...s4s_nodes.core import Preset
from ...s4s_nodes.select.cfg import running
from ..baselines.measure import strong_pairs
from ..source import Source
from ..teacher.pairs import Pairs, ends
from .race import Raced, race, race_calls, unseen_pairs, window_of, with_scores

SHEET = 4                   # images side by side in a sheet
# who takes part first where not all can: what has won races, by turns
SOLVERS = ("dpmpp_2m", "lms_2", "unipc_bh2_2", "ipndm_2", "euler", "deis_2")
SCHEDULES = {False: ("karras", "beta", "gits_1.00", "ays_sd1", "sgm_uniform", "gits_1.10", "kl_optimal"),
             True: ("shift_1.5", "beta", "sgm_uniform", "shift_3", "time_uniform", "shift_2", "kl_optimal")}    # flow


@dataclass(frozen=True)
class Terms:
    """These tables on these seeds (counted from the range that no training uses), against so many classical pairs
    (0: all that count), for at most so many network calls (0: no limit)."""

    tables: tuple
    seeds: range
    opponents: int = 0
    budget: int = 0
    teacher_calls: int = 50


@dataclass
class Told:
    """Who is told: status(words that the next ones replace), count(done, total) of network calls, finished(table, its
    Raced). Any of them may raise to stop the race."""

    status: Callable = lambda words: None
    count: Callable = lambda done, total: None
    finished: Callable = lambda table, raced: None


@dataclass
class Held:
    """What came of it: the preset with its scores, {table: Raced}, the teacher's pairs of whole images, the price."""

    preset: Preset
    raced: dict = field(default_factory=dict)
    whole: Pairs | None = None
    words: str = ""

    @property
    def scores(self) -> dict:
        return {name: result.scores for name, result in self.raced.items()}


def _of_here(preset: Preset, source: Source) -> Preset:
    """Published numbers that nobody measured become a preset for the model they are raced on."""
    if preset.scores or "imported" not in preset.training:
        return preset
    return replace(preset, model=replace(preset.model, family=source.model.family, hashes=source.model.hashes))


def hold(source: Source, preset: Preset, terms: Terms, told: Told) -> Held:
    """Race the tables one by one, those learned at several cfg as they run at the source's.

    Raises ValueError for a budget that is too small, with what would do.
    """
    made, preset = preset, replace(preset, tables=running(preset, terms.tables, source.cfg))
    terms, count = replace(terms, tables=tuple(preset.tables)), len(terms.seeds)
    limit = fitting(source, preset, terms)
    before, began, held = source.model_calls, time.monotonic(), Held(made)
    for name in terms.tables:
        told.status(f"race of {name}: the teacher on {count} unseen seeds")
        make = partial(unseen_pairs, source, count, preset.tables[name], teacher_calls=terms.teacher_calls,
                       seed=terms.seeds.start)
        pairs = counted(source, told, count * terms.teacher_calls, make)
        held.whole = pairs if pairs.clean is None or held.whole is None else held.whole
        told.status(f"race of {name} on {count} unseen seeds")
        held.raced[name] = race(source, preset, name, pairs,
                                rivals(source, window_of(source, preset.tables[name]), limit), on_progress=told.count)
        told.finished(name, held.raced[name])
    own = {name: scores for name, scores in held.scores.items() if name in made.tables}
    held.preset = with_scores(_of_here(made, source), {**made.scores, **own}) if own else made
    held.words = (f"cfg {source.cfg:g}, {count} unseen seeds; {source.model_calls - before:,} network calls, "
                  f"{time.monotonic() - began:.0f} s")
    if other := [name for name in held.raced if name not in made.tables]:
        held.words += f"; none of its tables for {', '.join(other)} was learned at this cfg: no score is kept of them"
    return held


def counted(source: Source, told: Told, total: int, work: Callable):
    """work(), its network calls told one by one: the host can interrupt there."""
    before = source.model_calls
    source.on_model_calls = lambda images: told.count(source.model_calls - before, total)
    try:
        return work()
    finally:
        source.on_model_calls = None


def rivals(source: Source, top: float | None, most: int) -> set:
    """The first `most` of the classical (solver, schedule) that count."""
    places = [{name: i for i, name in enumerate(names)} for names in (SOLVERS, SCHEDULES[source.flow])]
    turn = {pair: sum(place.get(name, len(place)) for place, name in zip(places, pair))
            for pair in strong_pairs(source, top)}
    return set(sorted(turn, key=lambda pair: (turn[pair], pair))[:most])


def fitting(source: Source, preset: Preset, terms: Terms) -> int:
    """How many opponents the budget allows. Raises ValueError where it is too small for three, with what would do."""
    everyone, seeds = len(strong_pairs(source)), len(terms.seeds)
    most = min(terms.opponents or everyone, everyone)
    if not terms.budget:
        return most

    def cost(count):
        return sum(seeds * terms.teacher_calls + race_calls(preset.tables[name].calls, seeds, count)
                   for name in terms.tables)
    fits = [count for count in range(3, most + 1) if cost(count) <= terms.budget]
    if not fits:
        raise ValueError(f"a budget of {terms.budget:,} network calls is too small for this race: at least "
                         f"{cost(min(3, most)):,} are needed; or take fewer seeds, or fewer teacher calls")
    return fits[-1]


def sheet_rows(source: Source, held: Held) -> list[tuple[str, str, Tensor]]:
    """The same unseen seeds by teacher, best classical pair and preset: (label, caption, latents (n, ...))."""
    few = held.whole.part(slice(0, SHEET))
    rows = [("teacher", "", few.target)]
    for name, result in held.raced.items():
        if "_from" in name:                         # a window's table starts on a picture
            continue
        calls, best = result.learned.table.calls, result.best
        rows += [(best.name, f"best classical, {calls} calls, RMSE {best.rmse:.4f}", ends(source, best.table, few)),
                 ("S4S", f"{calls} calls, RMSE {result.learned.rmse:.4f}", ends(source, result.learned.table, few))]
    return rows


def table_lines(result: Raced, shown: int = 6) -> list[str]:
    """The race in rows: RMSE to the teacher, best first, of those that ran all seeds; how many did not."""
    seeds = len(result.learned.errors)
    whole = [entry for entry in result.ranked if len(entry.errors) == seeds]
    entries = sorted([result.learned, *whole[:shown]], key=lambda entry: entry.rmse)
    lines = [f"  {entry.rmse:.4f}  {'S4S' if entry is result.learned else entry.name}" for entry in entries]
    out = len(result.ranked) - len(whole)
    left = f"; {out} dropped out early, on fewer" if out else ""
    return [*lines, f"  of {len(result.ranked)} classical pairs that took part, on {seeds} seeds{left}"]
