"""Is a preset for a range of cfg as good at every cfg in it as a table trained there, and at what price?

    python -m tests.bench.cfg_range --data FOLDER [--cache runs/limits] [--only latent-flow] [--write]

FOLDER and the cache are those of tests/bench/limits. For each model a range is trained in one run, and a table of its
own at each of the nodes and halfway between them, with the same budget. Errors are the mean over 128 unseen seeds of
the RMSE to a fine teacher at that cfg, and the geometric mean of three trainings, whose pairs differ: single ones
differ by a tenth and more. Every finished piece lies in the cache. --write makes docs/cfg-range.json and
the table in docs/how-to/several-cfg.md.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from s4s.s4s_nodes.core import Preset, Table, preset_file
from s4s.s4s_nodes.core.files import write_atomically
from s4s.s4s_nodes.select.cfg import at_cfg, cfg_nodes
from s4s.training.config import Config
from s4s.training.distil import distil
from s4s.training.source import Source
from s4s.training.teacher.pairs import TEST_SEEDS, Pairs, ends, errors, known_pairs, make_pairs
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.bench.pages import placed

from .limits.models import source

ROOT = Path(__file__).resolve().parents[2]
SEEDS, FINE, CALLS = 128, 120, 6
TRAININGS = 3
RANGES = {"latent-flow": "1.5:6", "vit-digits": "1.5:6", "eps-ddpm": "3:7", "flow-emoji": "1.5:6"}
MARKS = ("<!-- measured: tests/bench/cfg_range.py -->", "<!-- end -->")


class Bench:
    """One model with its finished pieces in the cache."""

    def __init__(self, name: str, data: Path, cache: Path):
        self.name, self.data, self.cache = name, data, cache

    def source(self, cfg: float) -> Source:
        return source(self.name, self.data, self.cache, cfg=cfg)

    def test(self, at: Source) -> Pairs:
        """Unseen pairs of a fine teacher."""
        path = self.cache / f"{self.name}-cfg{at.cfg:g}-test.safetensors"
        seeds = range(TEST_SEEDS, TEST_SEEDS + SEEDS)
        if not path.is_file():
            made = make_pairs(at, seeds, teacher_table(at, AUTO, FINE), "", quiet=True)
            save_file({"target": made.target.contiguous()}, path)
        return known_pairs(at, seeds, load_file(path)["target"])

    def preset(self, cfg, budget: str, seed: int) -> tuple[Preset, int]:
        """The preset that a training makes at this cfg or range, and the network calls a counter outside saw."""
        nodes = cfg_nodes(cfg)
        path = self.cache / f"{self.name}-cfg{'-'.join(f'{node:g}' for node in nodes)}-{budget}-{seed}.safetensors"
        count = path.with_suffix(".json")
        if not count.is_file():
            counted, at = [0], self.source(nodes[0])

            def network(x, sigma, **extra):
                counted[0] += len(x)
                return at.network(x, sigma, **extra)
            with tempfile.TemporaryDirectory() as folder:
                config = Config.of(calls=(CALLS,), cfg=nodes, budget=budget, seed=seed)
                made = distil(replace(at, network=network), config, folder, say=print)
            preset_file.save(made, path)
            write_atomically(count, json.dumps(counted[0]).encode())
        return preset_file.load(path), json.loads(count.read_text())

    def error(self, table: Table, cfg: float) -> float:
        """Mean error on the unseen seeds at this cfg."""
        at = self.source(cfg)
        pairs = self.test(at)
        return float(np.mean(errors(ends(at, table, pairs), pairs.target)))


def rows_of(bench: Bench, budget: str) -> list[dict]:
    """One row for each cfg: the error of the range's table, of one trained there, and of the nearest node's."""
    nodes = cfg_nodes(RANGES[bench.name])
    between = [float(f"{(low * high) ** 0.5:.2g}") for low, high in zip(nodes, nodes[1:])]
    rows, stem = [], f"calls{CALLS}"
    for cfg in sorted([*nodes, *between]):
        nearest, each = min(nodes, key=lambda node: abs(node - cfg)), []
        for seed in range(TRAININGS):
            (ranged, price), (alone, cost) = (bench.preset(at, budget, seed) for at in (RANGES[bench.name], cfg))
            found = {"range": at_cfg(ranged, cfg)[0].tables[stem], "own": alone.tables[stem],
                     "nearest": at_cfg(ranged, nearest)[0].tables[stem]}
            each.append({**{name: bench.error(table, cfg) for name, table in found.items()},
                         "price": price, "own_price": cost})
        ratios = [one["range"] / one["own"] for one in each]
        rows.append({"model": bench.name, "calls": CALLS, "budget": budget, "cfg": cfg, "node": cfg in nodes,
                     **{name: float(np.exp(np.mean(np.log([one[name] for one in each])))) for name in each[0]},
                     "ratios": ratios})
        print({name: round(value, 4) if isinstance(value, float) else value for name, value in rows[-1].items()},
              flush=True)
    return rows


def page(rows: list[dict]) -> str:
    """The table as Markdown."""
    lines = ["| model | budget | cfg | between nodes | trained there | range | range / trained there "
             "| of each training | nearest node's table | price of the range |", "|---|" + "---|" * 9]
    for row in rows:
        like = [other["own_price"] for other in rows
                if (other["model"], other["budget"]) == (row["model"], row["budget"])]
        lines.append(f"| {row['model']} | {row['budget']} | {row['cfg']:g} | {'' if row['node'] else 'yes'} "
                     f"| {row['own']:.4f} | {row['range']:.4f} | {row['range'] / row['own']:.2f} "
                     f"| {', '.join(f'{ratio:.2f}' for ratio in row['ratios'])} "
                     f"| {'' if row['node'] else format(row['nearest'], '.4f')} | {row['price'] / np.mean(like):.2f} |")
    return "\n".join(lines) + "\n"


def main(arguments: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST, CIFAR-10 and emoji")
    parser.add_argument("--cache", type=Path, default=Path("runs/limits"), help="of weights and finished pieces")
    parser.add_argument("--only", default=",".join(RANGES), help="models")
    parser.add_argument("--budgets", default="normal", help="budgets, by name")
    parser.add_argument("--write", action="store_true", help="write docs/cfg-range.json and the page")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    rows = [row for name in options.only.split(",") for budget in options.budgets.split(",")
            for row in rows_of(Bench(name, options.data, options.cache), budget)]
    print(page(rows))
    if options.write:
        write_atomically(ROOT / "docs/cfg-range.json", (json.dumps(rows, indent=1) + "\n").encode())
        place = ROOT / "docs/how-to/several-cfg.md"
        write_atomically(place, placed(place.read_text(), MARKS, page(rows)).encode())


if __name__ == "__main__":
    main()
