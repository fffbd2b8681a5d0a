"""Training and racing inside a host, once for all of them.

    check -> estimate -> learn -> race -> save -> report

What can be refused is refused before the first network call. Whatever stops the work passes on unchanged, a host's own
interrupt too. What a training has learned by then is saved as an unfinished preset, and the same settings resume it.
"""

import datetime
import logging
import math
import re
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ...training import distil as trainer
from ...training.benchmark.host_race import RaceProgress, RaceResult, Terms, hold_race
from ...training.config import Config
from ...training.estimate import duration
from ...training.lock import locked
from ...training.source import Source
from ...training.sources import take_teacher
from ..core import experts, preset_file
from ..core.preset_file import Model, Preset
from ..core.scores import compared, size_record
from ..core.sketch import same_network
from ..library import Library, ModelFacts, file_in, readable, save_scores, save_version, suits
from ..select.cfg import at_cfg
from . import runs

log = logging.getLogger("s4s")
RACE_BUDGET = 3_000         # network calls of a training's race for each table, besides its teacher's
_TERMINAL = re.compile(r" \(on the command line: [^)]*\)")


class Host(Protocol):
    """What a session needs of a host. Any method may raise the host's interrupt.

    kind: its name; library: its presets; presets: the folder of the user's own; runs: where the folders of trainings
    lie.
    """

    kind: str
    library: Library
    presets: Path
    runs: Path

    def inside(self, work: Callable[[Source], object]) -> None:
        """Run work(source) where the host samples."""

    def say(self, text: str, warning: bool = False) -> None:
        """Tell the user what happened, in a text that stays."""

    def show(self, done: int, total: int, line: str, preview: Callable | None = None) -> None:
        """Show how far it is: network calls, a line that the next one replaces, preview() -> (student, teacher)."""

    def draw(self, source: Source, held: RaceResult) -> object:
        """The pictures of a race, as the host shows them."""

    def changed(self) -> None:
        """Look at the presets again: one may be new or have new scores."""


@dataclass(frozen=True)
class TrainingOrder:
    """What to train. settings: all that a run depends on beside config and model, such as prompts and size.

    teacher(source) -> Source.teacher; None: the one that config names, or the trainer's own.
    """

    config: Config
    settings: object = ()
    conditionings: int = 1
    teacher: Callable | None = None
    race_seeds: int = 8
    resume: bool = True


@dataclass(frozen=True)
class Outcome:
    """The preset with its scores, the report, and the host's pictures."""

    preset: Preset
    report: str
    pictures: object


def train(host: Host, order: TrainingOrder) -> Outcome | None:
    """Learn, race and save a preset; None if the host ends an interrupted work quietly.

    Raises ValueError for settings that cannot work, before the first network call.
    """
    return _inside(host, Training(host, order))


def forecast(host: Host, order: TrainingOrder) -> None:
    """Say what a training would cost, from a few timed network calls. Raises ValueError as `train` does."""
    training = Training(host, order)

    def work(source: Source) -> None:
        training.check(source)
        cost = trainer.estimate(source, order.config)
        host.say("\n".join(filter(None, [cost.summary, training.race_price(cost), cost.others])))
    host.inside(work)


def race(host: Host, preset: Preset, terms: Terms, write: bool = False) -> Outcome | None:
    """Race a preset against the classical samplers, and write its scores where asked to; None as in `train`.

    Raises ValueError for a preset of another kind of model, or too small a budget, before the first network call.
    """
    if write:
        runs.check_places(preset.name, host.presets)

    def work(source: Source) -> Outcome:
        if reason := suits(preset, ModelFacts.of(source.model)):
            raise ValueError(f"preset {preset.name!r} cannot be raced on this model: {reason}")
        if preset.boundary != source.boundary:
            raise ValueError(f"preset {preset.name!r} changes models at {preset.boundary}, this race at "
                             f"{source.boundary}: connect the models and the boundary it was learned with")
        try:
            held = hold_race(source, preset, replace(terms, where=host.kind), _race_progress(host))
            kept = [save_scores(host.library, held.preset, host.presets)] if write else []
        except BaseException as error:
            if not isinstance(error, ValueError):
                _quietly(host.say, "stopped: the race is not finished, and nothing was written", True)
            raise
        head = f"{preset.name} ({preset.short_hash}) on this model ({source.model.family}), {held.summary}"
        for line in (head, *held.notes, *kept):
            host.say(line)
        report = "\n".join([head, *held.notes, *runs.result_lines(held.raced), *kept])
        return Outcome(held.preset, report, host.draw(source, held))
    return _inside(host, work)


