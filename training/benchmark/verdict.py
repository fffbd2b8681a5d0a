"""Who won a race, and whether its seeds and its teacher are good enough to say so.

A table is recommended where it is closer to the teacher than the best baseline by RMSE, by the median seed and on more
seeds than not, each with its 95 % interval. It lost where one of the three is worse, interval and all. Else there are
not enough seeds to say: it is not recommended, and runs as before.
"""

import math
from dataclasses import replace

import numpy as np

from ...s4s_nodes.core.scores import compared
from ..baselines.measure import Entry, pooled

FEWEST = 6                  # seeds: with fewer even winning all of them may be chance
NEAR, FAR = 1e-9, 1e6        # of results that equal the teacher's, and that are not finite, in a record
BETTER, WORSE, EVEN, UNSURE, WITHIN = "better", "worse", "even", "unsure", "within the teacher's error"


def summary(learned: Entry, ranked: list[Entry]) -> dict:
    """What a preset's scores say of one table; JSON-ready. Ratios above 1 mean the learned table is closer.

    Baselines that ran fewer seeds do not count.
    """
    learned, *ranked = (replace(entry, errors=np.clip(entry.errors, NEAR, FAR)) for entry in (learned, *ranked))
    finalists = [entry for entry in ranked if len(entry.errors) == len(learned.errors)]
    by_rmse = min(finalists, key=lambda entry: entry.rmse)
    by_median = min(finalists, key=lambda entry: entry.median)
    won = min(wins(learned, by_rmse), wins(learned, by_median))
    scores = {
        "seeds": len(learned.errors), "baselines_raced": len(ranked),
        "rmse": round(learned.rmse, 5), "rmse_95": [round(v, 5) for v in interval(learned.errors)],
        "median": round(learned.median, 5),
        "median_95": [round(v, 5) for v in interval(learned.errors, statistic=np.median)],
        "best_classical": by_rmse.name, "best_rmse": round(by_rmse.rmse, 5),
        "best_classical_by_median": by_median.name, "best_median": round(by_median.median, 5),
        "ratio": round(by_rmse.rmse / learned.rmse, 3),
        "ratio_95": [round(v, 3) for v in interval(by_rmse.errors, learned.errors)],
        "ratio_median": round(by_median.median / learned.median, 3),
        "ratio_median_95": [round(v, 3) for v in interval(by_median.errors, learned.errors, np.median)],
        "won": round(won, 3), "won_95": [round(v, 3) for v in share_interval(won, len(learned.errors))],
    }
    if len(learned.finer):
        scores["teacher_moves"] = [round(teacher_moves(learned, entry), 3) for entry in (by_rmse, by_median)]
    scores["verdict"] = EVEN if np.array_equal(by_rmse.errors, learned.errors) else outcome_of(scores)
    return {**scores, "recommended": scores["verdict"] == BETTER, "lost": scores["verdict"] == WORSE}


def outcome_of(scores: dict) -> str:
    """Better, worse, or why that cannot be said."""
    if any(within(scores[key], moves) for key, moves in zip(("ratio", "ratio_median"),
                                                            scores.get("teacher_moves", (1.0, 1.0)))):
        return WITHIN
    bounds = [scores["ratio_95"], scores["ratio_median_95"], [2 * share for share in scores["won_95"]]]
    if scores["seeds"] < FEWEST:
        return UNSURE
    if any(high < 1 for _, high in bounds):
        return WORSE
    return BETTER if all(low > 1 for low, _ in bounds) else UNSURE


def verdict(scores: dict) -> str:
    """One sentence: which is closer to the teacher, by how much, and when the other catches up."""
    best, seeds, outcome = scores["best_classical"], scores["seeds"], scores["verdict"]
    if outcome == EVEN:
        return f"Nothing was gained here: the table is the best baseline, {best}"
    if outcome == WITHIN:
        return (f"Within the teacher's error: a teacher with more calls could reverse which is closer, S4S or the best "
                f"baseline ({best})")
    times, side = compared(scores["ratio"], scores["ratio_95"])
    median, where = compared(scores["ratio_median"], scores["ratio_median_95"])
    times = (f"S4S is {times} times {side} the teacher than the best baseline ({best}); by the median seed {median} "
             f"times {where} it; closer on {100 * scores['won']:.0f} % [{100 * scores['won_95'][0]:.0f}, "
             f"{100 * scores['won_95'][1]:.0f}] of the seeds")
    if outcome == WORSE:
        return f"Not recommended, a baseline is closer: {times}"
    if outcome == UNSURE:
        return f"{seeds} seeds are not enough to say which is closer: {times}"
    if "classical_calls_to_match" not in scores:
        return times
    match = scores["classical_calls_to_match"]
    reached = f"needs {match} calls to match it" if match else (
        f"has not matched it with {scores['most_calls_tried']} calls")
    return f"{times}. A baseline {reached}."


def wins(learned: Entry, other: Entry) -> float:
    """The share of the seeds on which the learned table is closer; a tie is half a seed."""
    return float(np.mean((learned.errors < other.errors) + 0.5 * (learned.errors == other.errors)))


def share_interval(share: float, count: int) -> tuple[float, float]:
    """95 % interval of a share of `count` seeds: Wilson (1927)."""
    z = 1.96
    middle, scale = (share + z * z / (2 * count)), 1 + z * z / count
    spread = z * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return (middle - spread) / scale, (middle + spread) / scale


def teacher_moves(learned: Entry, other: Entry) -> float:
    """How many times a finer teacher moves the ratio of two errors, up or down; 1 where it was not asked."""
    count = len(other.finer)
    if count == 0:
        return 1.0
    before = pooled(other.errors[:count]) / pooled(learned.errors[:count])
    after = pooled(other.finer) / pooled(learned.finer)
    return float(max(before / after, after / before))


def within(ratio: float, moves: float) -> bool:
    """Whether the teacher's error, which moves ratios so many times, could turn this one around."""
    return moves > 1 and 1 / moves <= ratio <= moves


def within_text(learned: Entry, other: Entry) -> str:
    """A clause behind a baseline's error, where the teacher's own could reverse which is closer."""
    doubtful = other is not learned and within(other.rmse / learned.rmse, teacher_moves(learned, other))
    return ", within the teacher's error" if doubtful else ""


def interval(errors_above: np.ndarray, errors_below: np.ndarray | None = None, statistic=pooled, draws: int = 2000):
    """95 % bootstrap interval over seeds of a statistic, or of the ratio of two paired ones."""
    count = len(errors_above)
    picks = np.random.default_rng(0).integers(0, count, (draws, count))
    values = statistic(errors_above[picks], axis=1)
    if errors_below is not None:
        values = values / statistic(errors_below[:count][picks], axis=1)
    return tuple(float(v) for v in np.quantile(values, (0.025, 0.975)))
