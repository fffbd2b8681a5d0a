"""What each part of the method is worth on the bundled models, beside what the paper found on its own.

    python -m tests.bench.ablation [--quick] [--model digits-eps] [--folder runs/ablation] [--write]

Every cell is one table, learned on the same pairs from the same levels, measured on seeds that no learning saw.
Finished cells are kept in the folder, so that an interrupted script goes on. --quick: a minute of small runs, which
show that it works and decide nothing. --write: docs/ablation.md and the numbers it is made of, docs/ablation.json.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from s4s.s4s_nodes.core import write_atomically
from s4s.training.budget import plan_for
from s4s.training.config import Config
from s4s.training.demo_models.source import bundled
from s4s.training.optimizers.gauss_newton import learn_forward
from s4s.training.optimizers.gradient import learn
from s4s.training.optimizers.state import new_state
from s4s.training.parametrization.parameters import Parameters
from s4s.training.starts.search import ranked_baselines
from s4s.training.teacher.pairs import TEST_SEEDS, VALIDATION_SEEDS, ends, errors, known_pairs, make_pairs
from s4s.training.teacher.solvers import teacher_table
from tests.bench.ablation_page import page, shown

ROOT = Path(__file__).parents[2]
MODELS = ("digits-eps", "digits-flow")
CALLS = 5
SIZES = {"train": 40, "held_out": 24, "test": 96}
QUICK = {"train": 8, "held_out": 4, "test": 8}
FORWARD = {"mode": "forward", "iterations": 4}
GRADIENT = {"mode": "gradient", "iterations": 60, "batch": 8, "every": 20}


@dataclass(frozen=True)
class Cell:
    """One table: what it changes of the settings.

    queries: whether the levels told to the network may move, too.
    """

    words: str
    changes: dict = field(default_factory=dict)
    queries: bool = True


def _cells() -> dict[str, Cell]:
    weights = {**FORWARD, "learn": "coefficients"}
    both = {**FORWARD, "learn": "joint"}
    slopes = {**GRADIENT, "learn": "joint"}
    return {
        "start": Cell("the classical solver, nothing learned", {**weights, "iterations": 0}),
        "coefficients": Cell("coefficients, order 3", weights),
        "order 1": Cell("coefficients, order 1, from Euler", {**weights, "order": 1, "base": "euler"}),
        "all": Cell("coefficients, whole history", {**weights, "order": 0}),
        "schedule": Cell("levels and query times (LD3)", {**FORWARD, "learn": "schedule"}),
        "levels": Cell("levels, query times tied to them", {**FORWARD, "learn": "schedule"}, queries=False),
        "joint": Cell("joint, order 3", both),
        "joint, tied": Cell("joint, query times tied to the levels", both, queries=False),
        "alternate": Cell("schedule and coefficients in turn (S4S-Alt)",
                          {**FORWARD, "learn": "alternate", "iterations": 2 * FORWARD["iterations"]}),
        "rmse": Cell("joint by Adam, L2 (rmse)", slopes),
        "relaxed 1": Cell("joint by Adam, starts relaxed by LD3's radius", {**slopes, "relaxed": 1.0}),
        "relaxed 4": Cell("joint by Adam, by four of them", {**slopes, "relaxed": 4.0}),
        "order 2": Cell("coefficients, order 2", {**weights, "order": 2}),
        "order 4": Cell("coefficients, order 4", {**weights, "order": 4}),
        "joint, all": Cell("joint, whole history", {**both, "order": 0}),
        "l1": Cell("joint by Adam, L1", {**slopes, "objective": "l1"}),
        "pseudo-Huber": Cell("joint by Adam, pseudo-Huber", {**slopes, "objective": "pseudo_huber"}),
        "alternate by Adam": Cell("in turn by Adam", {**slopes, "learn": "alternate"}),
        "generalized": Cell("generalized, whole history", {**FORWARD, "learn": "generalized", "order": 0}),
    }


CELLS = _cells()


class Tied(Parameters):
    """Parameters whose network is told the state's own level."""

    def moving(self) -> torch.Tensor:
        """1.0 where the vector is to be learned; the offsets stay."""
        moving, gaps = super().moving(), self.sizes[0]
        moving[gaps:gaps + self.sizes[1]] = 0.0
        return moving


