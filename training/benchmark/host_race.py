"""A race in a host: a preset against the baselines, within a budget of network calls, with progress.

Beside distil.py the other way into the trainer: a host hands over a Source and gets numbers, words and latents.
"""

import math
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch import Tensor

from ...s4s_nodes.core import Preset
from ...s4s_nodes.core.preset_file import with_scores
from ...s4s_nodes.select.cfg import running
from ..baselines.halving import EFFORTS, Effort
from ..source import Source
from ..sources import recorded_teacher
from ..teacher.convergence import Convergence, converge, probe_calls
from ..teacher.pairs import TEST_SEEDS, Pairs, ends, of_one_size
from ..teacher.solvers import calls_of, teacher_of
from .frechet import distance, moments
from .race import CHECKED, TableResult, pairs_from, race, race_calls, window_of
from .verdict import within_text

SHEET, SHEET_NOTE = 4, "the same seeds in equal steps"      # images side by side in a sheet, and its caption
PROBED = 2                  # seeds that measure the teacher before its pairs are made
SHARE_OF_CHECK = 0.2        # share of the budget that measuring the teacher may cost


@dataclass(frozen=True)
class Terms:
    """These tables on these seeds, counted from the range that no training uses, for so many network calls (0: any).

    teacher_calls: at first; more where they are too few and the budget affords them. samplers(source, counts): a host's
    own, as ({calls: entries}, what to say of them). where: the program it runs in. match: as in `race`.
    """

    tables: tuple
    seeds: range
    budget: int = 0
    teacher_calls: int = 50
    samplers: Callable | None = None
    where: str = "s4s"
    match: bool = False


@dataclass
class RaceProgress:
    """Callbacks of a race: status(text that the next one replaces), count(done, total) of network calls,
    finished(table, its TableResult). Any of them may raise to stop the race. total: a forecast of the network calls."""

    status: Callable = lambda words: None
    count: Callable = lambda done, total: None
    finished: Callable = lambda table, raced: None
    total: int = 0


@dataclass
class RaceResult:
    """What came of it: the preset with its scores, {table: TableResult}, the teacher's pairs of whole images, a summary
    in one line, and what to say of the host's own samplers."""

    preset: Preset
    raced: dict = field(default_factory=dict)
    whole: Pairs | None = None
    summary: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def scores(self) -> dict:
        return {name: result.scores for name, result in self.raced.items()}


def hold_race(source: Source, preset: Preset, terms: Terms, progress: RaceProgress) -> RaceResult:
    """Race the tables one by one, those learned at several cfg as they run at the source's.

    Raises ValueError for a budget that is too small, with what would do.
    """
    whole, preset = preset, replace(preset, tables=running(preset, terms.tables, source.cfg))
    source.teacher = source.teacher or recorded_teacher(source, preset)
    terms = replace(terms, tables=tuple(preset.tables))
    before, began, held = source.model_calls, time.monotonic(), RaceResult(whole)
    samplers, held.notes = _samplers(source, preset, terms, progress)
    if source.features is None and any(entry.frechet_only for entries in samplers.values() for entry in entries):
        source.features, source.feature_space = moments, "means and deviations of the latent's channels"
    with counted(source, progress):
        convergence, effort = plan_race(source, preset, terms, progress, samplers,
                                        (terms.budget or math.inf) - (source.model_calls - before))
        teacher, pairs_at, seeds = teacher_of(source, "auto", convergence.calls), {}, terms.seeds
        for name in terms.tables:
            top = window_of(source, preset.tables[name])
            if top not in pairs_at:
                progress.status(f"race of {name}: the teacher on {len(seeds)} unseen seeds")
                held.whole = held.whole or pairs_from(source, teacher, seeds)
                pairs = held.whole if top is None else pairs_from(source, teacher, seeds, top, held.whole.target)
                pairs_at[top] = pairs, ends(source, teacher.finer(top), pairs.part(slice(0, CHECKED)))
            progress.status(f"race of {name} on {len(seeds)} unseen seeds")
            pairs, finer = pairs_at[top]
            expected = source.model_calls + race_calls(source, preset, name, len(seeds), effort,
                                                       samplers.get(name, ()), likely=True)
            held.raced[name] = race(source, preset, name, pairs, effort, finer, samplers.get(name, ()), terms.match,
                                    teacher_error=float(f"{convergence.error:.3g}"),
                                    where=f"{terms.where} {source.device.type}")
            progress.total += source.model_calls - expected
            progress.finished(name, held.raced[name])
    if "imported" in whole.training and not whole.scores:   # published numbers become a preset for this model
        whole = replace(whole, model=replace(whole.model, family=source.model.family, hashes=source.model.hashes))
    held.preset = with_scores(whole, held.scores)
    other = preset.training.get("taught_by") if source.teacher_source is None else None
    unlike = f"; it learned from {other}, which is not the teacher here" if other else ""
    few = (f"; this budget ran all solvers on {effort.schedules} schedules only, so a closer baseline can be missed"
           if effort.probes else "")
    held.summary = (f"cfg {source.cfg:g}, {len(terms.seeds)} unseen seeds; teacher {teacher.description}, off by RMSE "
                    f"{convergence.error:.2g}{convergence.doubt(source)}; {source.model_calls - before:,} network "
                    f"calls, {time.monotonic() - began:.0f} s{few}{unlike}")
    return held


