"""How far is each training from what a table can give? Baseline, limit, and what each budget finds.

    python -m tests.bench.limits --data FOLDER [--cache runs/limits] [--only latent-flow] [--counts 6] [--write]

FOLDER holds MNIST, CIFAR-10 and emoji as tests/bench/limits/models.py reads them. Errors are the mean and the median
over 128 unseen seeds of the RMSE to a fine teacher. baseline: the best of all classical solvers on all schedules,
chosen on these very seeds, separately by mean and by median. limit: the best of everything measured. A button's share
is log(baseline / found) / log(baseline / limit), by the mean. At NOISY_COUNTS the normal button also learns from a
network whose answers carry 1 % of noise, and from one in bfloat16. What it finds is measured with the plain network
and, beside all the other tables and the best baselines, with the noisy one.
Every finished piece lies in the cache, so that a stopped bench resumes. --write makes docs/limits.json and
docs/limits.md.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import fill

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.core.files import write_atomically
from s4s.training.baselines.halving import EVERY, Effort, searched
from s4s.training.baselines.measure import baselines
from s4s.training.config import BUDGETS, Config
from s4s.training.distil import distil
from s4s.training.source import Source
from s4s.training.teacher.pairs import TEST_SEEDS, Pairs, ends, errors, known_pairs, make_pairs
from s4s.training.teacher.solvers import AUTO, teacher_table

from .models import BUNDLED, NAMES, judged, source

ROOT = Path(__file__).resolve().parents[3]
SEEDS, FINE = 128, 120                  # unseen seeds, and the calls of the teacher that judges
EFFORT = Effort(0, EVERY, ((4, EVERY), (24, 60), (EVERY, 12)))        # of the search for the baseline
COUNTS, NOISY_COUNTS = (4, 5, 6, 8, 10), (6,)
NO_BUDGET_COUNTS = (6, 8, 10)
NOISE = 0.01
IN_NOISE = """Tables run with the noisy network, as a user of such a network runs them: the one learned from it, and
    those that *normal* and *thorough* learned without noise. Mean RMSE to the exact teacher; noise adds to every
    solver's error. The share is of what the best of these tables gains."""
BUTTONS = (*BUDGETS, "none", "normal, noise", "normal, bf16")


class Bench:
    """One model with its test pairs and its finished pieces in the cache."""

    def __init__(self, name: str, data: Path, cache: Path):
        self.name, self.data, self.cache = name, data, cache
        self.source = source(name, data, cache)
        self.test = self._test()

    def _test(self) -> Pairs:
        path, seeds = self.cache / f"{self.name}-test.safetensors", range(TEST_SEEDS, TEST_SEEDS + SEEDS)
        if not path.is_file():
            made = make_pairs(self.source, seeds, teacher_table(self.source, AUTO, FINE), "", quiet=True)
            save_file({"target": made.target.contiguous()}, path)
        return known_pairs(self.source, seeds, load_file(path)["target"])

    def piece(self, name: str, make) -> dict:
        """A finished piece from the cache, or made now and kept."""
        path = self.cache / f"{self.name}-{name}.json"
        if not path.is_file():
            write_atomically(path, json.dumps(make()).encode())
        return json.loads(path.read_text())

    def baseline(self, calls: int) -> dict:
        """Mean, median and RMSE of the best baselines on the test seeds."""
        ranked = searched(self.source, baselines(self.source, calls), self.test, EFFORT)
        full = [entry for entry in ranked if len(entry.errors) == len(self.test)]
        best = min(full, key=lambda entry: entry.errors.mean())
        return {"name": best.name, "mean": float(best.errors.mean()), "median": min(entry.median for entry in full),
                "rmse": min(entry.rmse for entry in full), "finalists": [entry.name for entry in full]}

    def network(self, change: str, seed: int) -> Callable:
        """The network, in bfloat16 or with noise on its answers where the change says so."""
        if change == "bf16":
            return source(self.name, self.data, self.cache, torch.bfloat16).network
        generator = torch.Generator().manual_seed(seed)

        def noisy(x, sigma, **extra):
            answer = self.source.network(x, sigma, **extra)
            size = NOISE * answer.square().mean((1, 2, 3), keepdim=True).sqrt()
            return answer + size * torch.randn(answer.shape, generator=generator)
        return noisy if change == "noise" else self.source.network

    def _preset(self, calls: int, button: str) -> Path:
        return self.cache / f"{self.name}-{button}-{calls}.safetensors"

    def found(self, calls: int, button: str) -> dict:
        """What a training with this button reaches on the test seeds, and the network calls a counter outside saw."""
        budget, _, change = button.partition(", ")
        counted, learned_from = [0], self.network(change, 0)

        def network(x, sigma, **extra):
            counted[0] += len(x)
            return learned_from(x, sigma, **extra)
        tried: Source = replace(self.source, network=network, model_calls=0)
        config = Config.of(name="bench", calls=(calls,), budget=BUDGETS.get(budget, 0))
        with tempfile.TemporaryDirectory() as folder:
            made = distil(tried, config, folder, say=lambda text: None)
        preset_file.save(made, self._preset(calls, button))
        off = errors(ends(self.source, made.tables[f"calls{calls}"], self.test), self.test.target)
        return {"mean": float(off.mean()), "median": float(np.median(off)), "rmse": float(np.sqrt((off ** 2).mean())),
                "network_calls": counted[0], "gained": not made.training["nothing_gained"]}

    def in_noise(self, calls: int, change: str, buttons: list[str], finalists: list[str]) -> dict:
        """Mean errors with the noisy network, to the exact teacher: of these buttons' tables and the best baseline."""
        noisy = replace(self.source, network=self.network(change, 1))

        def mean(table) -> float:
            return float(errors(ends(noisy, table, self.test), self.test.target).mean())
        return {"baseline": min(mean(entry.table) for entry in baselines(self.source, calls)
                                if entry.name in finalists),
                **{button: mean(preset_file.load(self._preset(calls, button)).tables[f"calls{calls}"])
                   for button in buttons}}