class Training:
    """One training: called with a source where the host samples, it learns, races, saves and draws."""

    def __init__(self, host: Host, order: TrainingOrder):
        self.host, self.order, self.config = host, order, order.config
        self.learned: Preset | None = None          # all tables, before their race
        runs.check_places(self.config.name, host.presets, host.runs)

    def __call__(self, source: Source) -> Outcome:
        self.check(source)
        try:
            self._learn(source)
            scales = self.config.cfg if len(self.config.cfg) > 1 else (source.cfg,)
            source = replace(source, cfg=min(scales, key=lambda cfg: abs(cfg - source.cfg)))    # a table's own
            budget = self._race_budget(len(at_cfg(self.learned, source.cfg)[0].tables))
            terms = Terms(tuple(self.learned.tables), range(self.order.race_seeds), budget, self.config.teacher.calls,
                          where=self.host.kind)
            held = hold_race(source, self.learned, terms, _race_progress(self.host))
            saved, path = save_version(held.preset, self.host.presets)
        except BaseException as error:
            _quietly(self._keep, error)
            raise
        with suppress(OSError):
            (self.place / "saved").touch()
        where = f"saved as {path}"
        if saved.name != held.preset.name:
            where += f", because another preset is already called {held.preset.name}"
        self.host.say(where)
        return Outcome(saved, runs.training_report(saved, held, where), self.host.draw(source, held))

    def _race_budget(self, tables: int) -> int:
        return RACE_BUDGET * tables + 250 * self.order.race_seeds

    def race_price(self, cost: trainer.Estimate) -> str:
        """What the race after the training takes at most, for people."""
        return cost.then("then its race, at most",
                         self._race_budget(len(self.config.calls) * len(self.config.windows)))

    def check(self, source: Source) -> None:
        """Find which run it is; no network call. Raises ValueError for a name or a teacher that cannot be used."""
        take_teacher(source, self.config)
        if self.order.teacher is not None:
            source.teacher = self.order.teacher(source)
        name, model = self.config.name, source.model
        there = file_in(self.host.presets, name)
        other = readable(there)                             # a file that nobody can use may be replaced
        if other is not None and not _same_model(other, model):
            raise ValueError(f"{there} is a preset for another model ({other.model.family}): give this one another "
                             "name")
        weights = [each.weights for each in (source, source.teacher_source) if each is not None]
        key = runs.run_key(self.config, model, [self.order.settings, *weights])
        self.place, seed = runs.run_folder(self.host.runs, name, key, self.config.data.seed, self.order.resume)
        self.config, self.run, self.file = self.config.replace(seed=seed), f"{key}-{seed}", self.place / there.name

    def _learn(self, source: Source) -> None:
        """Learn all tables, or take them as a run of the same settings left them."""
        source.conditioning = self.run              # it covers settings that the trainer does not know
        if not self.order.resume and self.place.exists():
            with locked(self.place, self._pass_on):     # not while another training runs there
                pass
            shutil.rmtree(self.place)
        finished = self.place / "finished"
        preset = readable(self.file) if finished.exists() else None
        if preset is not None and preset.training.get("identity") == trainer.identity(source, self.config):
            self.host.say(f"this was trained before with the same settings: taken from {self.place}. Delete that "
                          "folder to train again")
        else:
            if self.config.data.seed != self.order.config.data.seed:
                self.host.say("resuming the unfinished training of these settings, with its seed "
                              f"{self.config.data.seed}")
            cost = trainer.estimate(source, self.config)
            self.host.say(f"{cost.summary}\n{self.race_price(cost)}")
            preset = trainer.distil(source, self.config, self.place, resume=True, on_progress=self._progress,
                                    say=self._pass_on)
        self.learned = replace(preset, training={
            **preset.training, "run": self.run, "conditionings": self.order.conditionings,
            "latent": size_record(source.shapes), "created": datetime.date.today().isoformat()})
        with suppress(OSError):                     # on a full disk the race still follows
            finished.touch()
            shutil.rmtree(self.place / "pairs")     # hundreds of megabytes that are no longer needed

    def _pass_on(self, text: str) -> None:
        """Pass on what the trainer says, without its hints for a terminal."""
        plain = text.removeprefix("WARNING: ")
        self.host.say(_TERMINAL.sub("", plain), plain != text)

    def _progress(self, now: trainer.Progress) -> None:
        parts = [f"{now.phase} {now.table}".strip(), f"{now.done:,} of {now.total:,} network calls"]
        if math.isfinite(now.closer):
            times, side = compared(now.closer)
            parts.append(f"so far {times} times {side} the teacher than the best baseline")
        self.host.show(now.done, now.total, ", ".join([*parts, *_left(now.seconds_left)]), now.preview)

    def _keep(self, error: BaseException) -> None:
        """Save what was learned before the error as an unfinished preset, and say so."""
        when, kept = " before anything was learned", ""
        try:
            preset = self.learned or (preset_file.load(self.file) if self.file.exists() else None)
            errors = {} if preset is None else preset.training.get("held_out_rmse", {})
            if preset is not None and any(best < start for start, best in errors.values()):     # than where it started
                there = save_version(runs.unfinished(preset, self.run), self.host.presets)[1]
                when, kept = "", f". The best tables so far are saved as {there}, marked as unfinished"
            elif isinstance(error, ValueError):
                return                              # settings that were refused need no second sentence
        except (OSError, ValueError) as problem:
            when, kept = "", f". What was learned could not be saved as a preset ({problem})"
        self.host.say(f"stopped{when}; the same settings resume it{kept}", True)       # a node shows two lines at first


