"""What the study measures: every learned table and every baseline, on pairs none of them was learned from.

Errors are the RMSE of each test seed to a fine solver on the same model, at the same guidance. A cell holds them all;
page.py makes ratios and intervals of them.
"""

import tempfile
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from s4s.s4s_nodes.core import Table, preset_file
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.baselines.measure import Entry, baselines, measured
from s4s.training.config import Config
from s4s.training.parametrization.parameters import Parameters
from s4s.training.progress import RunProgress
from s4s.training.run import Run
from s4s.training.teacher.pairs import TEST_SEEDS, VALIDATION_SEEDS, ends, rmse
from s4s.training.teacher.solvers import teacher_of
from tests.bench.transfer import cells, models
from tests.bench.transfer.learn import Learned, Lesson, learn

CFG = 3.0
LESSON, CHECK, TEST = 32, 12, 48        # pairs to learn from, to choose by, and to race on
FEW, FINALISTS = 8, 6                   # test pairs all baselines run, and how many of them run all
BUDGET = 10_000                         # network calls of the trainer's own tables, the hosts' default
DEFAULTS = {"eps": ("dpmpp_2m", "karras"), "v": ("euler", "simple"), "flow": ("euler", "simple")}
SHIPPED = ("digits-eps", "digits-flow")


@dataclass(frozen=True)
class Setting:
    """A model as it is run: guidance, side of the picture (0: its own), and how the network's numbers are rounded."""

    name: str
    cfg: float = CFG
    size: int = 0
    rounding: str = ""                  # "", "fp16", "bf16": what goes in and what comes out; "bf16 net": all of it

    @property
    def mark(self) -> str:
        """Its name in file names."""
        size, rounding = f"-{self.size}px" if self.size else "", f"-{self.rounding.replace(' ', '-')}"
        return f"{self.name}-cfg{self.cfg:g}{size}{rounding if self.rounding else ''}"


def rounded(network, rounding: str):
    """The guided network as half precision would have it."""
    if rounding == "bf16 net":
        def half(x, sigma, **extra):
            with torch.autocast("cpu", torch.bfloat16):
                return network(x, sigma, **extra).to(x.dtype)
        return half
    kind = {"fp16": torch.float16, "bf16": torch.bfloat16}[rounding]
    return lambda x, sigma, **extra: network(x.to(kind).to(x.dtype), sigma, **extra).to(kind).to(x.dtype)