class Bench:
    """A model with its pairs, made once, and the levels that every cell starts on."""

    def __init__(self, name: str, folder: Path, quick: bool):
        self.source, self.folder, self.quick = bundled(name, 3.0), folder, quick
        self.source.differentiable = True                           # small enough to be kept for a backward pass
        sizes = QUICK if quick else SIZES
        firsts = {"train": 0, "held_out": VALIDATION_SEEDS, "test": TEST_SEEDS}
        self.pairs = {kind: self._pairs(kind, range(firsts[kind], firsts[kind] + sizes[kind])) for kind in sizes}
        self.start = ranked_baselines(self.source, CALLS, self.pairs["held_out"],
                                   plan_for(self.config(FORWARD), self.source, "forward"))[0]

    def _pairs(self, kind: str, seeds: range):
        path = self.folder / f"{self.source.name}-{kind}-{len(seeds)}.safetensors"
        if path.exists():
            return known_pairs(self.source, seeds, safetensors.torch.load_file(path)["target"])
        made = make_pairs(self.source, seeds, teacher_table(self.source, "auto", 40), f"{self.source.name}, {kind}")
        write_atomically(path, safetensors.torch.save({"target": made.target}))
        return made

    def config(self, changes: dict) -> Config:
        """The settings of a cell."""
        brief = {"iterations": min(2, changes.get("iterations", 2))} if self.quick else {}
        return Config.of(**{"calls": (CALLS,), "order": 3, "model": self.source.name, **changes, **brief})

    def measured(self, name: str) -> dict:
        """A cell's numbers, from its file where it was learned with the same settings before."""
        cell = CELLS[name]
        config, path = self.config(cell.changes), self.folder / f"{self.source.name}-{name.replace(' ', '-')}.json"
        about = {"settings": {**cell.changes, "queries": cell.queries, "quick": self.quick},
                 "start": self.start.name, "seeds": len(self.pairs["test"])}
        if path.exists() and (known := json.loads(path.read_text()))["about"] == about:
            return known
        found = {"about": about, **self._learned(cell, config)}
        write_atomically(path, json.dumps(found).encode())
        return found

    def _learned(self, cell: Cell, config: Config) -> dict:
        kind, go = Parameters if cell.queries else Tied, learn if config.mode == "gradient" else learn_forward
        train, held_out, test = self.pairs.values()
        began, before = time.process_time(), self.source.model_calls
        parameters = kind.of(config, self.source, self.start.table.sigmas)
        state = new_state(config.mode, parameters)
        if cell.changes["iterations"]:
            state = go(self.source, parameters, train, held_out, config, state)
        missed = errors(ends(self.source, parameters.frozen(state.best), test), test.target)
        spent = self.source.model_calls - before - CALLS * len(test)
        return {"words": cell.words, "numbers": int(parameters.moving().sum()) if spent else 0, "calls": spent,
                "seconds": round(time.process_time() - began, 1), "errors": np.round(missed, 5).tolist()}


def main(arguments: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a minute of small runs that decide nothing")
    parser.add_argument("--model", choices=MODELS, help="both otherwise")
    parser.add_argument("--folder", type=Path, default=Path("runs/ablation"), help="of pairs and finished cells")
    parser.add_argument("--write", action="store_true", help="write docs/ablation.md and docs/ablation.json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    folder, found = options.folder / "quick" if options.quick else options.folder, {}
    for name in [options.model] if options.model else MODELS:
        bench, found[name] = Bench(name, folder, options.quick), {}
        print(f"{name}, {CALLS} calls, from {bench.start.name}", flush=True)
        for cell in CELLS:
            found[name][cell] = bench.measured(cell)
            print(shown(cell, found[name][cell], found[name]["start"]), flush=True)
    text = page(found)
    print(text)
    if options.write:
        if options.quick or options.model:
            parser.error("--write wants both models and no --quick")
        write_atomically(ROOT / "docs/ablation.json", (json.dumps(found) + "\n").encode())
        write_atomically(ROOT / "docs/ablation.md", text.encode())


if __name__ == "__main__":
    main()
