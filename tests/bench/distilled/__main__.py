"""What does S4S gain on distilled models at 2, 3 and 4 calls, and by which teacher?

    python -m tests.bench.distilled --data FOLDER [--cache runs/distilled] [--only lcm] [--calls 2,3,4] [--write]

FOLDER holds MNIST as tests/bench/limits/models.py reads it. The two models are distilled first (models.py), and kept in
the cache as every finished piece is. Each is trained by three teachers: its own sampler (Euler on sgm_uniform, 8
calls), the trainer's default (unipc_bh2_3, 32 calls or more), and the same on the undistilled base under its guidance.
Errors are the mean RMSE over 256 unseen seeds to the targets of the row's *goal*: its own sampler, or the
undistilled base at 120 calls. The baseline is the best classical solver on any schedule, chosen on these very seeds.
Fréchet distances are to the base's images on the same seeds, in 64 features. --write puts the tables into
docs/how-to/distilled.md.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from s4s.s4s_nodes.core import Table, classical, preset_file, schedules
from s4s.s4s_nodes.core.files import write_atomically
from s4s.training.baselines.halving import searched
from s4s.training.baselines.measure import baselines, features_of
from s4s.training.benchmark.frechet import distance
from s4s.training.config import Config
from s4s.training.distil import distil
from s4s.training.source import Source
from s4s.training.sources import baseline_teacher
from s4s.training.teacher.pairs import TEST_SEEDS, Pairs, ends, errors, known_pairs, make_pairs
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.bench.limits.__main__ import EFFORT
from tests.bench.pages import placed

from .models import KINDS, base_of, distilled_source

ROOT = Path(__file__).resolve().parents[3]
SEEDS, FINE = range(TEST_SEEDS, TEST_SEEDS + 256), 120
OWN = "euler, sgm_uniform"
TEACHERS = {"own": "own", "default": "own", "undistilled": "undistilled"}       # and the goal that judges its tables
MODELS, TABLES = ("<!-- measured: models -->", "<!-- end of models -->"), ("<!-- measured: tables -->", "<!-- end -->")


class Study:
    """One distilled model with its finished pieces in the cache."""

    def __init__(self, name: str, data: Path, cache: Path):
        self.name, self.cache, self.calls = name, cache, KINDS[name].calls
        self.base, _ = base_of(name, data, cache)
        self.source = distilled_source(name, data, cache)
        self.goals = {"own": self.pairs("own", self.source, lambda: self.own(self.calls)),
                      "undistilled": self.pairs("base", self.base, lambda: self.fine(FINE))}
        self.real = self.features(self.goals["undistilled"].target)

    def pairs(self, name: str, source: Source, table: Callable) -> Pairs:
        path = self.cache / f"{self.name}-{name}-test.safetensors"
        if not path.is_file():
            save_file({"target": make_pairs(source, SEEDS, table(), "", True).target.contiguous()}, path)
        return known_pairs(self.source, SEEDS, load_file(path)["target"])

    def piece(self, name: str, make: Callable) -> dict:
        path = self.cache / f"{self.name}-{name}.json"
        if not path.is_file():
            write_atomically(path, json.dumps(make()).encode())
        return json.loads(path.read_text())

    def own(self, calls: int) -> Table:
        """Its own sampler."""
        return classical.euler(schedules.sgm_uniform(calls, self.source.levels), flow=self.source.flow)

    def fine(self, calls: int) -> Table:
        """Of the undistilled base."""
        return teacher_table(self.base, AUTO, calls)

    def features(self, images: Tensor) -> np.ndarray:
        found = features_of(self.source, images)
        assert found is not None
        return found

    def far(self, images: Tensor) -> float:
        """Fréchet distance to the base's images."""
        return distance(self.features(images), self.real)

    def measured(self, table, goal: str) -> dict:
        """Of a table: its error by seed to the goal, its mean error to the undistilled, and its Fréchet distance."""
        images = ends(self.source, table, self.goals[goal])
        return {"errors": errors(images, self.goals[goal].target).tolist(), "far": self.far(images),
                "off": float(errors(images, self.goals["undistilled"].target).mean())}

    def table(self, teacher: str, calls: int) -> tuple[Table, dict]:
        """What a training with this teacher finds, and its record."""
        path = self.cache / f"{self.name}-{teacher}-{calls}.safetensors"
        if not path.is_file():
            source = replace(self.source, model_calls=0,
                             teacher=baseline_teacher(self.source, OWN, self.calls) if teacher == "own" else None,
                             teacher_source=self.base if teacher == "undistilled" else None)
            with tempfile.TemporaryDirectory() as folder:
                preset_file.save(distil(source, Config.of(calls=(calls,)), folder, say=print), path)
        preset = preset_file.load(path)
        return preset.tables[f"calls{calls}"], preset.training

    def baseline(self, goal: str, calls: int) -> dict:
        ranked = searched(self.source, baselines(self.source, calls), self.goals[goal], EFFORT)
        best = min((entry for entry in ranked if len(entry.errors) == len(SEEDS)),
                   key=lambda entry: entry.errors.mean())
        return {"name": best.name, **self.measured(best.table, goal)}


