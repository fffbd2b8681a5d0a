"""The race: learned tables against all baselines at equal calls, on unseen seeds."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ...s4s_nodes.core import Preset, Table
from ...s4s_nodes.core.levels import starts_below
from ..baselines.halving import EFFORTS, EVERY, Effort, Entrants, search_cost, searched
from ..baselines.measure import Entry, baselines, features_of, measured, pooled
from ..baselines.schedules import schedules_for, window_levels
from ..source import Source
from ..teacher.pairs import TEST_SEEDS, Pairs, make_pairs
from ..teacher.solvers import Teacher, teacher_of
from . import frechet
from .verdict import summary, verdict, within_text

CHECKED = 4                 # seeds that a finer teacher runs
MATCH_SEEDS, MATCH_BASELINES, MATCH_MOST = 64, 8, 4     # of `calls_to_match`
MATCH_EFFORT = Effort(0, EVERY, ((8, EVERY), (EVERY, 5)))


@dataclass(frozen=True)
class TableResult:
    """A race of one table: JSON-ready scores, the baselines (best first), and one sentence.

    teacher: its features, if the source has a feature space. frechet_entries: those with `frechet_only`, on all seeds.
    """

    scores: dict
    learned: Entry
    ranked: list[Entry]
    verdict: str
    teacher: np.ndarray | None = None
    frechet_entries: list[Entry] = field(default_factory=list)

    @property
    def finalists(self) -> list[Entry]:
        """The baselines that ran all seeds, best first: they come before all others."""
        return [entry for entry in self.ranked if len(entry.errors) == len(self.learned.errors)]

    @property
    def best(self) -> Entry:
        return next(entry for entry in self.ranked if entry.name == self.scores["best_classical"])


def unseen_pairs(source: Source, seeds: int, table: Table | None = None) -> Pairs:
    """Teacher pairs on seeds that no training uses; for a window's table, on the teacher's images, noised.

    Args:
        source: what makes them.
        seeds: how many.
        table: the table to race.
    """
    maker = teacher_of(source, "auto", 50)
    whole = pairs_from(source, maker, range(seeds))
    top = window_of(source, table) if table is not None else None
    return whole if top is None else pairs_from(source, maker, range(seeds), top, whole.target)


def pairs_from(source: Source, teacher: Teacher, seeds: range, top: float | None = None,
               clean: Tensor | None = None) -> Pairs:
    """A teacher's pairs on seeds counted from the range that no training uses; of a window, on clean images noised."""
    numbers = range(TEST_SEEDS + seeds.start, TEST_SEEDS + seeds.stop)
    return make_pairs(source, numbers, teacher.from_level(top), "", True, clean)


def window_of(source: Source, table: Table) -> float | None:
    """The level a window's table starts at; None for a table of whole images."""
    return float(table.sigmas[0]) if starts_below(table.sigmas[0], source.sigma_max) else None


def race(source: Source, preset: Preset, table: str, pairs: Pairs, effort: Effort = EFFORTS[1],
         finer: Tensor | None = None, samplers: Sequence[Entry] = (), match: bool = False, **more) -> TableResult:
    """Race one table of a preset against all baselines at equal calls, on pairs it never saw, by successive halving.

    The baseline that the table's training began at runs all pairs.

    Args:
        source: what to race on.
        preset: whose table races.
        table: its name, such as "calls6".
        pairs: as from `unseen_pairs`.
        effort: how hard to search for the best baseline.
        finer: targets of the first pairs by a finer teacher, which show the effect of the teacher's error.
        samplers: a host's own, to race as well.
        match: also find with how many calls a baseline gets as close.
        more: goes into the scores.

    Raises ValueError for an unknown table or fewer than 2 pairs.
    """
    if table not in preset.tables:
        raise ValueError(f"preset {preset.name!r} has no table {table!r}; it has {', '.join(sorted(preset.tables))}")
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs: a race needs at least 2, better 16")
    raced_table, top = preset.tables[table], window_of(source, preset.tables[table])
    entries = baselines(source, raced_table.calls, top=top, curve=curve_of(preset, table))
    entries += [entry for entry in samplers if not entry.frechet_only]
    [learned] = measured(source, [Entry("S4S", "learned", raced_table)], pairs, features=True)
    began_at = preset.training.get("baseline")
    kept = [str(began_at[table])] if isinstance(began_at, dict) and table in began_at else []
    ranked = searched(source, entries, pairs, effort, kept, source.features is not None)
    if finer is not None:
        few = replace(pairs.part(slice(0, len(finer))), target=finer)
        whole = [replace(entry, errors=np.empty(0)) for entry in (learned, *ranked) if len(entry.errors) == len(pairs)]
        finer_errors = {entry.name: entry.errors for entry in measured(source, whole, few)}
        learned, *ranked = (replace(entry, finer=finer_errors.get(entry.name, entry.finer))
                            for entry in (learned, *ranked))
    frechet_entries = measured(source, [entry for entry in samplers if entry.frechet_only], pairs, features=True)
    more |= calls_to_match(source, learned, ranked, pairs) if match else {}
    return result_of(source, learned, ranked, pairs, frechet_entries, **more)