def cell(bench: Bench, calls: int) -> list[dict]:
    """A cell for each button."""
    baseline, runs = bench.piece(f"baseline-{calls}", lambda: bench.baseline(calls)), {}
    counts = {"none": NO_BUDGET_COUNTS if judged(bench.name) else (), "normal, noise": NOISY_COUNTS,
              "normal, bf16": () if bench.name in BUNDLED else NOISY_COUNTS}
    for button in BUTTONS:
        if calls not in counts.get(button, (calls,)):
            continue
        try:
            runs[button] = bench.piece(f"{button}-{calls}", lambda button=button: bench.found(calls, button))
        except ValueError as error:                     # a budget too small for so many calls
            print(f"{bench.name}, {calls} calls, {button}: {error}")
    limit = min(runs.values(), key=lambda run: run["mean"])
    noisy = {}
    for button in runs:
        if change := button.partition(", ")[2]:
            measured = bench.piece(f"in {change}-{calls}", lambda change=change: bench.in_noise(
                calls, change, [each for each in runs if each in BUDGETS or change in each], baseline["finalists"]))
            best = min(measured.values())
            noisy[button] = {"in_noise": measured,
                             "share_in_noise": share(measured["baseline"], measured[button], best)}
    return [{"model": bench.name, "judged": judged(bench.name), "calls": calls, "cfg": bench.source.cfg,
             "button": button, "noise": NOISE if "noise" in button else 0, "baseline": baseline["mean"],
             "limit": limit["mean"], "found": run["mean"], "baseline_median": baseline["median"],
             "limit_median": limit["median"], "found_median": run["median"], "baseline_rmse": baseline["rmse"],
             "found_rmse": run["rmse"], "network_calls": run["network_calls"], "gained": run["gained"],
             "share": share(baseline["mean"], run["mean"], limit["mean"]), **noisy.get(button, {})}
            for button, run in runs.items()]


def share(baseline: float, found: float, limit: float) -> float:
    """Of the possible gain, in logarithms; 1 where there is next to none."""
    possible = math.log(baseline / limit)
    return math.log(baseline / found) / possible if possible > 0.05 else 1.0