def model_rows(study: Study) -> list[dict]:
    """What the distilled model makes by its own sampler and by the trainer's default teacher."""
    tables = {f"{OWN}, {calls} calls": study.own(calls) for calls in (2, 3, 4, study.calls, 2 * study.calls)}
    tables |= {f"the default teacher, {calls} calls": teacher_table(study.source, AUTO, calls) for calls in (32, 128)}
    rows = [{"model": f"{study.name}, distilled", "sampler": name,
             **study.piece(f"sampler-{name.replace(', ', '-').replace(' ', '_')}",
                           lambda table=table: study.measured(table, "undistilled"))} for name, table in tables.items()]
    for calls in (2, 4, study.calls, 4 * study.calls):
        def make(calls=calls):
            table = classical.euler(schedules.sgm_uniform(calls, study.base.levels), flow=study.base.flow)
            images = make_pairs(study.base, SEEDS, table, "", True).target
            return {"errors": errors(images, study.goals["undistilled"].target).tolist(), "far": study.far(images)}
        rows.append({"model": f"{KINDS[study.name].base}, its base, cfg {study.base.cfg:g}",
                     "sampler": f"{OWN}, {calls} calls", **study.piece(f"base-{calls}", make)})
    return rows


def table_rows(study: Study, counts: list) -> list[dict]:
    """What a training with each teacher finds, beside the best baseline and the model's own sampler."""
    rows = []
    for calls in counts:
        for teacher, goal in TEACHERS.items():
            learned, record = study.table(teacher, calls)
            rows.append({"model": study.name, "calls": calls, "teacher": teacher, "goal": goal,
                         "taught by": record["teacher"], "lost": bool(record["nothing_gained"]),
                         "usual": study.piece(f"usual-{goal}-{calls}", lambda: study.measured(study.own(calls), goal)),
                         "best": study.piece(f"baseline-{goal}-{calls}", lambda: study.baseline(goal, calls)),
                         "s4s": study.piece(f"s4s-{teacher}-{calls}", lambda: study.measured(learned, goal))})
            print(table_page(rows[-1:]).splitlines()[-1], flush=True)
    return rows


def mean(measured: dict) -> float:
    return float(np.mean(measured["errors"]))


def model_page(rows: list[dict]) -> str:
    lines = ["| model | sampler | error to the undistilled | Fréchet distance |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {row['model']} | {row['sampler']} | {mean(row):.4f} | {row['far']:.2f} |"
                              for row in rows]) + "\n"


def table_page(rows: list[dict]) -> str:
    lines = ["| model | calls | teacher | goal | own sampler | best baseline | S4S | times closer | seeds won "
             "| to the undistilled: own, best, S4S | Fréchet: own, best, S4S |", "|---|" + "---|" * 10]
    for row in rows:
        usual, best, ours = (np.array(row[name]["errors"]) for name in ("usual", "best", "s4s"))
        won = np.mean((ours < best) + 0.5 * (ours == best))
        kept = " (the baseline: nothing gained)" if row["lost"] else ""
        lines.append(f"| {row['model']} | {row['calls']} | {row['teacher']} | {row['goal']} | {usual.mean():.4f} "
                     f"| {best.mean():.4f} ({row['best']['name']}) | {ours.mean():.4f}{kept} "
                     f"| {best.mean() / ours.mean():.2f} | {100 * won:.0f} % | "
                     + " | ".join(", ".join(f"{row[name][what]:.{digits}f}" for name in ("usual", "best", "s4s"))
                                  for what, digits in (("off", 4), ("far", 2))) + " |")
    return "\n".join(lines) + "\n"


def main(arguments: list | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of MNIST")
    parser.add_argument("--cache", type=Path, default=Path("runs/distilled"), help="of weights and finished pieces")
    parser.add_argument("--only", default=",".join(KINDS), help="models")
    parser.add_argument("--calls", default="2,3,4", help="numbers of calls")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/how-to/distilled.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.cache.mkdir(parents=True, exist_ok=True)
    studies = [Study(name, options.data, options.cache) for name in options.only.split(",")]
    models = model_page([row for study in studies for row in model_rows(study)])
    print(models)
    counts = [int(calls) for calls in options.calls.split(",")]
    tables = table_page([row for study in studies for row in table_rows(study, counts)])
    print(tables)
    if options.write:
        page = ROOT / "docs/how-to/distilled.md"
        text = placed(placed(page.read_text(), MODELS, models), TABLES, tables)
        write_atomically(page, text.encode())


if __name__ == "__main__":
    main()