def race_calls(source: Source, preset: Preset, table: str, seeds: int, effort: Effort,
               samplers: Sequence[Entry] = (), likely: bool = False) -> int:
    """The most network calls that `race` makes, its teacher's left out; likely: as in `search_cost`."""
    calls, schedules = preset.tables[table].calls, len(schedules_for(source, window_of(source, preset.tables[table])))
    apart = sum(entry.frechet_only for entry in samplers)
    entrants = Entrants(calls, schedules + 1, source.flow, len(samplers) - apart)
    search = search_cost(effort, entrants, seeds, source.features is not None, likely)
    return search + calls * (seeds * (1 + apart) + CHECKED * (effort.rounds[-1][1] + 2))


def curve_of(preset: Preset, table: str) -> np.ndarray | None:
    """A window's levels on the preset's own curve, a schedule that its training tried."""
    denoises = preset.training.get("denoise")
    denoise = denoises.get(table) if isinstance(denoises, dict) else None
    if not isinstance(denoise, float) or not 0 < denoise < 1:
        return None
    return window_levels(preset.curve, denoise, preset.tables[table].calls, preset.model.flow)


def result_of(source: Source, learned: Entry, ranked: list[Entry], pairs: Pairs,
              frechet_entries: Sequence[Entry] = (), **more) -> TableResult:
    """A race's results, best RMSE first, and by the Fréchet distance where the source has a feature space."""
    ranked = sorted(ranked, key=lambda entry: (-len(entry.errors), entry.rmse))
    teacher = features_of(source, pairs.target)
    scores = {**summary(learned, ranked), **frechet.scores(learned, ranked, teacher, source.feature_space), **more,
              "cfg": source.cfg, "size": source.size}
    return TableResult(scores, learned, ranked, verdict(scores), teacher, list(frechet_entries))


def calls_to_match(source: Source, learned: Entry, ranked: list[Entry], pairs: Pairs) -> dict:
    """What scores say of the fewest calls at which a baseline is as good as the learned table, on `MATCH_SEEDS` seeds.

    The best baselines of the equal-calls race run with growing numbers of calls, up to `MATCH_MOST` times as many.
    """
    few, most = pairs.part(slice(0, MATCH_SEEDS)), MATCH_MOST * learned.table.calls
    goal = pooled(learned.errors[:MATCH_SEEDS])
    names = {(entry.solver_name, entry.schedule_name) for entry in ranked[:MATCH_BASELINES]}
    names |= {("unipc_bh2_3", "shift_2")} if source.flow else {("unipc_bh2_3", "karras"), ("dpmpp_3m", "exponential")}
    for calls in range(learned.table.calls + 1, most + 1):
        tried = searched(source, baselines(source, calls, names), few, MATCH_EFFORT)
        closest = min([entry for entry in tried if len(entry.errors) == len(few)], key=lambda entry: entry.rmse)
        if closest.rmse <= goal:
            return {"classical_calls_to_match": calls, "matched_by": closest.name, "most_calls_tried": most}
    return {"classical_calls_to_match": None, "matched_by": "", "most_calls_tried": most}


class Row(NamedTuple):
    """An entry's line; frechet: distance to the teacher's results, if known; times: of S4S' RMSE on the seeds it ran;
    doubt: a clause where the teacher's error leaves open which is closer."""

    entry: Entry
    ours: bool
    name: str
    frechet: float | None
    times: float
    doubt: str


def row_of(entry: Entry, race: TableResult) -> Row:
    learned = race.learned
    far = None if entry.features is None or race.teacher is None else frechet.distance(entry.features, race.teacher)
    times = entry.rmse / float(pooled(learned.errors[:len(entry.errors)]))
    ours, doubt = entry is learned, within_text(learned, entry).removeprefix(", ")
    return Row(entry, ours, "S4S (learned)" if ours else entry.name, far, times, doubt)