class Study:
    """The cells of one cache folder, each measured when it is first asked for."""

    def __init__(self, store: cells.Store):
        self.store = store
        self._sources: dict = {}

    def source(self, setting: Setting):
        """The model of a setting."""
        if setting not in self._sources:
            made = models.source(setting.name, setting.cfg, self.store.folder, setting.size)
            if setting.rounding:
                made = replace(made, network=rounded(made.network, setting.rounding))
            self._sources[setting] = made
        return self._sources[setting]

    def pairs(self, setting: Setting, part: str):
        """The lesson, check or test pairs of a setting."""
        first, count = {"lesson": (0, LESSON), "check": (VALIDATION_SEEDS, CHECK), "test": (TEST_SEEDS, TEST)}[part]
        return self.store.pairs(self.source(setting), setting.mark, range(first, first + count))

    def teacher(self, setting: Setting) -> dict:
        """How far the fine solver's results move when its calls are doubled."""
        def make():
            source = self.source(setting)
            few = self.pairs(setting, "test").part(slice(0, 8))
            off = rmse(ends(source, teacher_of(source, "auto", 50).finer(None), few), few.target)
            return {"error": off, "words": f"teacher off by {off:.4f}"}
        return self.store.cell(f"teacher-{setting.mark}", make)

    def classical(self, setting: Setting, calls: int) -> dict:
        """{"few": {pair: errors of FEW seeds}, "all": {pair: errors of all}}: all of them, finalists in "all"."""
        def make():
            source, pairs = self.source(setting), self.pairs(setting, "test")
            some = pairs.part(slice(0, FEW))
            tried = [measured(source, [entry], some)[0] for entry in baselines(source, calls)]
            tried.sort(key=lambda entry: entry.errors.mean())
            final = tried[:FINALISTS]
            default = DEFAULTS[source.model.prediction]
            if not any((entry.solver_name, entry.schedule_name) == default for entry in final):
                final += baselines(source, calls, {default})
            full = [measured(source, [entry], pairs)[0] for entry in final]
            best = min(full, key=lambda entry: entry.rmse)
            return {"few": {entry.name: entry.errors.tolist() for entry in tried},
                    "all": {entry.name: entry.errors.tolist() for entry in full},
                    "words": f"{best.name} {best.rmse:.4f}"}
        return self.store.cell(f"classical-{setting.mark}-calls{calls}", make)

    def pair(self, setting: Setting, calls: int, name: str) -> np.ndarray:
        """Errors of one baseline, "solver, schedule", on all test seeds; infinite where the model has no such."""
        if name in (known := self.classical(setting, calls)["all"]):
            return np.array(known[name])

        def make():
            source = self.source(setting)
            found = baselines(source, calls, {tuple(name.split(", "))})
            if not found:
                return {"errors": [float("inf")] * TEST}
            return {"errors": measured(source, [found[0]], self.pairs(setting, "test"))[0].errors.tolist()}
        kept = self.store.cell(f"pair-{setting.mark}-calls{calls}-{name.replace(', ', '-')}", make)
        return np.array(kept["errors"])

    def unit(self, setting: Setting, calls: int) -> float:
        """The mean error of the best baseline on the few seeds: what a lesson's errors are measured in."""
        return min(np.mean(found) for found in self.classical(setting, calls)["few"].values())

    def table(self, settings: tuple, calls: int, begin: tuple = ()) -> dict:
        """The table learned on these settings together; begin: the settings whose table it goes on from."""
        name = "+".join(setting.mark for setting in settings) + (f"-from-{begin[0].mark}" if begin else "")

        def make():
            lessons = [Lesson(self.source(s), self.pairs(s, "lesson"), self.pairs(s, "check"), self.unit(s, calls))
                       for s in settings]
            begun = None
            if begin:
                origin = self.learned(begin, calls)
                begun = (origin.parameters, origin.vector)
            found = learn(lessons, calls, begun)
            return {"table": cells.numbers(found.table), "vector": found.vector.tolist(),
                    "start": found.parameters.start.tolist(), "base": found.parameters.base, "before": found.before,
                    "after": found.after, "curve": found.curve,
                    "words": f"{found.parameters.base} {found.before:.3f} -> {found.after:.3f}"}
        return self.store.cell(f"table-{name}-calls{calls}", make)

    def learned(self, settings: tuple, calls: int) -> Learned:
        """The free numbers of a table that `table` has learned."""
        kept, source = self.table(settings, calls), self.source(settings[0])
        parameters = Parameters(np.array(kept["start"]), kept["base"], source.flow, highest=source.sigma_max)
        return Learned(parameters, torch.tensor(kept["vector"], dtype=torch.float64), kept["before"], kept["after"])

    def errors(self, name: str, table: Table, setting: Setting) -> np.ndarray:
        """Errors of a table on all test seeds of a setting."""
        def make():
            found = measured(self.source(setting), [Entry("S4S", name, table)], self.pairs(setting, "test"))[0]
            return {"errors": found.errors.tolist(), "words": f"{found.rmse:.4f}"}
        return np.array(self.store.cell(f"race-{name}-on-{setting.mark}", make)["errors"])

    def raced(self, settings: tuple, calls: int, on: Setting, begin: tuple = ()) -> np.ndarray:
        """Errors on a setting of the table learned on others."""
        table = cells.table(self.table(settings, calls, begin)["table"])
        return self.errors("+".join(s.mark for s in settings) + f"-calls{calls}", table, on)

    def trained(self, on: Setting, calls: int) -> np.ndarray:
        """Errors on a setting of the table that the trainer itself makes for it within BUDGET network calls."""
        def make():
            source = self.source(on)
            config = Config.of(name="own", model=source.name, cfg=on.cfg, calls=(calls,), budget=BUDGET)
            with tempfile.TemporaryDirectory() as folder:
                made = Run(config, folder, progress=RunProgress(quiet=True), source=source).train()
            found = measured(source, [Entry("S4S", "own", made.table(calls))], self.pairs(on, "test"))[0]
            return {"errors": found.errors.tolist(), "calls": made.training["model_calls"],
                    "start": made.training["start"], "words": f"{found.rmse:.4f}"}
        return np.array(self.store.cell(f"trained-{on.mark}-calls{calls}", make)["errors"])

    def shipped(self, name: str, calls: int, on: Setting) -> np.ndarray | None:
        """Errors of a bundled model's own preset, learned far longer; None where it has no such table."""
        found = self.presets[name]
        return self.errors(f"shipped-{name}-calls{calls}", found.table(calls), on) if calls in found.counts else None

    @cached_property
    def presets(self) -> dict:
        """The presets of the bundled models."""
        return {name: preset_file.load(shipped_folder() / f"{name}-cfg3.safetensors") for name in SHIPPED}
