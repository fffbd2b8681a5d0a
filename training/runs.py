"""A run on disk: configuration, cached teacher pairs, state, log, preset. Stopping it anywhere loses seconds."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable

import numpy as np
from tqdm.auto import tqdm

from .budget import Plan, forecast, planned, taught_before
from .config import Config
from .core import Preset
from .folder import Folder, check_same
from .learning.forward_only import learn_forward
from .learning.loop import State, learn
from .learning.objective import objective_of
from .learning.sparing import learn_sparingly
from .learning.starts import settle_start
from .models import sources
from .models.pairs import VALIDATION_SEEDS, FreshPairs, Pairs, ends, joined, known_pairs, make_pairs, teacher_error
from .models.teacher import teacher_of
from .models.windows import table_name, window_levels, window_top
from .modes import settled_mode
from .progress import Clock, Progress
from .tables.parameters import Parameters

TRAINER = "s4s 0.3.0"
CHUNK = 64                  # teacher pairs made, then saved, at a time
PREVIEWED = 4               # images of a preview
RECORDED = ("family", "base", "order", "learn", "form", "clock", "mode", "objective", "relaxed", "seed", "budget")


class Stopped(Exception):
    """The user stopped the run; it is saved, and the message says how to go on."""


def learner(plan: Plan) -> Callable:
    """What carries a table's state on: all three have `loop.learn`'s signature."""
    return learn if plan.mode == "gradient" else learn_sparingly if plan.budget else learn_forward


@dataclass
class Window:
    """A denoise strength, the level it starts at (None: the model's highest), its pairs, and the network calls they
    and the checks cost, which its tables share."""

    denoise: float
    top: float | None
    pairs: Pairs
    held_out: Pairs
    shared: int


class Run:
    """One training run in its folder: of the bundled model its configuration names, or of a source from outside.

    on_progress(Progress) is told before every network call, say(text) of everything else. world: the processes it is
    spread over. Raises ValueError where the folder holds another run, or the configuration cannot work.
    """

    def __init__(self, config: Config, folder, resume: bool = False, quiet: bool = False, source=None,
                 on_progress: Callable | None = None, say: Callable | None = None, world=None):
        self.config, self.folder, self.on_progress, self.world = config, Path(folder), on_progress, world
        self.quiet = quiet = quiet or bool(world) and not world.first
        self._told, self.bars = say or tqdm.write, not (quiet or say or on_progress)
        self.states: dict[str, State] = {}
        self.starts: dict[str, dict] = {}           # table name -> {"schedule": ..., "sigmas": [...], "denoise": ...}
        self.calls_before, self.seconds_before, self._clock = 0, 0.0, Clock()
        self._phase, self._table, self._window, self._loss, self._bar = "teacher", "", None, math.nan, None
        self._total = 0
        if not (source or world):                   # before gigabytes are opened for nothing
            check_same(self.folder, config, resume)
        self.source = source or sources.of(config, world.device(config.device) if world else config.device, self._say)
        if world:
            self.source = world.spread(self.source)
        self.device = self.source.device
        self.plan = planned(config, self.source, config.first_mode)
        objective_of(config.objective, self.source)         # raises where lpips lacks something
        self.files = Folder(self.folder, config, resume, self._say, world)
        if resume:
            self.states, facts = self.files.load_state()
            self.starts, self.seconds_before = facts.get("starts", {}), facts.get("seconds", 0.0)
            self.calls_before = facts.get("model_calls", 0)
        sources.check_same(self.starts, self.source, self.folder)

    # --- the course of a run ------------------------------------------------------------------------------------

    def train(self) -> Preset:
        """`carry_out` for a terminal: Ctrl-C becomes Stopped, whose words say how to go on."""
        try:
            return self.carry_out()
        except KeyboardInterrupt:
            kept = f"\nthe best table so far is in {self.preset_path}" if self.preset_path.exists() else ""
            raise Stopped(f"stopped and saved; go on with: s4s train --resume {self.folder}{kept}") from None

    def carry_out(self) -> Preset:
        """Make the pairs, learn every table, write the preset and return it.

        Whatever the model or on_progress raises passes, a host's own interruption too, with everything saved and
        the best tables so far written; a full disk is reported and the run goes on in memory.
        """
        self.source.on_model_calls, self.source.say = self._counted, self._say
        try:
            return self._carry_out()
        except BaseException as error:
            self.source.on_model_calls = None
            kept = self._keep()
            if self.states and not isinstance(error, KeyboardInterrupt):
                self._say(f"the run broke off and is saved in {self.folder}; started again with the same settings it "
                          f"goes on (on the command line: s4s train --resume {self.folder}){kept}")
            raise
        finally:
            self.source.on_model_calls = None

    def _carry_out(self) -> Preset:
        self._settle_mode()
        self.teacher = teacher_of(self.source, self.plan.teacher, self.plan.teacher_calls)
        for denoise in sorted(self.plan.windows, reverse=True):
            window = self._prepare(denoise)
            for calls in self.plan.calls:
                self._learn_table(calls, window)
        self._phase = "saving"
        made = self.preset()
        self.files.save_preset(made)
        return made

    def _settle_mode(self) -> None:
        if "mode" not in self.starts:
            before = self.source.model_calls
            mode, why = settled_mode(self.source, self.config)
            if self.world:
                mode, why = self.world.shared(lambda: (mode, why))
            self.starts["mode"] = {"mode": mode, "why": why, "calls": self.source.model_calls - before}
        mode, why = self.starts["mode"]["mode"], self.starts["mode"]["why"]
        self._say(f"{'WARNING: ' if self.config.mode not in (mode, 'auto') else ''}{mode} mode: {why}")
        self.plan = planned(self.config, self.source, mode)
        self._total = forecast(self.plan, self.source)

    def _prepare(self, denoise: float) -> Window:
        """The window with its pairs. One below the top starts on the teacher's results for whole images, noised."""
        self._phase, self._table = "teacher", ""
        top = None if denoise == 1 else window_top(self.curve, denoise, self.source.flow)
        solver, mark = self.teacher.from_level(top), "" if top is None else f"-from{top:.6g}"
        plan, first, made = self.plan, VALIDATION_SEEDS + self.plan.seed, {}
        for kind, seeds in (("train", range(plan.seed, plan.seed + taught_before(plan))),
                            ("validation", range(first, first + plan.validation))):
            if seeds:
                made[kind] = self._cached_pairs(kind, mark, seeds, solver, None if top is None else self.images[kind])
        shared = sum(map(len, made.values())) * solver.calls
        if plan.fresh:
            made["train"] = FreshPairs(self.source, range(plan.seed, plan.seed + plan.iterations * plan.batch), solver,
                                       None if top is None else self.teacher.from_level(None))
        if top is None:
            self.images = {kind: pairs.target for kind, pairs in made.items() if not isinstance(pairs, FreshPairs)}
            self._check_teacher(made["validation"])
            shared += self.starts["mode"]["calls"] + self.starts["teacher"]["calls"] + self.teacher.check_calls
        return Window(denoise, top, made["train"], made["validation"], shared)

    def _check_teacher(self, held_out: Pairs) -> None:
        if "teacher" not in self.starts:
            before = self.source.model_calls
            error = teacher_error(self.source, self.teacher, held_out, self.plan.checked)
            self.starts["teacher"] = {"error": error, "calls": self.source.model_calls - before}
        self._say(f"teacher {self.teacher.words}: its targets move by RMSE {self.starts['teacher']['error']:.2g} "
                  "when its calls are doubled")

    def _learn_table(self, calls: int, window: Window) -> None:
        name, plan = table_name(calls, window.top), self.plan
        self._phase, self._table, self._window, self._loss = "learning", name, window, math.nan
        if name not in self.states:
            curve = None if window.top is None else window_levels(self.curve, window.denoise, calls, self.source.flow)
            parameters, schedule_name, self.states[name] = settle_start(
                self.source, calls, window.pairs, window.held_out, plan, self._say, curve)
            self.states[name].spent += math.ceil(window.shared / len(plan.calls))
            self.starts[name] = {"schedule": schedule_name, "sigmas": parameters.start.tolist(),
                                 "denoise": window.denoise}
        parameters, state = self.parameters(name), self.states[name]
        self._say(f"{name}: {calls} rows, {int(parameters.moving().sum())} free numbers, from {plan.base} on "
                  f"{self.starts[name]['schedule']}; {plan.iterations - state.iteration} iterations, "
                  + ("each number by back-propagation" if plan.mode == "gradient" else "no backward pass"))
        with tqdm(total=forecast(plan, self.source, calls), desc=f"learning {name}", unit="call",
                  disable=None if self.bars else True) as self._bar:
            def on_progress(state, loss, checked):
                self._loss = loss
                self._bar.set_postfix({"iteration": f"{state.iteration}/{plan.iterations}", "loss": f"{loss:.4f}",
                                       "held-out": f"{state.best_error:.4f}", "all calls": f"{self.model_calls:,}"})
                if checked:
                    self.save()
            try:
                learner(plan)(self.source, parameters, window.pairs, window.held_out, plan, state, on_progress)
            finally:
                self._bar = None
        self.save()
        warn = self.starts["teacher"]["error"] > state.best_error / 5
        self._say(f"{name}: held-out RMSE {state.curve[0][2]:.4f} -> {state.best_error:.4f}"
                  + (f"; the teacher's own error is not far below: use more than {plan.teacher_calls} "
                     "teacher calls" if warn else ""))

    @property
    def curve(self) -> np.ndarray:
        """The levels of the largest full table learned so far: the preset's own curve."""
        whole = [name for name in self.states if self.starts[name]["denoise"] == 1.0]
        largest = max(whole, key=lambda name: self.parameters(name).calls)
        return self.parameters(largest).solver(self.states[largest].best).sigmas

    def parameters(self, name: str) -> Parameters:
        """The parametrisation of one of the run's tables."""
        return Parameters.of(self.plan, self.source, np.array(self.starts[name]["sigmas"]))

    # --- what is told -------------------------------------------------------------------------------------------

    def _counted(self, images: int) -> None:
        if self._bar is not None:
            self._bar.update(images)
        if self.on_progress is None:
            return
        state = self.states.get(self._table)
        done, total = self.model_calls, max(self.model_calls, self._total)
        self.on_progress(Progress(
            self._phase, self._table, done, total, self._loss, *((state.best_error, state.classical) if state else ()),
            seconds_left=self._clock.left(self.source.model_calls, total - done),
            preview=self.preview if state else None))

    def preview(self) -> tuple:
        """(student, teacher): a few held-out images by the best table so far; these calls are not counted."""
        few = self._window.held_out.part(slice(0, PREVIEWED))
        uncounted = replace(self.source, on_model_calls=None)
        best = self.parameters(self._table).solver(self.states[self._table].best)
        return ends(uncounted, best, few), few.target

    @property
    def model_calls(self) -> int:
        """Network calls spent by this run so far, all sessions together."""
        return self.calls_before + self.source.model_calls

    @property
    def seconds(self) -> float:
        return self.seconds_before + self._clock.seconds

    def _say(self, text: str) -> None:
        if not self.quiet:
            self._told(text)

    # --- files --------------------------------------------------------------------------------------------------

    def _cached_pairs(self, kind: str, mark: str, seeds: range, solver, clean) -> Pairs:
        """Pairs from the run's folder where they were saved, made and saved where not."""
        parts = []
        for start in range(seeds.start, seeds.stop, CHUNK):
            chunk = range(start, min(start + CHUNK, seeds.stop))
            name = f"{kind}{mark}-{chunk.start}-{chunk.stop}"
            some = None if clean is None else clean[chunk.start - seeds.start:chunk.stop - seeds.start]
            if (target := self.files.load_targets(name, (len(chunk), *self.source.shape))) is not None:
                parts.append(known_pairs(self.source, chunk, target.to(self.device), some))
                continue
            label = f"teacher, {kind} pairs {chunk.start - seeds.start + 1}-{chunk.stop - seeds.start} of {len(seeds)}"
            parts.append(make_pairs(self.source, chunk, solver, label, not self.bars, some))
            self.files.save_targets(name, parts[-1].target)
            self.save()
        return joined(parts)

    def save(self) -> None:
        """Write state and log, whole or not at all; a failing disk is reported once and the run goes on."""
        self.files.save_state(self.states, {"starts": self.starts, "model_calls": self.model_calls,
                                            "seconds": self.seconds})

    def _keep(self) -> str:
        """Save the run and the best tables so far; words about the latter."""
        self.save()
        try:
            self.files.save_preset(self.preset())
        except (ValueError, OSError):
            return ""
        return f"\nthe best table so far is in {self.preset_path}"

    @property
    def preset_path(self) -> Path:
        return self.files.preset_path

    def preset(self) -> Preset:
        """The best tables learned so far. Raises ValueError while there is none."""
        tables = {name: self.parameters(name).solver(state.best) for name, state in self.states.items()}
        if not tables:
            raise ValueError("no table has been learned yet")
        plan, scales = self.plan, self.source.cfgs or (self.source.cfg,)
        training = {"teacher": self.teacher.words, "teacher_error": self.starts["teacher"]["error"],
                    "cfg": [min(scales), max(scales)], "resolution": list(self.source.shape[1:]),
                    **{name: getattr(plan, name) for name in RECORDED},
                    "pairs": plan.iterations * plan.batch if plan.fresh else plan.pairs,
                    "iterations": {name: state.iteration for name, state in self.states.items()},
                    "held_out_rmse": {name: [state.curve[0][2], state.best_error]
                                      for name, state in self.states.items()},
                    "start": {name: self.starts[name]["schedule"] for name in self.states},
                    "denoise": {name: self.starts[name]["denoise"] for name in self.states},
                    "model_calls": self.model_calls, "seconds": round(self.seconds, 1), "trainer": TRAINER,
                    **self.source.about, **({"processes": self.world.size} if self.world else {})}
        return Preset(plan.name, tables, self.source.model, training, licence="CC0-1.0", source="trained with S4S")
