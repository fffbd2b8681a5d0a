"""The race: learned tables against every classical solver x schedule at equal calls, on unseen seeds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from tqdm.auto import tqdm

from .core import Solver, classical, schedule
from .denoisers import Source
from .pairs import Pairs, errors, run

GITS_SHOWN = ("gits_1.00", "gits_1.10", "gits_1.20", "gits_1.30")      # of 15 coefficients; the hosts' default is 1.20
ROUNDS = ((8, 1.0), (32, 0.25), (None, 0.05))      # (seeds, share of the pairs that run them); None: all seeds
FEWEST = 8                                         # pairs that reach the last round


@dataclass(frozen=True)
class Entry:
    """One contestant and its errors: RMSE to the teacher per seed, for the first len(errors) seeds."""

    solver_name: str
    schedule_name: str
    solver: Solver
    errors: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def name(self) -> str:
        return f"{self.solver_name}, {self.schedule_name}"

    @property
    def rmse(self) -> float:
        """Over all pixels of all seeds together."""
        return float(np.sqrt(np.mean(self.errors ** 2)))

    @property
    def median(self) -> float:
        """Of the seeds' own RMSE."""
        return float(np.median(self.errors))


def schedules(source: Source) -> dict:
    """name -> (calls -> levels): every schedule that suits the model."""
    levels, low, high = source.levels, float(source.levels[0]), source.sigma_max
    known = {"karras": lambda n: schedule.karras(n, low, high),
             "exponential": lambda n: schedule.exponential(n, low, high),
             "kl_optimal": lambda n: schedule.kl_optimal(n, low, high),
             "time_uniform": lambda n: schedule.time_uniform(n, levels),
             "time_quadratic": lambda n: schedule.time_quadratic(n, levels),
             "sgm_uniform": lambda n: schedule.sgm_uniform(n, levels),
             "simple": lambda n: schedule.simple(n, levels),
             "beta": lambda n: schedule.beta(n, levels)}
    if source.flow:
        known.update({f"shift_{shift:g}": partial(schedule.linear_flow, shift=shift) for shift in (1.5, 2., 3., 5.)})
        published = ("oss_flux", "oss_wan", "oss_chroma")
    else:
        published = ("ays_sd1", "ays_sdxl", *GITS_SHOWN)
    known.update({name: partial(schedule.published, name) for name in published})
    return known


def contestants(source: Source, calls: int, names: set | None = None) -> list[Entry]:
    """Every classical pair that makes at most `calls` calls; names keeps only those pairs."""
    entries = []
    for schedule_name, levels in schedules(source).items():
        for solver_name, solver in classical.SOLVERS.items():
            if names is not None and (solver_name, schedule_name) not in names:
                continue
            steps = calls if solver.calls_per_step == 1 else (calls + 1) // 2
            made = solver(levels(steps), flow=source.flow)
            if made.calls <= calls:
                entries.append(Entry(solver_name, schedule_name, made))
    return entries


def measure(source: Source, entry: Entry, pairs: Pairs) -> Entry:
    """The entry with its errors on these pairs; a result that is not finite counts as infinitely far."""
    found = errors(run(source, entry.solver, pairs.noise, pairs.extra), pairs.target)
    return replace(entry, errors=np.nan_to_num(found, nan=np.inf, posinf=np.inf))


def race_classical(source: Source, calls: int, pairs: Pairs, quiet: bool = False) -> list[Entry]:
    """All classical pairs, best first. The losers of a round drop out with the errors of the seeds they ran."""
    running, out = contestants(source, calls), []
    for seeds, share in ROUNDS:
        keep = max(FEWEST, int(share * len(running))) if share < 1 else len(running)
        running, dropped = running[:keep], running[keep:]
        out = dropped + out
        few = pairs.part(slice(0, seeds))
        label = f"classical solvers, {calls} calls, {len(few)} seeds"
        running = [measure(source, entry, few) for entry in tqdm(running, desc=label, disable=quiet or None)]
        running.sort(key=lambda entry: entry.errors.mean())
    return running + out


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
    counts = range(learned.solver.calls + 1, most * learned.solver.calls + 1)
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


def summary(learned: Entry, ranked: list[Entry], matched: tuple) -> dict:
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
        "ratio": round(by_rmse.rmse / learned.rmse, 3), "ratio_95": [round(v, 3) for v in ratio],
        "ratio_median": round(by_median.median / learned.median, 3),
        "ratio_median_95": [round(v, 3) for v in ratio_median],
        "classical_calls_to_match": matched[0], "matched_by": matched[1],
    }
