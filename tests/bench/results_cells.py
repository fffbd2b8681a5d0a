"""The cells of results.py: what is learned and measured, each in a process of its own."""

from __future__ import annotations

import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.core.files import write_atomically
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.baselines.halving import FULL, searched
from s4s.training.baselines.measure import Entry, baselines, measure
from s4s.training.benchmark.race import raced, unseen_pairs
from s4s.training.config import BUDGETS, Config
from s4s.training.demo_models.source import bundled
from s4s.training.run import Run
from s4s.training.teacher.pairs import TEST_SEEDS, known_pairs

CFG = 3.0
BUDGET = BUDGETS["normal"]  # network calls a table, for every way to learn
LADDER = {"seeds": 48, "most": 20, "pairs": 6}


@dataclass(frozen=True)
class Method:
    """A row of the table: how it is learned (None: a preset that ships), and its name there."""

    title: str
    settings: dict | None


METHODS = {
    "normal": Method("`normal`", {}),
    "coefficients": Method("S4S: coefficients only", {"learn": "coefficients"}),
    "schedule": Method("LD3-style: schedule only", {"learn": "schedule"}),
    "gradient": Method("gradient mode, no limit", {"mode": "gradient", "budget": 0}),
    "shipped": Method("`thorough` (ships)", None),
}
GRADIENT_AT = (6,)          # calls at which the gradient mode is run, too: it costs ten times as much


def test_pairs(source, cache: Path, seeds: int):
    """The teacher's results on unseen seeds, made once a model."""
    file = cache / f"test-{source.name}-{seeds}.safetensors"
    if not file.exists():
        made = unseen_pairs(source, seeds)
        write_atomically(file, safetensors.torch.save({"target": made.target}))
    numbers = range(TEST_SEEDS, TEST_SEEDS + seeds)
    return known_pairs(source, numbers, safetensors.torch.load_file(file)["target"])


def classical_cell(model: str, calls: int, cache: Path, seeds: int) -> dict:
    """The race of all baselines: the finalists' errors by seed."""
    source = bundled(model, CFG)
    pairs = test_pairs(source, cache, seeds)
    ranked = [entry for entry in searched(source, baselines(source, calls), pairs, FULL)
              if len(entry.errors) == seeds]
    return {"errors": {entry.name: entry.errors.tolist() for entry in ranked}}


def ladder_cell(model: str, calls: int, cache: Path, seeds: int) -> dict:
    """The best classical RMSE at every number of calls up to LADDER["most"], by the winners of the races."""
    source = bundled(model, CFG)
    pairs = test_pairs(source, cache, seeds).part(slice(0, LADDER["seeds"]))
    winners = []
    for file in sorted(cache.glob(f"{model}-*-classical-{seeds}.json")):
        errors = json.loads(file.read_text())["errors"]
        winners += sorted(errors, key=lambda name: rmse(errors[name]))[:3]
    names = {tuple(name.split(", ")) for name in sorted(set(winners), key=winners.count)[-LADDER["pairs"]:]}
    best = {}
    for count in range(4, LADDER["most"] + 1):
        entries = [measure(source, entry, pairs) for entry in baselines(source, count, names)]
        best[count] = min((entry.rmse, entry.name) for entry in entries)
    return {"best": best}


def learned_cell(model: str, calls: int, name: str, cache: Path, seeds: int) -> dict:
    """One table learned and measured."""
    method, began, worked = METHODS[name], time.monotonic(), time.process_time()
    source, spent = bundled(model, CFG), None
    pairs = test_pairs(source, cache, seeds)
    before = source.model_calls
    if method.settings is None:
        made = preset_file.load(shipped_folder() / f"{model}-cfg3.safetensors")
        spent = made.training["model_calls"] // len(made.tables)
    else:
        settings = {"mode": "forward", "budget": BUDGET} | method.settings
        config = Config.of(name=f"{model}-{name}", model=model, cfg=CFG, calls=(calls,), **settings)
        with tempfile.TemporaryDirectory() as folder:
            made = Run(config, folder, quiet=True, source=source).train()
    seconds, cpu = time.monotonic() - began, time.process_time() - worked
    spent = source.model_calls - before if spent is None else spent
    found = measure(source, Entry("S4S", "learned", made.tables[f"calls{calls}"]), pairs)
    return {"errors": found.errors.tolist(), "calls": spent, "seconds": round(seconds, 1), "cpu": round(cpu, 1),
            "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}


def crowd_cell(model: str, calls: int, cache: Path, seeds: int) -> dict:
    """The scores of the preset that ships, the Fréchet distance among them, against the race's finalists."""
    source, finalists = bundled(model, CFG), known(model, calls, "classical", cache, seeds)["errors"]
    pairs = test_pairs(source, cache, seeds)
    table = preset_file.load(shipped_folder() / f"{model}-cfg3.safetensors").table(calls)
    names = {tuple(name.split(", ")) for name in finalists}
    learned, *ranked = (measure(source, entry, pairs, features=True)
                        for entry in (Entry("S4S", "learned", table), *baselines(source, calls, names)))
    return raced(source, learned, ranked, pairs).scores


def cell(model: str, calls: int, name: str, cache: Path, seeds: int) -> None:
    """Make one cell and keep it."""
    torch.set_num_threads(1)
    made = {"classical": classical_cell, "ladder": ladder_cell, "crowd": crowd_cell}.get(name)
    result = made(model, calls, cache, seeds) if made else learned_cell(model, calls, name, cache, seeds)
    write_atomically(file_of(model, calls, name, cache, seeds), json.dumps(result).encode())


def file_of(model: str, calls: int, name: str, cache: Path, seeds: int) -> Path:
    return cache / f"{model}-{calls}-{name}-{seeds}.json"


def rmse(errors) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def recorded(model: str, calls: int) -> int | None:
    """The fewest classical calls that matched the preset that ships, in its own race (256 seeds)."""
    made = preset_file.load(shipped_folder() / f"{model}-cfg3.safetensors")
    return made.score(f"calls{calls}")["classical_calls_to_match"]


def known(model, calls, name, cache, seeds) -> dict | None:
    file = file_of(model, calls, name, cache, seeds)
    return json.loads(file.read_text()) if file.exists() else None
