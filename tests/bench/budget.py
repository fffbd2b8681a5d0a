"""How much of what unlimited training gains a budget of 10,000 network calls per table reaches.

    python -m tests.bench.budget [--model digits-eps,digits-flow] [--calls 6] [--budget 10000] [--seeds 5000,6000,7000]
                                 [--without digits-flow] [--folder FOLDER]

A run's share is (classical - budgeted) / (classical - unlimited), on 256 seeds that no run used: by the RMSE over all
pixels and by the median seed's. Classical is the best pair of the race on these seeds, unlimited the table that ships
(`--mode forward`, 256 pairs); both are in the preset's own scores. The runs are by `--mode forward --budget`; each seed
is another set of pairs. Goal: a mean share of 90 % on both models. A run may start from what another model learned;
never from its own model's, and not from those named by --without. FOLDER keeps runs and teacher pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from s4s_nodes.core import preset
from s4s_nodes.library import shipped_folder
from training import patterns
from training.config import Config
from training.denoisers import bundled
from training.evaluate import unseen_pairs
from training.pairs import TEST_SEEDS, ends, errors, known_pairs
from training.runs import Run

GOAL, SEEDS = 0.9, 256


def unseen(source, folder: Path):
    """The race's own pairs, from the folder where they are."""
    path = folder / f"unseen-{source.name}.safetensors"
    if not path.exists():
        save_file({"target": unseen_pairs(source, SEEDS).target.contiguous()}, path)
    return known_pairs(source, range(TEST_SEEDS, TEST_SEEDS + SEEDS), load_file(path)["target"])


def learned(name: str, calls: int, budget: int, seed: int, folder: Path) -> tuple:
    """(table, start, network calls, training pairs) of one budgeted run."""
    config = Config(name=f"{name}-{seed}", model=name, calls=(calls,), mode="forward", budget=budget, seed=seed)
    run = Run(config, folder / f"{name}-{calls}-{budget}-{seed}", resume=True, quiet=True)
    made = run.train()
    key = f"calls{calls}"
    return made.tables[key], run.starts[key]["schedule"], run.model_calls, run.plan.pairs


def shares(scores: dict, found: np.ndarray) -> tuple[float, float, float, float]:
    """(RMSE, its share, median, its share) of the errors (n,) of a table."""
    rmse, median = float(np.sqrt((found ** 2).mean())), float(np.median(found))
    return (rmse, (scores["best_rmse"] - rmse) / (scores["best_rmse"] - scores["rmse"]),
            median, (scores["best_median"] - median) / (scores["best_median"] - scores["median"]))


def bench(name: str, calls: int, budget: int, seeds: list[int], folder: Path) -> None:
    """Print one model's rows."""
    source = bundled(name, 3.0)
    pairs, rows = unseen(source, folder), []
    scores = preset.load(shipped_folder() / f"{name}-cfg3.safetensors").scores[f"calls{calls}"]
    print(f"\n{name}, {calls} calls: best classical pair {scores['best_rmse']:.4f} (median {scores['best_median']:.4f})"
          f", unlimited {scores['rmse']:.4f} ({scores['median']:.4f})\n\n| seed | start | pairs | network calls | "
          "RMSE | share | median | share |\n|---|---|---|---|---|---|---|---|")
    for seed in seeds:
        table, start, spent, used = learned(name, calls, budget, seed, folder)
        rows.append(shares(scores, errors(ends(source, table, pairs), pairs.target)))
        rmse, share, median, by_median = rows[-1]
        print(f"| {seed} | {start} | {used} | {spent:,} | {rmse:.4f} | {share:.0%} | {median:.4f} | {by_median:.0%} |",
              flush=True)
    rmse, share, median, by_median = np.mean(rows, axis=0)
    print(f"| mean | | | | {rmse:.4f} | **{share:.0%}** | {median:.4f} | **{by_median:.0%}** |\n\ngoal: {GOAL:.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits-eps,digits-flow")
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--budget", type=int, default=10_000)
    parser.add_argument("--seeds", default="5000,6000,7000")
    parser.add_argument("--without", default="", help="models whose patterns are left out, too")
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    if chosen.without:
        kept = tuple(each for each in patterns.known() if each.model not in chosen.without.split(","))
        patterns.known = lambda: kept
    folder = chosen.folder or Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    for name in chosen.model.split(","):
        bench(name, chosen.calls, chosen.budget, [int(seed) for seed in chosen.seeds.split(",")], folder)


if __name__ == "__main__":
    main()