def page(cells: list[dict]) -> str:
    """The table as Markdown."""
    names = {row["model"]: row["judged"] for row in cells}
    tuned, held = len(names) - sum(names.values()), sum(names.values())
    counts = sorted({row["calls"] for row in cells})
    some = f"{len(names)} of the {len(NAMES)}" if len(names) < len(NAMES) else f"All {len(NAMES)}"
    about = f"""{some} small models of the study, most of them of kinds the package does not ship. We chose the
        trainer's constants on others{f' and on {tuned} of these' if tuned else ''}, none on the {held} *judged* ones,
        with one exception: flow-emoji suggested `WIDEST`. Errors are the mean RMSE to a
        fine teacher over {SEEDS} unseen seeds. The baseline is the best classical solver on any schedule, chosen on
        these very seeds. The limit is the best table of all the runs here, mostly that of *none* (no budget,
        100,000 calls), or of *thorough* where *none* did not run; the true limit may be lower.
        Share: how much of the possible gain was found, in
        logarithms. Two runs that differ only in their seeds can differ by 0.1 to 0.25. The runs marked *noise* and
        *bf16* learn from a network with 1 % of noise, or in bfloat16, and are measured here with the plain one.
        Made by
        `python -m tests.bench.limits --data FOLDER --write --counts {','.join(map(str, counts))}`."""
    lines = ["# How far each training is from what a table can give", "", fill(" ".join(about.split()), 110), "",
             "| model | calls | judged | button | network calls | baseline | found | limit | times closer: mean "
             "| median | RMSE | share |", "|---|" + "---|" * 11]
    for row in cells:
        times = [row["baseline"] / row["found"], row["baseline_median"] / row["found_median"],
                 row["baseline_rmse"] / row["found_rmse"]]
        lines.append(f"| {row['model']} | {row['calls']} | {'yes' if row['judged'] else 'no'} | {row['button']} "
                     f"| {row['network_calls']:,} | {row['baseline']:.4f} | {row['found']:.4f} | {row['limit']:.4f} | "
                     + " | ".join(f"{ratio:.2f}" for ratio in times) + f" | {row['share']:.2f} |")
    head = "| button | calls | judged: cells | median, lowest | all: cells | median, lowest | worse than baseline |"
    lines += ["", "## Shares", "",
              "*Worse than baseline*: cells with a mean, median or RMSE above that of the best baseline, which is",
              "chosen on the test seeds for each of the three.", "", head, "|---|" + "---|" * 6]
    for button in BUTTONS:
        for calls in sorted({row["calls"] for row in cells}):
            every = [row for row in cells if row["button"] == button and row["calls"] == calls]
            if every:
                both = [[row["share"] for row in every if row["judged"] or not judged] for judged in (True, False)]
                words = [f"{len(shares)} | {np.median(shares):.2f}, {min(shares):.2f}" if shares else "0 | none"
                         for shares in both]
                worse = sum(any(row[f"found{by}"] > row[f"baseline{by}"] for by in ("", "_median", "_rmse"))
                            for row in every)
                lines.append(f"| {button} | {calls} | {words[0]} | {words[1]} | {worse} |")
    noisy = [row for row in cells if "in_noise" in row]
    if noisy:
        lines += ["", "## Measured in the noise", "", fill(" ".join(IN_NOISE.split()), 110), "",
                  "| model | calls | judged | learned by | baseline | found | normal without noise "
                  "| thorough without noise | times closer | share |", "|---|" + "---|" * 9]
        for row in noisy:
            known, found = row["in_noise"], row["in_noise"][row["button"]]
            lines.append(f"| {row['model']} | {row['calls']} | {'yes' if row['judged'] else 'no'} | {row['button']} | "
                         + " | ".join(f"{each:.4f}" for each in (known["baseline"], found, known["normal"],
                                                                 known["thorough"]))
                         + f" | {known['baseline'] / found:.2f} | {row['share_in_noise']:.2f} |")
        for button in {row["button"]: 0 for row in noisy}:
            shares = [row["share_in_noise"] for row in noisy if row["button"] == button and row["judged"]]
            if shares:
                lines += ["", f"{button}, judged: median share {np.median(shares):.2f}, lowest {min(shares):.2f}."]
    return "\n".join(lines) + "\n"


def main(arguments: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST, CIFAR-10 and emoji")
    parser.add_argument("--cache", type=Path, default=Path("runs/limits"), help="of weights and finished pieces")
    parser.add_argument("--only", default=",".join(NAMES), help="models")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of network calls")
    parser.add_argument("--write", action="store_true", help="write docs/limits.md and docs/limits.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    cells = []
    for name in options.only.split(","):
        bench = Bench(name, options.data, options.cache)
        for calls in map(int, options.counts.split(",")):
            cells += cell(bench, calls)
            print("\n".join(f"{row['model']}, {row['calls']} calls, {row['button']}: share {row['share']:.2f}"
                            for row in cells if row["model"] == name and row["calls"] == calls), flush=True)
    print(page(cells))
    if options.write:
        write_atomically(ROOT / "docs/limits.json", (json.dumps(cells, indent=1) + "\n").encode())
        write_atomically(ROOT / "docs/limits.md", page(cells).encode())


if __name__ == "__main__":
    main()
