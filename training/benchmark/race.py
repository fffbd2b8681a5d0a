"""The race: learned tables against every classical solver x schedule at equal calls, on unseen seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tqdm.auto import tqdm

from ...s4s_nodes.core import Preset, Table, preset_file
from ...s4s_nodes.core.levels import starts_below
from ..baselines.measure import Entry, contestants, features_of, halved, measure, strong_pairs
from ..source import Source
from ..teacher.pairs import TEST_SEEDS, Pairs, make_pairs
from ..teacher.solvers import teacher_of
from . import frechet

RECOMMENDED_ABOVE = 1.0                            # times closer than the best classical pair


@dataclass(frozen=True)
class Raced:
    """A race of one table: JSON-ready scores, the contestants (best classical first), and one sentence.

    teacher: its features, where the source has a feature space.
    """

    scores: dict
    learned: Entry
    ranked: list[Entry]
    verdict: str
    teacher: np.ndarray | None = None

    @property
    def best(self) -> Entry:
        """The best classical pair."""
        return next(entry for entry in self.ranked if entry.name == self.scores["best_classical"])

    @property
    def recommended(self) -> bool:
        return self.scores["ratio"] >= RECOMMENDED_ABOVE


def unseen_pairs(source: Source, seeds: int, table: Table | None = None, teacher: str = "auto",
                 teacher_calls: int = 50, seed: int = 0) -> Pairs:
    """Teacher pairs on seeds no training run uses; for a window's table, from the teacher's images noised."""
    made = teacher_of(source, teacher, teacher_calls)
    numbers = range(TEST_SEEDS + seed, TEST_SEEDS + seed + seeds)
    whole = make_pairs(source, numbers, made.from_level(None), "", quiet=True)
    top = window_of(source, table) if table is not None else None
    return whole if top is None else make_pairs(source, numbers, made.from_level(top), "", True, whole.target)


def window_of(source: Source, table: Table) -> float | None:
    """The level a window's table starts at; None for a table of whole images."""
    return float(table.sigmas[0]) if starts_below(table.sigmas[0], source.sigma_max) else None


def race(source: Source, preset: Preset, table: str, pairs: Pairs, opponents: set | None = None,
         on_progress: Callable | None = None) -> Raced:
    """Race one table of a preset, sparingly, against classical pairs at equal calls on pairs it never saw.

    opponents: {(solver, schedule), ...}; None: the strong ones. on_progress(done, total) counts network calls
    (total is a forecast) and may raise to stop. Raises ValueError for an unknown table or fewer than 2 pairs.
    """
    if table not in preset.tables:
        raise ValueError(f"preset {preset.name!r} has no table {table!r}; it has {', '.join(sorted(preset.tables))}")
    if len(pairs) < 2:
        raise ValueError(f"{len(pairs)} pairs: a race needs at least 2, better 16")
    raced_table, count = preset.tables[table], len(pairs)
    top = window_of(source, raced_table)
    entries = contestants(source, raced_table.calls, opponents or strong_pairs(source, top), top)
    total = race_calls(raced_table.calls, count, len(entries))
    before, told = source.model_calls, source.on_model_calls
    if on_progress is not None:
        source.on_model_calls = lambda images: on_progress(source.model_calls - before, total)
    try:
        learned = measure(source, Entry("S4S", "learned", raced_table), pairs, features=True)
        ranked = halved(source, entries, pairs, sparing_rounds(count), 3, quiet=True)
    finally:
        source.on_model_calls = told
    return raced(source, learned, ranked, pairs)


