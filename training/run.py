"""A run on disk: configuration, cached teacher pairs, state, log, preset. A stop at any time loses only seconds."""

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..s4s_nodes.core import Preset
from . import sources
from .baselines.schedules import window_levels
from .budget import NOISE_CALLS, forecast, nodes_of, plan_for, run_calls
from .checks import check
from .config import Config
from .optimizers.gauss_newton import learn
from .optimizers.noise import noise_of
from .optimizers.state import State
from .progress import RunProgress
from .run_folder import Folder
from .run_identity import TRAINER, check_same, identity
from .run_tables import RunTables, TableStart, Window, table_name
from .source import Source
from .teacher.convergence import Convergence, converge, probes
from .teacher.pairs import VALIDATION_SEEDS, Pairs, ends, joined, known_pairs, make_pairs, of_one_size
from .teacher.solvers import Teacher, teacher_of

CHUNK = 64                  # teacher pairs made, then saved, at a time
PREVIEWED = 4               # images of a preview
SHARE_OF_CHECK = 0.15       # share of the budget that measuring the teacher may cost


class Stopped(KeyboardInterrupt):
    """The user stopped the run. It is saved, and the message says how to resume."""


class Run:
    """One training run in its folder: of the bundled model its configuration names, or of a source from outside.

    progress: whom it reports to; by default a terminal. world: the processes to use (parallel.World). Raises ValueError
    if the folder holds another run or the configuration cannot work.
    """

    def __init__(self, config: Config, folder, resume: bool = False, source: Source | None = None,
                 progress: RunProgress | None = None, world=None):
        self.config, self.folder, self.world = config, Path(folder), world
        self.progress = progress or RunProgress(quiet=world is not None and not world.first)
        self.facts: dict[str, dict] = {}            # settled once for the whole run: "teacher"
        self.images: dict[str, Tensor] = {}         # the teacher's results for whole images, by kind of pairs
        self.seconds_before = 0.0
        self.teacher: Teacher = None                # type: ignore[assignment]  # until `_settle_teacher`
        if not (source or world):                   # before gigabytes are opened for nothing
            check_same(self.folder, config, resume)
        device = world.device(config.device) if world else config.device
        self.source = source or sources.of(config, device, self.progress.say)
        if world:
            self.source = world.spread(self.source)
        check(config, self.source)
        self.nodes = nodes_of(config)
        self.node, self.own_cfg = self.nodes[0], self.source.cfg
        self.plan = [plan_for(node, self.source) for node in self.nodes][0]
        self.identity, self.programs = identity(config, self.source), [TRAINER]
        self.files = Folder(self.folder, config, resume, self.progress.say, world, self.identity)
        self.tables = RunTables(self.source, self.node.cfg)
        if resume:
            self._load()

    def _load(self) -> None:
        self.tables.states, saved = self.files.load_state()
        self.tables.starts = {name: TableStart(**start) for name, start in saved.get("starts", {}).items()}
        self.facts, self.seconds_before = saved.get("facts", {}), saved.get("seconds", 0.0)
        self.source.calls_before = saved.get("model_calls", 0)
        self.programs = saved.get("programs", self.programs)
        if (before := self.programs[-1]) != TRAINER:            # no two versions promise the same bits
            self.progress.say(f"WARNING: {before} began this run and {TRAINER} resumes it. The tables can differ from "
                              "those of one version; the preset names both")
            self.programs = [*self.programs, TRAINER]

    def train(self) -> Preset:
        """`carry_out` for a terminal: Ctrl-C becomes Stopped, whose message says how to resume."""
        try:
            return self.carry_out()
        except KeyboardInterrupt:
            raise Stopped(f"stopped and saved; resume with: s4s train --resume {self.folder}"
                          f"{self._best_so_far()}") from None

    def carry_out(self) -> Preset:
        """Make the pairs, learn every table, write the preset and return it.

        Exceptions of the model and on_progress, including a host's interruption, pass through after everything is saved
        and the best tables so far are written. A full disk is reported, and the run continues in memory.
        """
        self.source.on_model_calls, self.source.say = self._count, self.progress.say
        try:
            with self.files.lock():
                try:
                    return self._carry_out()
                except BaseException as error:
                    self._keep(error)
                    raise
        finally:
            self.source.on_model_calls, self.source.cfg = None, self.own_cfg

    def _keep(self, error: BaseException) -> None:
        """Save what was learned before the error, and say so."""
        self.source.on_model_calls = None
        self.save()
        with suppress(ValueError, OSError):             # no table yet, or no room
            self.files.save_preset(self.preset())
        if self.states and not isinstance(error, KeyboardInterrupt):
            self.progress.say(f"the run stopped and is saved in {self.folder}; it resumes when you start it again "
                              f"with the same settings (on the command line: s4s train --resume {self.folder})"
                              f"{self._best_so_far()}")

    def _carry_out(self) -> Preset:
        self.source.cfg = self.node.cfg
        self._settle_teacher()
        for node in self.nodes:
            self.node, self.source.cfg = node, node.cfg
            self.plan = plan_for(node, self.source, self.convergence.calls, self.convergence.spent)
            if len(self.nodes) > 1:
                after = "" if node.neighbour is None else f", from the tables learned at cfg {node.neighbour:g}"
                self.progress.say(f"cfg {node.cfg:g}{after}")
            for denoise in sorted(self.plan.windows, reverse=True):
                window = self._prepare(denoise)
                for calls in self.plan.calls:
                    self._learn_table(calls, window)
        self.progress.begin("saving")
        preset = self.preset()
        self.files.save_preset(preset)
        return preset

    def _settle_teacher(self) -> None:
        """Measure the teacher's error and the network's noise, and plan for as many teacher calls as that requires."""
        self.progress.begin("teacher")
        plan = self.plan
        self.progress.total = run_calls(self.nodes, self.source)
        if "teacher" not in self.facts:
            first = VALIDATION_SEEDS + plan.data.seed
            seeds = range(first, first + probes(plan.budget))
            before = self.source.model_calls
            checked = converge(self.source, plan.teacher.solver, plan.teacher.calls, max(plan.calls), seeds,
                               self._affords)
            noise = noise_of(self.source, range(plan.data.seed, plan.data.seed + 2))
            spent = self.source.model_calls - before
            self.facts["teacher"] = {**checked._asdict(), "spent": spent, "noise": noise}
        self.convergence = Convergence(*(self.facts["teacher"][name] for name in Convergence._fields))
        self.teacher = teacher_of(self.source, plan.teacher.solver, self.convergence.calls)
        self.progress.total = run_calls(self.nodes, self.source, self.convergence.calls, self.convergence.spent)
        self.progress.say(f"teacher {self.teacher.description}: off by RMSE {self.convergence.error:.2g}"
                          f"{self.convergence.doubt(self.source)}")

    def _affords(self, calls: int, spent: int) -> bool:
        """Whether the budget suffices for a teacher of so many calls, once measuring it has cost so much."""
        if spent > SHARE_OF_CHECK * len(self.plan.calls) * self.plan.budget:
            return False
        try:
            run_calls(self.nodes, self.source, calls, spent + NOISE_CALLS)
        except ValueError:
            return False
        return True

    def _prepare(self, denoise: float) -> Window:
        """The window with its pairs. One below the top starts on the teacher's results for whole images, noised."""
        self.progress.begin("teacher")
        top = None if denoise == 1 else float(window_levels(self.tables.curve, denoise, 1, self.source.flow)[0])
        table, mark = self.teacher.from_level(top), self.node.name("" if top is None else f"-from{top:.6g}")
        plan, first = self.plan, VALIDATION_SEEDS + self.plan.data.seed
        pairs: dict = {}
        for kind, seeds in (("train", range(plan.data.seed, plan.data.seed + plan.data.pairs)),
                            ("validation", range(first, first + plan.data.validation))):
            pairs[kind] = self._pairs(kind, mark, seeds, table, None if top is None else self.images[kind])
        shared = sum(map(len, pairs.values())) * table.calls
        if top is None:
            self.images = {kind: some.target for kind, some in pairs.items()}
            if self.node.neighbour is None:
                shared += self.convergence.spent + self.teacher.check_calls
        return Window(denoise, top, pairs["train"], pairs["validation"], shared)

    def _pairs(self, kind: str, mark: str, seeds: range, table, clean: Tensor | None) -> Pairs:
        """The pairs of these seeds, from the folder, or made by this table and saved, some after others.

        clean (n, ...): images that are noised to the table's first level; None: its starts are noise.
        """
        parts = []
        for i in range(0, len(seeds), CHUNK):
            some, images = seeds[i:i + CHUNK], None if clean is None else clean[i:i + CHUNK]
            file, maker = f"{kind}{mark}-{some.start}-{some.stop}", self.teacher.description
            if (target := self.files.load_targets(file, (len(some), *self.source.shape), maker)) is not None:
                parts.append(known_pairs(self.source, some, target.to(self.source.device), images))
                continue
            label = f"teacher, {kind} pairs {i + 1}-{i + len(some)} of {len(seeds)}"
            parts.append(make_pairs(self.source, some, table, label, not self.progress.bars, images))
            self.files.save_targets(file, parts[-1].target, maker)
            self.save()
        return joined(parts)

    def _learn_table(self, calls: int, window: Window) -> None:
        name, plan = self.node.name(table_name(calls, window.top)), self.plan
        self.progress.begin("learning", name)
        self._window = window
        if name not in self.states:
            self.tables.begin(name, calls, window, plan, self.node, self.facts["teacher"]["noise"])
        parameters, state = self.tables.parameters(name), self.states[name]
        to_go = f"; {max(0, plan.iterations - state.iteration)} iterations to go" if plan.iterations else ""
        self.progress.say(f"{name}: {calls} rows, {len(parameters.initial())} free numbers, from "
                          f"{self.tables.starts[name].schedule}{to_go}")

        def on_progress(state, loss):
            self.progress.note_iteration(state, loss, self.source.all_calls)
            self.save()
        with self.progress.bar(forecast(plan, self.source, calls)):
            learn(self.source, parameters, window.pairs, window.held_out, plan, state, on_progress)
        self.progress.say(self.tables.judge(name))
        self.save()

    def _count(self, images: int) -> None:
        self.progress.count(images, self.source, self.states.get(self.progress.table), self.preview)

    def preview(self) -> tuple:
        """(student, teacher): a few held-out images by the best table so far; these calls are not counted."""
        few = of_one_size(self._window.held_out, PREVIEWED)
        uncounted = replace(self.source, on_model_calls=None)
        both = ends(uncounted, self.tables.table(self.progress.table), few), few.target
        return tuple(self.source.images(states, few.extra) for states in both)

    @property
    def states(self) -> dict[str, State]:
        return self.tables.states

    @property
    def seconds(self) -> float:
        return self.seconds_before + self.progress.seconds

    def save(self) -> None:
        """Write state and log atomically. A failing disk is reported once, and the run continues."""
        self.files.save_state(self.states, {
            "facts": self.facts, "starts": self.tables.starts_record(), "model_calls": self.source.all_calls,
            "seconds": self.seconds, "programs": self.programs})

    def _best_so_far(self) -> str:
        return f"\nthe best table so far is in {self.preset_path}" if self.preset_path.exists() else ""

    @property
    def preset_path(self) -> Path:
        return self.files.preset_path

    def preset(self) -> Preset:
        """The best tables learned so far. Raises ValueError while there is none."""
        tables = {name: self.tables.table(name) for name in self._begun()}
        if not tables or self.teacher is None:      # a resumed run that was stopped before its teacher was settled
            raise ValueError("no table has been learned yet")
        return Preset(self.plan.name, tables, self.source.model, self._record(), licence="CC0-1.0",
                      source="trained with S4S")

    def _begun(self) -> dict[str, State]:
        """The states by name of the tables that have been measured at least once."""
        return {name: state for name, state in self.states.items() if state.curve}

    def _record(self) -> dict:
        """How its tables were made: teacher, settings, pairs, errors, price."""
        plan, begun = self.plan, self._begun()
        starts = {name: self.tables.starts[name] for name in begun}
        scales = {start.cfg for start in starts.values()}
        own = self.source.teacher           # a sampler with its levels: a race judges by it, too
        levels: dict = {"teacher_levels": [float(level) for level in own[1]]} if own else {}
        if (model := self.source.teacher_source) is not None:
            levels["taught_by"] = model.name
        return {"teacher": self.teacher.description, **levels, "teacher_error": self.facts["teacher"]["error"],
                "cfg": [min(scales), max(scales)], "resolution": self.source.size,
                "seed": plan.data.seed, "budget": self.config.budget, "pairs": plan.data.pairs,
                "iterations": {name: state.iteration for name, state in begun.items()},
                "held_out_rmse": {name: [state.curve[0][2], state.best_error] for name, state in begun.items()},
                "start": {name: start.schedule for name, start in starts.items()},
                "baseline": {name: ", ".join(start.baseline) for name, start in starts.items()},
                "nothing_gained": [name for name, start in starts.items() if not start.gained],
                "denoise": {name: start.denoise for name, start in starts.items()},
                "model_calls": self.source.all_calls, "seconds": round(self.seconds, 1),
                "trainer": ", then ".join(self.programs), "identity": self.identity, **self.source.about,
                **({"processes": self.world.size} if self.world else {})}