def _same_model(preset: Preset, model: Model) -> bool:
    """Whether a preset was learned on this model or these two, in any precision and with whatever LoRAs and patches."""
    learned, second = [each.model.hashes for each in preset.experts or (preset,)], model.hashes.get(experts.LOW_NOISE)
    ours = [model.hashes, second] if second else [model.hashes]
    same = len(learned) == len(ours) and all(map(same_network, learned, ours))
    return preset.model.family == model.family and (same or preset.model.hashes == model.hashes)


def _inside(host: Host, work: Callable[[Source], Outcome]) -> Outcome | None:
    """Let the host do the work, then reload its presets, however it ended."""
    outcomes: list[Outcome] = []
    try:
        host.inside(lambda source: outcomes.append(work(source)))
    finally:
        _quietly(host.changed)
    return next(iter(outcomes), None)


def _race_progress(host: Host) -> RaceProgress:
    """A race's progress for a host, on one bar that never goes back even if the forecast grows."""
    place, began, shown = "", time.monotonic(), (0, 1)

    def status(line: str) -> None:
        nonlocal place
        place = line
        host.show(*shown, line)

    def count(done: int, total: int) -> None:
        nonlocal shown
        total = max(done, total)
        left = (time.monotonic() - began) * (total - done) / done if done else math.nan
        part = [f"{place}: {done:,} of about {total:,} network calls", *_left(left)]
        before, of = shown
        shown = max(done, -(-before * total // of)), total
        host.show(*shown, ", ".join(part))
    return RaceProgress(status, count, lambda name, raced: host.say("\n".join(runs.result_lines({name: raced})[1:])))


def _left(seconds: float) -> list[str]:
    return [f"about {duration(seconds)} left"] if math.isfinite(seconds) else []


def _quietly(work: Callable, *given) -> None:
    """Run work(*given) and log what it raises."""
    try:
        work(*given)
    except Exception:
        log.exception("S4S: tidying up after a stop failed")
