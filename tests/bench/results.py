"""Every way to learn, on both bundled models: what the product may claim.

    python -m tests.bench.results [--calls 6,4,5,8,10] [--models digits-eps,digits-flow] [--seeds 128] [--cache FOLDER]
                                  [--write]

A cell is one process (so its memory is its own) and leaves one JSON file in the cache; an interrupted script goes on.
Everything is at guidance 3, learned without a backward pass unless a row says gradient; the error is the RMSE to a
50-call teacher on seeds that no training uses, and the baseline the best of all classical solver x schedule pairs on
these very seeds. "as many as" is the fewest calls at which a baseline is as good, on the first 48 of the seeds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from s4s.s4s_nodes.core.files import write_atomically
from s4s.training.benchmark.verdict import interval
from tests.bench.results_cells import (
    BUDGET,
    CFG,
    GRADIENT_AT,
    LADDER,
    METHODS,
    cell,
    file_of,
    known,
    recorded,
    rmse,
)

PAGE = Path(__file__).parents[2] / "docs" / "results.md"


def wanted(models, counts) -> list:
    """(model, calls, name) of all cells, the telling ones first."""
    cells = [(model, calls, name) for calls in counts for name in ("classical", *METHODS) for model in models
             if name != "gradient"]
    cells += [(model, calls, "crowd") for calls in counts for model in models]
    return cells + [(model, 0, "ladder") for model in models] + [
        (model, calls, "gradient") for calls in GRADIENT_AT for model in models]


def make(models, counts, cache: Path, seeds: int) -> None:
    """Make the cells that are missing, each in a process of its own."""
    for model, calls, name in wanted(models, counts):
        if not file_of(model, calls, name, cache, seeds).exists():
            print(f"{model}, {calls} calls, {name} ...", flush=True)
            subprocess.run([sys.executable, "-m", "tests.bench.results", "--cell", f"{model},{calls},{name}",
                            "--cache", str(cache), "--seeds", str(seeds)], check=True)


# --- the page ------------------------------------------------------------------------------------------------------

def table(model: str, counts, cache: Path, seeds: int) -> list[str]:
    """The Markdown lines of one model."""
    titles = ("calls", "", "RMSE", "times closer [95 %]", "median seed", "times closer [95 %]", "as many as",
              "network calls", "CPU seconds", "peak MB")
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    ladder = known(model, 0, "ladder", cache, seeds)
    for calls in sorted(counts):
        races = known(model, calls, "classical", cache, seeds)
        if races is None:
            continue
        errors = {name: np.array(found) for name, found in races["errors"].items()}
        best, by_median = min(errors, key=lambda n: rmse(errors[n])), min(errors, key=lambda n: np.median(errors[n]))
        lines.append(f"| {calls} | best baseline: {best} (by the median {by_median}) | {rmse(errors[best]):.4f} "
                     f"| 1 | {np.median(errors[by_median]):.4f} | 1 | {calls} | | | |")
        for name in METHODS:
            if (made := known(model, calls, name, cache, seeds)) is not None:
                as_many = matched(model, calls, name, np.array(made["errors"]), ladder)
                lines.append(line(calls, METHODS[name].title, made, errors[best], errors[by_median], as_many))
    return lines


def line(calls: int, title: str, made: dict, best: np.ndarray, by_median: np.ndarray, as_many: str) -> str:
    """One learned table's line."""
    errors = np.array(made["errors"])
    closer = f"**{rmse(best) / rmse(errors):.2f}** [{', '.join(f'{v:.2f}' for v in interval(best, errors))}]"
    medians = interval(by_median, errors, np.median)
    middle = f"**{np.median(by_median) / np.median(errors):.2f}** [{', '.join(f'{v:.2f}' for v in medians)}]"
    took = f"{made['cpu']:.0f}" if made["seconds"] > 5 else ""
    return (f"| {calls} | {title} | {rmse(errors):.4f} | {closer} | {np.median(errors):.4f} | {middle} "
            f"| {as_many} | {made['calls']:,} | {took} | {made['megabytes'] if took else ''} |")


def matched(model: str, calls: int, name: str, errors: np.ndarray, ladder: dict | None) -> str:
    """The fewest classical calls that are as good, on the ladder's seeds; without it what the preset's race found."""
    if ladder is None:
        return f"{recorded(model, calls) or 'more'} (by its record)" if name == "shipped" else ""
    goal = rmse(errors[:LADDER["seeds"]])
    as_good = [int(count) for count, (error, _) in ladder["best"].items() if error <= goal]
    return str(min(as_good)) if as_good else f"more than {LADDER['most']}"