def plan_race(source: Source, preset: Preset, terms: Terms, progress: RaceProgress, samplers: dict,
              left: float) -> tuple[Convergence, Effort]:
    """The teacher, measured and given the calls it needs, and the search for the best baseline that is left for.

    left: network calls. Raises ValueError for too few, with what would do. Sets the total of progress.
    """
    tables = [preset.tables[name] for name in terms.tables]
    tops, most = {window_of(source, table) for table in tables}, max(table.calls for table in tables)
    first = calls_of(source.teacher, terms.teacher_calls)
    check = PROBED * probe_calls(first, most)

    def cost(effort: Effort, calls: int, likely: bool = False) -> int:
        return calls * len(tops | {None}) * (len(terms.seeds) + 2 * CHECKED) + sum(
            race_calls(source, preset, name, len(terms.seeds), effort, samplers.get(name, ()), likely)
            for name in terms.tables)
    if (least := check + cost(EFFORTS[0], first)) > left:
        raise ValueError(f"a budget of {terms.budget:,} network calls is too small for this race: at least "
                         f"{math.ceil(least + terms.budget - left):,} are needed; or use fewer seeds or teacher calls")

    def largest(calls: int, left: float) -> Effort:
        return [effort for effort in EFFORTS if effort is EFFORTS[0] or cost(effort, calls) <= left][-1]
    progress.total = check + cost(largest(first, left - check), first, likely=True)
    progress.status("race: measuring the teacher")
    begin = TEST_SEEDS + terms.seeds.start
    seeds = range(begin, begin + PROBED)

    def affords(calls: int, spent: int) -> bool:
        return spent <= SHARE_OF_CHECK * left and spent + cost(EFFORTS[0], calls) <= left
    teacher = converge(source, "auto", first, most, seeds, affords)
    effort = largest(teacher.calls, left - teacher.spent)
    progress.total = teacher.spent + cost(effort, teacher.calls, likely=True)
    return teacher, effort


def _samplers(source: Source, preset: Preset, terms: Terms, progress: RaceProgress) -> tuple[dict, list[str]]:
    """({table: the host's own samplers as entries}, what to say of them); for whole images alone."""
    whole = {name: preset.tables[name].calls for name in terms.tables
             if window_of(source, preset.tables[name]) is None}
    if terms.samplers is None or not whole:
        return {}, []
    progress.status("race: the host's samplers")
    by_calls, notes = terms.samplers(source, sorted(set(whole.values())))
    return {name: by_calls[calls] for name, calls in whole.items()}, notes


@contextmanager
def counted(source: Source, progress: RaceProgress):
    """Report a race's network calls one by one, so that the host can interrupt it."""
    before = source.model_calls

    def count(images: int = 0) -> None:
        progress.count(source.model_calls - before, progress.total)
    source.on_model_calls = count
    try:
        yield
        count()
    finally:
        source.on_model_calls = None


def sheet_rows(source: Source, held: RaceResult) -> list[tuple[str, str, Tensor]]:
    """The same unseen seeds by teacher, best baseline and preset: (label, caption, latents (n, ...))."""
    if held.whole is None:
        return []
    few = of_one_size(held.whole, SHEET)
    rows = [("teacher", "", few.target)]
    for name, result in held.raced.items():
        if "_from" in name:                         # a window's table starts on a picture
            continue
        calls, best = result.learned.table.calls, result.best
        rows += [(best.name, f"best baseline, {calls} calls, RMSE {best.rmse:.4f}", ends(source, best.table, few)),
                 ("S4S", f"{calls} calls, RMSE {result.learned.rmse:.4f}", ends(source, result.learned.table, few))]
    return [(label, caption, source.images(states, few.extra)) for label, caption, states in rows]


def table_lines(result: TableResult, shown: int = 6) -> list[str]:
    """The race in rows: RMSE to the teacher, best first, of those that ran all seeds; how many did not."""
    seeds, whole = len(result.learned.errors), result.finalists
    entries = sorted([result.learned, *whole[:shown]], key=lambda entry: entry.rmse)
    lines = [f"  {entry.rmse:.4f}  {'S4S' if entry is result.learned else entry.name}"
             f"{within_text(result.learned, entry)}" for entry in entries]
    out = len(result.ranked) - len(whole)
    left = f"; {out} dropped out early, on fewer" if out else ""
    return [*lines, f"  of {len(result.ranked)} baselines that took part, on {seeds} seeds{left}",
            *frechet_lines(result)]


def frechet_lines(result: TableResult) -> list[str]:
    """The samplers that only the Fréchet distance may judge, with S4S and the best baseline by it."""
    if not result.frechet_entries:
        return []
    names = ", ".join(entry.name for entry in result.frechet_entries)
    if result.teacher is None:
        return [f"  {names}: stochastic, or with another kind of guidance, so only the Fréchet distance can judge "
                "them. It needs more seeds than features: race on more seeds"]
    whole = [entry for entry in result.ranked if entry.features is not None]
    rows = sorted((distance(entry.features, result.teacher), entry is not result.learned, entry.name)
                   for entry in (result.learned, *whole, *result.frechet_entries) if entry.features is not None)
    shown = {result.learned.name, *[name for _, other, name in rows if other][:3],
             *(entry.name for entry in result.frechet_entries)}
    head = (f"  by the Fréchet distance to the teacher's results ({result.scores.get('feature_space', '')}), the only "
            "measure for stochastic samplers and CFG++:")
    return [head, *(f"  {far:.4f}  {name if other else 'S4S'}" for far, other, name in rows if name in shown)]
