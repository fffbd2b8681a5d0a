"""A run on disk: configuration, cached teacher pairs, state, log, preset. Stopping it anywhere loses seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..s4s_nodes.core import Preset
from . import sources
from .budget import Plan, forecast, planned, taught_before
from .checks import check
from .config import Config
from .modes import Way, settled_mode
from .optimizers.budgeted import learn_sparingly
from .optimizers.gauss_newton import learn_forward
from .optimizers.gradient import State, learn
from .parametrization.parameters import Parameters
from .records import preset_of
from .run_folder import Folder, check_same
from .starts.ranking import settle_start
from .teacher.pairs import VALIDATION_SEEDS, FreshPairs, Pairs, ends, joined, known_pairs, make_pairs, teacher_error
from .teacher.solvers import teacher_of
from .teacher.windows import table_name, window_levels, window_top
from .told import Told

CHUNK = 64                  # teacher pairs made, then saved, at a time
PREVIEWED = 4               # images of a preview


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
    spread over. way: to learn, as an estimate has settled it; None: the run settles it. Raises ValueError where the
    folder holds another run, or the configuration cannot work.
    """

    def __init__(self, config: Config, folder, resume: bool = False, quiet: bool = False, source=None,
                 on_progress: Callable | None = None, say: Callable | None = None, world=None,
                 way: Way | None = None):
        self.config, self.folder, self.world = config, Path(folder), world
        self.told = Told(on_progress, say, quiet or bool(world) and not world.first)
        self.states: dict[str, State] = {}
        self.starts: dict[str, dict] = {}           # table name -> {"schedule": ..., "sigmas": [...], "denoise": ...}
        self.calls_before, self.seconds_before, self.way = 0, 0.0, way
        if not (source or world):                   # before gigabytes are opened for nothing
            check_same(self.folder, config, resume)
        device = world.device(config.device) if world else config.device
        self.source = source or sources.of(config, device, self.told.say)
        if world:
            self.source = world.spread(self.source)
        self.device = self.source.device
        check(config, self.source)
        self.plan = planned(config, self.source, config.first_mode)
        self.files = Folder(self.folder, config, resume, self.told.say, world)
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
        self.source.on_model_calls, self.source.say = self._counted, self.told.say
        try:
            return self._carry_out()
        except BaseException as error:
            self.source.on_model_calls = None
            kept = self._keep()
            if self.states and not isinstance(error, KeyboardInterrupt):
                self.told.say(f"the run broke off and is saved in {self.folder}; started again with the same settings "
                              f"it goes on (on the command line: s4s train --resume {self.folder}){kept}")
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
        self.told.begin("saving")
        made = self.preset()
        self.files.save_preset(made)
        return made

    def _settle_mode(self) -> None:
        if "mode" not in self.starts:
            way = self.way or settled_mode(self.source, self.config, self.world.all if self.world else bool)
            if self.way:                                # as many calls as if they had been made here
                self.source.model_calls += way.calls
            self.starts["mode"] = (self.world.shared(lambda: way) if self.world else way)._asdict()
        mode, why = self.starts["mode"]["mode"], self.starts["mode"]["why"]
        self.told.say(f"{'WARNING: ' if self.config.mode not in (mode, 'auto') else ''}{mode} mode: {why}")
        self.plan = planned(self.config, self.source, mode)
        self.told.total = forecast(self.plan, self.source)

    def _prepare(self, denoise: float) -> Window:
        """The window with its pairs. One below the top starts on the teacher's results for whole images, noised."""
        self.told.begin("teacher")
        top = None if denoise == 1 else window_top(self.curve, denoise, self.source.flow)
        table, mark = self.teacher.from_level(top), "" if top is None else f"-from{top:.6g}"
        plan, first, made = self.plan, VALIDATION_SEEDS + self.plan.seed, {}
        for kind, seeds in (("train", range(plan.seed, plan.seed + taught_before(plan))),
                            ("validation", range(first, first + plan.validation))):
            if seeds:
                made[kind] = self._cached_pairs(kind, mark, seeds, table, None if top is None else self.images[kind])
        shared = sum(map(len, made.values())) * table.calls
        if plan.fresh:
            made["train"] = FreshPairs(self.source, range(plan.seed, plan.seed + plan.iterations * plan.batch), table,
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
        self.told.say(f"teacher {self.teacher.words}: its targets move by RMSE {self.starts['teacher']['error']:.2g} "
                      "when its calls are doubled")

    def _learn_table(self, calls: int, window: Window) -> None:
        name, plan = table_name(calls, window.top), self.plan
        self.told.begin("learning", name)
        self._window = window
        if name not in self.states:
            curve = None if window.top is None else window_levels(self.curve, window.denoise, calls, self.source.flow)
            parameters, schedule_name, self.states[name] = settle_start(
                self.source, calls, window.pairs, window.held_out, plan, self.told.say, curve)
            self.states[name].spent += math.ceil(window.shared / len(plan.calls))
            self.starts[name] = {"schedule": schedule_name, "sigmas": parameters.start.tolist(),
                                 "denoise": window.denoise}
        parameters, state = self.parameters(name), self.states[name]
        left = plan.iterations - state.iteration        # none are planned on a budget
        self.told.say(f"{name}: {calls} rows, {int(parameters.moving().sum())} free numbers, from {plan.base} on "
                      f"{self.starts[name]['schedule']}; " + f"{left} iterations, " * (left > 0)
                      + ("each number by back-propagation" if plan.mode == "gradient" else "no backward pass"))

        def on_progress(state, loss, checked):
            self.told.iterated(state, loss, plan.iterations, self.model_calls)
            if checked:
                self.save()
        with self.told.bar(forecast(plan, self.source, calls)):
            learner(plan)(self.source, parameters, window.pairs, window.held_out, plan, state, on_progress)
        self.save()
        warn = ""
        if self.starts["teacher"]["error"] > state.best_error / 5:
            cut = ", as a run without a budget has" if plan.teacher_calls < self.config.teacher_calls else ""
            warn = f"; the teacher's own error is not far below: use more than {plan.teacher_calls} teacher calls{cut}"
        self.told.say(f"{name}: held-out RMSE {state.curve[0][2]:.4f} -> {state.best_error:.4f}{warn}")

    @property
    def curve(self) -> np.ndarray:
        """The levels of the largest full table learned so far: the preset's own curve."""
        whole = [name for name in self.states if self.starts[name]["denoise"] == 1.0]
        largest = max(whole, key=lambda name: self.parameters(name).calls)
        return self.parameters(largest).frozen(self.states[largest].best).sigmas

    def parameters(self, name: str) -> Parameters:
        """The parametrisation of one of the run's tables."""
        return Parameters.of(self.plan, self.source, np.array(self.starts[name]["sigmas"]))

    # --- what is told -------------------------------------------------------------------------------------------

    def _counted(self, images: int) -> None:
        self.told.counted(images, self.model_calls, self.source.model_calls, self.states.get(self.told.table),
                          self.preview)

    def preview(self) -> tuple:
        """(student, teacher): a few held-out images by the best table so far; these calls are not counted."""
        few = self._window.held_out.part(slice(0, PREVIEWED))
        uncounted = replace(self.source, on_model_calls=None)
        name = self.told.table
        best = self.parameters(name).frozen(self.states[name].best)
        return ends(uncounted, best, few), few.target

    @property
    def model_calls(self) -> int:
        """Network calls spent by this run so far, all sessions together."""
        return self.calls_before + self.source.model_calls

    @property
    def seconds(self) -> float:
        return self.seconds_before + self.told.clock.seconds

    # --- files --------------------------------------------------------------------------------------------------

    def _cached_pairs(self, kind: str, mark: str, seeds: range, table, clean) -> Pairs:
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
            parts.append(make_pairs(self.source, chunk, table, label, not self.told.bars, some))
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
        return preset_of(self)