def goals(models, counts, cache: Path, seeds: int) -> list[str]:
    """Each goal beside what was measured."""
    lines = ["| goal | cell | measured | |", "|---|---|---|---|"]
    for model in models:
        ladder = known(model, 0, "ladder", cache, seeds)
        for calls in sorted(counts):
            races = known(model, calls, "classical", cache, seeds)
            learned = {name: known(model, calls, name, cache, seeds) for name in ("normal", "shipped")}
            learned = {name: np.array(found["errors"]) for name, found in learned.items() if found}
            if races is None or not learned:
                continue
            best = min(rmse(found) for found in races["errors"].values())
            name = min(learned, key=lambda n: rmse(learned[n]))
            if calls <= 6:
                ratio = best / rmse(learned[name])
                lines.append(f"| 2 times closer than the best baseline | {model}, {calls} calls | {ratio:.2f} "
                             f"({METHODS[name].title}) | {said(ratio >= 2)} |")
            match = matched(model, calls, name, learned[name], ladder)
            if match and 2 * calls <= LADDER["most"]:
                reached = match.startswith("more") or int(match.split()[0]) >= 2 * calls
                lines.append(f"| as good as classical at {2 * calls} calls | {model}, {calls} calls | at {match} | "
                             f"{said(reached)} |")
        for calls in GRADIENT_AT:
            one, other = (known(model, calls, name, cache, seeds) for name in ("gradient", "normal"))
            if one and other:
                ratio = rmse(other["errors"]) / rmse(one["errors"])
                lines.append(f"| forward-only within 10 % of gradient mode | {model}, {calls} calls | {ratio:.2f} "
                             f"times its error, for {other['calls']:,} network calls against {one['calls']:,} | "
                             f"{said(ratio <= 1.1)} |")
    return lines


def crowds(models, counts, cache: Path, seeds: int) -> list[str]:
    """The second measure of the presets that ship, as a table."""
    lines = ["| | S4S [95 %] | best baseline | times closer [95 %] |", "|---|---|---|---|"]
    for model, calls in ((model, calls) for model in models for calls in sorted(counts)):
        if (found := known(model, calls, "crowd", cache, seeds)) is not None:
            ours, ratio = (", ".join(f"{v:.{n}f}" for v in found[f"{key}_95"])
                           for key, n in (("frechet", 3), ("ratio_frechet", 2)))
            lines.append(f"| {model}, {calls} calls | {found['frechet']:.3f} [{ours}] | "
                         f"{found['best_classical_by_frechet']}: {found['best_frechet']:.3f} | "
                         f"**{found['ratio_frechet']:.2f}** [{ratio}] |")
    return lines


def said(reached: bool) -> str:
    return "reached" if reached else "missed"


def page(models, counts, cache: Path, seeds: int) -> str:
    """docs/results.md."""
    lines = ["# Results on the bundled models", "",
             f"Made by `python -m tests.bench.results --seeds {seeds} --write`. {seeds} seeds that no training used, "
             f"guidance {CFG:g}; the distance is the RMSE to a 50-call teacher from the same noise, over all pixels "
             "and for the median seed, with 95 % bootstrap intervals. The baseline is the best of all classical solver "
             "x schedule pairs on these very seeds, which favours it. Unless a row says otherwise a table was learned "
             f"without a backward pass, within {BUDGET:,} network calls, its teacher's included. \"As many as\": the "
             f"fewest calls at which a baseline is as good, on the first {LADDER['seeds']} seeds.", ""]
    for model in models:
        lines += [f"## {model}", "", *table(model, counts, cache, seeds), ""]
    lines += ["## The second measure", "", "Fréchet distance to the teacher's results on the same seeds, in the 64 "
              f"features of the bundled digit classifier, of the presets that ship. {seeds} seeds are few: it is "
              "biased upwards, for all entries alike. Jackknife intervals.", "",
              *crowds(models, counts, cache, seeds), ""]
    lines += ["## Goals", "", *goals(models, counts, cache, seeds), *missing(models, counts, cache, seeds)]
    return "\n".join(lines) + "\n"


def missing(models, counts, cache: Path, seeds: int) -> list[str]:
    """A sentence on what this page does not show."""
    gaps: dict[str, list[str]] = {}
    for model, calls, name in wanted(models, counts):
        if known(model, calls, name, cache, seeds) is None:
            gaps.setdefault(f"{model} at {calls} calls" if calls else model, []).append(name)
    words = [f"{cell} ({', '.join(names) if len(names) < 5 else 'most'})" for cell, names in gaps.items()]
    return ["", f"Not made yet: {'; '.join(words)}."] if words else []


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--calls", default="6,4,5,8,10")
    words.add_argument("--models", default="digits-eps,digits-flow")
    words.add_argument("--seeds", type=int, default=128)
    words.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "s4s-results")
    words.add_argument("--write", action="store_true", help=f"write {PAGE.name}")
    words.add_argument("--only-print", action="store_true", help="make nothing, show what there is")
    words.add_argument("--cell", help=argparse.SUPPRESS)
    asked = words.parse_args()
    asked.cache.mkdir(parents=True, exist_ok=True)
    if asked.cell:
        model, calls, name = asked.cell.split(",")
        return cell(model, int(calls), name, asked.cache, asked.seeds)
    models, counts = asked.models.split(","), [int(part) for part in asked.calls.split(",")]
    if not asked.only_print:
        make(models, counts, asked.cache, asked.seeds)
    text = page(models, counts, asked.cache, asked.seeds)
    print(text)
    if asked.write:
        write_atomically(PAGE, text.encode())


if __name__ == "__main__":
    main()