def sparing_rounds(seeds: int) -> tuple:
    """The rounds of `race`, as `halved` takes them."""
    return (max(2, seeds // 8), 1.0), (max(2, seeds // 2), 0.2), (None, 0.3)


def race_calls(calls: int, seeds: int, opponents: int) -> int:
    """About how many network calls `race` makes for a table of so many calls, its teacher's left out."""
    (few, _), (more, _), _ = sparing_rounds(seeds)
    return calls * (4 * seeds + opponents * few + max(3, opponents // 5) * more)


def raced(source: Source, learned: Entry, ranked: list[Entry], pairs: Pairs, **more) -> Raced:
    """A race's results, by both measures: the RMSE, and in a source's feature space the Fréchet distance."""
    teacher = features_of(source, pairs.target)
    scores = {**summary(learned, ranked), **frechet.scores(learned, ranked, teacher, source.feature_space), **more,
              "cfg": source.cfg}
    return Raced(scores, learned, ranked, verdict(scores), teacher)


def with_scores(preset: Preset, scores: dict) -> Preset:
    """The preset with its scores: a table that a classical pair beat is not recommended, nor a preset of such alone."""
    judged = {name: {**score, "recommended": score["ratio"] >= RECOMMENDED_ABOVE} for name, score in scores.items()}
    recommended = any(judged[name]["recommended"] if name in judged else preset.recommended for name in preset.tables)
    return preset_file.with_scores(preset, judged, recommended)


def verdict(scores: dict) -> str:
    """One sentence: who is closer to the teacher, by how much, and when the other catches up."""
    low, high = scores["ratio_95"]
    if scores["ratio"] < RECOMMENDED_ABOVE:
        return (f"{scores['best_classical']} is {1 / scores['ratio']:.2f} times closer to the teacher: this table "
                "is marked as not recommended")
    closer = (f"S4S is {scores['ratio']:.2f} [{low:.2f}, {high:.2f}] times closer to the teacher than the best "
              f"classical pair ({scores['best_classical']}); by the median seed {scores['ratio_median']:.2f} "
              f"[{scores['ratio_median_95'][0]:.2f}, {scores['ratio_median_95'][1]:.2f}] times")
    if "classical_calls_to_match" not in scores:
        return closer
    match = scores["classical_calls_to_match"]
    reached = f"needs {match} calls to match it" if match else (
        f"has not matched it with {scores['most_calls_tried']} calls")
    return f"{closer}. A classical solver {reached}."


def calls_to_match(source: Source, learned: Entry, ranked: list[Entry], pairs: Pairs, quiet: bool = False,
                   seeds: int = 64, opponents: int = 8, most: int = 4) -> tuple[int | None, str]:
    """(calls, pair): the fewest calls at which a classical pair is as good as the learned table, on `seeds` seeds.

    The `opponents` best pairs of the equal-calls race run with growing numbers of calls, up to `most` times as
    many; None where none matched.
    """
    few = pairs.part(slice(0, seeds))
    goal = float(np.sqrt(np.mean(learned.errors[:seeds] ** 2)))
    names = {(entry.solver_name, entry.schedule_name) for entry in ranked[:opponents]}
    names |= {("unipc_bh2_3", "shift_2")} if source.flow else {("unipc_bh2_3", "karras"), ("dpmpp_3m", "exponential")}
    counts = range(learned.table.calls + 1, most * learned.table.calls + 1)
    for calls in tqdm(counts, desc="when do classical solvers catch up", disable=quiet or None):
        measured = [measure(source, entry, few) for entry in contestants(source, calls, names)]
        best = min(measured, key=lambda entry: entry.rmse)
        if best.rmse <= goal:
            return calls, best.name
    return None, ""


def interval(errors_above: np.ndarray, errors_below: np.ndarray | None = None, statistic=None, draws: int = 2000):
    """95 % bootstrap interval over seeds of a statistic, or of the ratio of two paired ones."""
    statistic = statistic or pooled
    rng = np.random.default_rng(0)
    count = len(errors_above)
    picks = rng.integers(0, count, (draws, count))
    values = statistic(errors_above[picks], axis=1)
    if errors_below is not None:
        values = values / statistic(errors_below[:count][picks], axis=1)
    return tuple(float(v) for v in np.quantile(values, (0.025, 0.975)))


def pooled(per_seed: np.ndarray, axis: int = -1) -> np.ndarray:
    """RMSE over everything from the RMSE of each seed."""
    return np.sqrt(np.mean(per_seed ** 2, axis=axis))


def summary(learned: Entry, ranked: list[Entry]) -> dict:
    """What a preset's scores say of one table; JSON-ready. Ratios above 1 mean the learned table is closer."""
    finalists = [entry for entry in ranked if len(entry.errors) == len(learned.errors)]
    by_rmse = min(finalists, key=lambda entry: entry.rmse)
    by_median = min(finalists, key=lambda entry: entry.median)
    ratio = interval(by_rmse.errors, learned.errors)
    ratio_median = interval(by_median.errors, learned.errors, np.median)
    return {
        "seeds": len(learned.errors), "pairs_raced": len(ranked),
        "rmse": round(learned.rmse, 5), "rmse_95": [round(v, 5) for v in interval(learned.errors)],
        "median": round(learned.median, 5),
        "median_95": [round(v, 5) for v in interval(learned.errors, statistic=np.median)],
        "best_classical": by_rmse.name, "best_rmse": round(by_rmse.rmse, 5),
        "best_classical_by_median": by_median.name, "best_median": round(by_median.median, 5),
        "recommended": round(by_rmse.rmse / learned.rmse, 3) >= RECOMMENDED_ABOVE,
        "ratio": round(by_rmse.rmse / learned.rmse, 3), "ratio_95": [round(v, 3) for v in ratio],
        "ratio_median": round(by_median.median / learned.median, 3),
        "ratio_median_95": [round(v, 3) for v in ratio_median],
    }
