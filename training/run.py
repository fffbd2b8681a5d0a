"""A run on disk: configuration, cached teacher pairs, state, log, preset. A stop at any time loses only seconds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from ..s4s_nodes.core import Preset, Table
from ..s4s_nodes.core.table import PARTS
from . import sources
from .baselines.measure import measure
from .budget import LEAST_PAIRS, forecast, pair_cost, taught_before
from .checks import check
from .config import Config
from .convergence import Convergence, noise_of, probes, settled
from .modes import Way, settled_mode
from .nodes import Node, nodes_of, run_calls
from .optimizers.gauss_newton import learn_forward, nudge_for
from .optimizers.gradient import learn
from .optimizers.state import GaussNewtonState, State, new_state
from .parametrization.parameters import Parameters
from .records import TRAINER, preset_of
from .run_folder import Folder
from .run_identity import check_same, identity
from .starts.search import Start, settle_start
from .teacher.pairs import VALIDATION_SEEDS, FreshPairs, Pairs, ends, joined, known_pairs, make_pairs
from .teacher.solvers import Teacher, teacher_of
from .teacher.windows import table_name, window_levels, window_top
from .told import Told

CHUNK = 64                  # teacher pairs made, then saved, at a time
PREVIEWED = 4               # images of a preview
SHARE_OF_CHECK = 0.15       # of the budget, that measuring the teacher may cost


class Stopped(Exception):
    """The user stopped the run. It is saved, and the message says how to resume."""


@dataclass
class Window:
    """A denoise strength, the level it starts at (None: the model's highest), its pairs, and the network calls they
    and the checks cost, which its tables share."""

    denoise: float
    top: float | None
    pairs: Pairs | FreshPairs
    held_out: Pairs
    shared: int


def table_of(parts: dict) -> Table:
    """A table from lists of its numbers."""
    sigmas, query, scale, carry, weights = (np.array(parts[name]) for name in PARTS)
    return Table(sigmas, query, scale, carry, weights)


class Run:
    """One training run in its folder: of the bundled model its configuration names, or of a source from outside.

    on_progress(Progress) is called before every network call, say(text) with messages. world: the processes to use.
    way: the mode that an estimate settled; None: the run settles it. Raises ValueError if the folder holds another run
    or the configuration cannot work.
    """

    def __init__(self, config: Config, folder, resume: bool = False, quiet: bool = False, source=None,
                 on_progress: Callable | None = None, say: Callable | None = None, world=None,
                 way: Way | None = None):
        self.config, self.folder, self.world = config, Path(folder), world
        self.told = Told(on_progress, say, quiet or bool(world) and not world.first)
        self.states: dict[str, State] = {}
        self.images: dict[str, Tensor] = {}         # the teacher's results for whole images, by kind of pairs
        self.starts: dict[str, dict] = {}           # table name -> {"schedule": ..., "sigmas": [...], "denoise": ...}
        self.seconds_before, self.way = 0.0, way
        self.teacher: Teacher = None                # type: ignore[assignment]  # until `_settle_teacher`
        if not (source or world):                   # before gigabytes are opened for nothing
            check_same(self.folder, config, resume)
        device = world.device(config.device) if world else config.device
        self.source = source or sources.of(config, device, self.told.say)
        if world:
            self.source = world.spread(self.source)
        self.device = self.source.device
        check(config, self.source)
        self.nodes = nodes_of(config)
        self.node, self.own_cfg = self.nodes[0], self.source.cfg
        self.plan = [node.plan(self.source, config.first_mode) for node in self.nodes][0]
        self.identity, self.programs = identity(config, self.source), [TRAINER]
        self.files = Folder(self.folder, config, resume, self.told.say, world, self.identity)
        if resume:
            self.states, facts = self.files.load_state()
            self.starts, self.seconds_before = facts.get("starts", {}), facts.get("seconds", 0.0)
            self.source.calls_before = facts.get("model_calls", 0)
            self._note_program(facts.get("programs", self.programs))
        sources.check_same(self.starts, self.source, self.folder)

    def _note_program(self, before: list) -> None:
        """Say that another version began the run, and note both: no two versions promise the same bits."""
        if before[-1] != TRAINER:
            self.told.say(f"WARNING: {before[-1]} began this run and {TRAINER} resumes it. The tables can differ from "
                          "those of one version; the preset names both")
            before = [*before, TRAINER]
        self.programs = before

    # --- the course of a run ------------------------------------------------------------------------------------

    def train(self) -> Preset:
        """`carry_out` for a terminal: Ctrl-C becomes Stopped, whose message says how to resume."""
        try:
            return self.carry_out()
        except KeyboardInterrupt:
            kept = f"\nthe best table so far is in {self.preset_path}" if self.preset_path.exists() else ""
            raise Stopped(f"stopped and saved; resume with: s4s train --resume {self.folder}{kept}") from None

    def carry_out(self) -> Preset:
        """Make the pairs, learn every table, write the preset and return it.

        Exceptions of the model and on_progress, including a host's interruption, pass through after everything is saved
        and the best tables so far are written. A full disk is reported, and the run continues in memory.
        """
        self.source.on_model_calls, self.source.say = self._counted, self.told.say
        try:
            with self.files.held():
                return self._carry_out_or_keep()
        finally:
            self.source.on_model_calls, self.source.cfg = None, self.own_cfg

    def _carry_out_or_keep(self) -> Preset:
        try:
            return self._carry_out()
        except BaseException as error:
            self.source.on_model_calls = None
            kept = self._keep()
            if self.states and not isinstance(error, KeyboardInterrupt):
                self.told.say(f"the run stopped and is saved in {self.folder}; started again with the same settings "
                              f"it resumes (on the command line: s4s train --resume {self.folder}){kept}")
            raise

    def _carry_out(self) -> Preset:
        self.source.cfg = self.node.cfg
        self._settle_mode()
        self._settle_teacher()
        for node in self.nodes:
            self._enter(node)
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
            way = self.way or settled_mode(self.source, self.config)
            if self.way:                                # as many calls as if they had been made here
                self.source.model_calls += way.calls
            self.starts["mode"] = (self.world.shared(lambda: way) if self.world else way)._asdict()
        mode, why = self.starts["mode"]["mode"], self.starts["mode"]["why"]
        self.told.say(f"{'WARNING: ' if self.config.mode not in (mode, 'auto') else ''}{mode} mode: {why}")
        self.plan = self.node.plan(self.source, mode)

    def _settle_teacher(self) -> None:
        """Measure the teacher's error and the network's noise, and plan for as many teacher calls as that requires."""
        self.told.begin("teacher")
        plan = self.plan
        if "teacher" not in self.starts:
            afforded = SHARE_OF_CHECK * len(plan.calls) * plan.most_calls
            first = VALIDATION_SEEDS + plan.data.seed
            seeds = range(first, first + probes(plan.most_calls))
            before = self.source.model_calls
            found = settled(self.source, plan.teacher.solver, plan.teacher.calls, max(plan.calls), seeds, afforded)
            noise = noise_of(self.source, range(plan.data.seed, plan.data.seed + 2)) if plan.mode == "forward" else 0.0
            spent = self.source.model_calls - before
            self.starts["teacher"] = {**found._asdict(), "spent": spent, "noise": noise}
        self.found = Convergence(*(self.starts["teacher"][name] for name in Convergence._fields))
        self.teacher = teacher_of(self.source, plan.teacher.solver, self.found.calls)
        self.told.total = run_calls(self.nodes, self.source, plan.mode, self.found.calls, self.found.spent)
        doubt = "" if self.found.suffices else "; WARNING: more than a fifth of the tables' expected error"
        self.told.say(f"teacher {self.teacher.words}: off by RMSE {self.found.error:.2g}{doubt}")

    def _enter(self, node: Node) -> None:
        """Turn to a guidance scale. What was measured at the first holds for all."""
        self.node, self.source.cfg = node, node.cfg
        self.plan = node.plan(self.source, self.plan.mode, self.found.calls, self.found.spent)
        if len(self.nodes) > 1:
            self.told.say(f"cfg {node.cfg:g}" + (f", from the tables learned at cfg {node.neighbour:g}"
                                                 if node.neighbour is not None else ""))

    def _prepare(self, denoise: float) -> Window:
        """The window with its pairs. One below the top starts on the teacher's results for whole images, noised."""
        self.told.begin("teacher")
        top = None if denoise == 1 else window_top(self.curve, denoise, self.source.flow)
        table, mark = self.teacher.from_level(top), self.node.name("" if top is None else f"-from{top:.6g}")
        plan, first = self.plan, VALIDATION_SEEDS + self.plan.data.seed
        made: dict = {}
        for kind, seeds in (("train", range(plan.data.seed, plan.data.seed + taught_before(plan))),
                            ("validation", range(first, first + plan.data.validation))):
            if seeds:
                made[kind] = self._cached_pairs(kind, mark, seeds, table, None if top is None else self.images[kind])
        shared = sum(map(len, made.values())) * table.calls
        if plan.gradient.fresh:
            seeds = range(plan.data.seed, plan.data.seed + plan.iterations * plan.gradient.batch)
            made["train"] = FreshPairs(self.source, seeds, table,
                                       None if top is None else self.teacher.from_level(None))
        if top is None:
            self.images = {kind: pairs.target for kind, pairs in made.items() if not isinstance(pairs, FreshPairs)}
            if self.node.neighbour is None:
                shared += self.starts["mode"]["calls"] + self.found.spent + self.teacher.check_calls
        return Window(denoise, top, made["train"], made["validation"], shared)

    def _learn_table(self, calls: int, window: Window) -> None:
        name, plan = self.node.name(table_name(calls, window.top)), self.plan
        self.told.begin("learning", name)
        self._window = window
        if name not in self.states:
            self._begin_table(name, calls, window)
        parameters, state = self.parameters(name), self.states[name]
        to_go = f"; {max(0, plan.iterations - state.iteration)} iterations to go" if plan.iterations else ""
        self.told.say(f"{name}: {calls} rows, {int(parameters.moving().sum())} free numbers, from "
                      f"{self.starts[name]['schedule']}{to_go}")

        def on_progress(state, loss, checked):
            self.told.iterated(state, loss, self.model_calls)
            if checked:
                self.save()
        with self.told.bar(forecast(plan, self.source, calls)):
            learner: Callable = learn if plan.mode == "gradient" else learn_forward
            learner(self.source, parameters, window.pairs, window.held_out, plan, state, on_progress)
        self._judge(name, window)
        self.save()

    def _begin_table(self, name: str, calls: int, window: Window) -> None:
        """Find the table's start, the best baseline that its free numbers can hold, and note it."""
        before, plan = self.source.model_calls, self.plan
        start = self._start(calls, window)
        state = new_state(plan.mode, start.parameters, start.vector)
        best = measure(self.source, start.best, window.held_out)
        state.baseline, state.baseline_median = float(best.errors.mean()), best.median
        state.spent = self.source.model_calls - before + math.ceil(window.shared / len(plan.calls))
        if isinstance(state, GaussNewtonState):
            least = 2 * plan.data.validation * calls + LEAST_PAIRS * pair_cost(plan, self.source, calls)
            state.left = max(plan.most_calls - state.spent, least if plan.warm else 0)
            state.nudge = nudge_for(self.starts["teacher"]["noise"])
            if start.at_best:                           # measured just now
                state.begin(state.baseline, state.baseline_median, self.source.all_calls)
        self.starts[name] = {"schedule": start.levels_name, "sigmas": start.parameters.start.tolist(),
                             "cfg": self.node.cfg, "denoise": window.denoise,
                             "baseline": [start.best.solver_name, start.best.schedule_name],
                             "baseline_table": {part: getattr(start.best.table, part).tolist() for part in PARTS},
                             "gained": True}
        self.states[name] = state                   # last: a stop between the two lines repeats the start

    def _start(self, calls: int, window: Window) -> Start:
        """Where a table begins: at the best baseline, or where its neighbour's ended."""
        curve = None if window.top is None else window_levels(self.curve, window.denoise, calls, self.source.flow)
        start, beside = settle_start(self.source, calls, window.held_out, self.plan, curve), self.node.neighbour
        if beside is None:
            return start
        other = self.node.name(table_name(calls, window.top), beside)
        return replace(start, parameters=self.parameters(other), vector=self.states[other].best.clone(), at_best=False,
                       levels_name=self.starts[other]["schedule"])

    def _judge(self, name: str, window: Window) -> None:
        """Replace the table by the best baseline if learning does not beat it by mean and median."""
        state, start = self.states[name], self.starts[name]
        start["gained"] = state.best_error < state.baseline and state.best_median < state.baseline_median
        words = f"{name}: held-out RMSE {state.best_error:.4f} (median {state.best_median:.4f}); best baseline, " \
                f"{', '.join(start['baseline'])}: {state.baseline:.4f} ({state.baseline_median:.4f})"
        verdict = "" if start["gained"] else ". Nothing was gained here: the baseline is kept as the table"
        self.told.say(words + verdict)

    def table(self, name: str) -> Table:
        """The table for the preset: the best one learned, or the baseline that it did not beat."""
        if not self.starts[name]["gained"]:
            return table_of(self.starts[name]["baseline_table"])
        return self.parameters(name).frozen(self.states[name].best)

    @property
    def curve(self) -> np.ndarray:
        """The levels of the largest full table learned so far at the first cfg: the preset's own curve."""
        whole = [name for name in self.states if self.starts[name]["denoise"] == 1.0
                 and self.starts[name]["cfg"] == self.nodes[0].cfg]
        largest = max(whole, key=lambda name: self.parameters(name).calls)
        return self.table(largest).sigmas

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
        return ends(uncounted, self.table(name), few), few.target

    @property
    def model_calls(self) -> int:
        """Network calls spent by this run so far, all sessions together."""
        return self.source.all_calls

    @property
    def seconds(self) -> float:
        return self.seconds_before + self.told.clock.seconds

    # --- files --------------------------------------------------------------------------------------------------

    def _cached_pairs(self, kind: str, mark: str, seeds: range, table, clean) -> Pairs:
        """Pairs from the run's folder; missing ones are made and saved."""
        parts, maker = [], self.teacher.words
        for start in range(seeds.start, seeds.stop, CHUNK):
            chunk = range(start, min(start + CHUNK, seeds.stop))
            name = f"{kind}{mark}-{chunk.start}-{chunk.stop}"
            some = None if clean is None else clean[chunk.start - seeds.start:chunk.stop - seeds.start]
            if (target := self.files.load_targets(name, (len(chunk), *self.source.shape), maker)) is not None:
                parts.append(known_pairs(self.source, chunk, target.to(self.device), some))
                continue
            label = f"teacher, {kind} pairs {chunk.start - seeds.start + 1}-{chunk.stop - seeds.start} of {len(seeds)}"
            parts.append(make_pairs(self.source, chunk, table, label, not self.told.bars, some))
            self.files.save_targets(name, parts[-1].target, maker)
            self.save()
        return joined(parts)

    def save(self) -> None:
        """Write state and log atomically. A failing disk is reported once, and the run continues."""
        self.files.save_state(self.states, {"starts": self.starts, "model_calls": self.model_calls,
                                            "seconds": self.seconds, "programs": self.programs})

    def _keep(self) -> str:
        """Save the run and the best tables so far; returns a message about the latter."""
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
