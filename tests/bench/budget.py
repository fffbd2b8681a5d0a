"""How much of what unlimited training gains a budget of 10,000 network calls per table reaches.

    python -m tests.bench.budget [--model digits-eps,digits-flow] [--calls 6] [--budget 10000] [--seeds 5000,6000,7000]
                                 [--without digits-flow] [--folder FOLDER]

A run's share is (classical - budgeted) / (classical - unlimited), on 256 seeds that no run used: by the RMSE over all
pixels, which few seeds dominate whose picture tips over; by the mean of the seeds' RMSE, which is what learning lowers;
and by their median. Classical is the best pair of the race on these seeds (by RMSE), unlimited the table that ships
(`--mode forward`, 256 pairs). The runs are by `--mode forward --budget`; each seed is another set of pairs. Goal: a
mean share of 90 % on both models. A run may start from what another model learned; never from its own model's, and not
from those named by --without. FOLDER keeps runs and teacher pairs.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.baselines.measure import contestants
from s4s.training.benchmark.race import unseen_pairs
from s4s.training.config import Config
from s4s.training.demo_models.source import bundled
from s4s.training.run import Run
from s4s.training.starts import patterns
from s4s.training.teacher.pairs import TEST_SEEDS, ends, errors, known_pairs

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


def statistics(found: np.ndarray) -> np.ndarray:
    """(RMSE over all pixels, mean, median) of the seeds' RMSE (n,)."""
    return np.array([np.sqrt((found ** 2).mean()), found.mean(), np.median(found)])


def classical(source, calls: int, name: str):
    """The table of a classical pair by the name that the scores give it."""
    return contestants(source, calls, {tuple(name.split(", "))})[0].table


def bench(name: str, calls: int, budget: int, seeds: list[int], folder: Path) -> None:
    """Print one model's rows."""
    source, shipped = bundled(name, 3.0), preset_file.load(shipped_folder() / f"{name}-cfg3.safetensors")
    pairs, best = unseen(source, folder), shipped.scores[f"calls{calls}"]["best_classical"]

    def measured(table):
        return statistics(errors(ends(source, table, pairs), pairs.target))
    above, below = measured(classical(source, calls, best)), measured(shipped.tables[f"calls{calls}"])
    print(f"\n{name}, {calls} calls, {SEEDS} unseen seeds\n\n"
          "| training seed | start | pairs | network calls | RMSE | mean | median | its share | mean's | median's |\n"
          f"|{'---|' * 10}\n| | {best} | | | {_row(above)} | | | |\n| | unlimited | | | {_row(below)} | | | |")
    rows = []
    for seed in seeds:
        table, start, spent, used = learned(name, calls, budget, seed, folder)
        rows.append(measured(table))
        print(f"| {seed} | {start} | {used} | {spent:,} | {_row(rows[-1])} | {_shares(above, rows[-1], below)} |",
              flush=True)
    mean = np.mean(rows, axis=0)
    print(f"| mean | | | | {_row(mean)} | {_shares(above, mean, below)} |\n\ngoal: {GOAL:.0%}")


def _row(values) -> str:
    return " | ".join(f"{value:.4f}" for value in values)


def _shares(above, found, below) -> str:
    return " | ".join(f"{share:.0%}" for share in (above - found) / (above - below))


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
