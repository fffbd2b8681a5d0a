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
from ...training.benchmark.host_race import RaceProgress, RaceResult, TableResult, Terms, hold_race, table_lines
from ...training.config import Config
from ...training.estimate import duration
from ...training.lock import locked
from ...training.source import Source
from ...training.sources import take_teacher
from ..core import experts, preset_file
from ..core.lists import range_text
from ..core.preset_file import Model, Preset
from ..core.scores import size_record, size_text
from ..library import ENDING, Library, ModelFacts, file_name, save_scores, save_version, suits
from ..select.cfg import at_cfg
from ..select.dispatch import TWO_SAMPLERS
from ..select.match import same_base, turns_text
from .runs import check_places, check_writable, has_learned, readable, run_folder, run_key, unfinished

log = logging.getLogger("s4s")
SHOWN = 8                   # baselines named in a report
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
        """Tell the user what happened: words that stay."""

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


@dataclass
class Outcome:
    """The preset with its scores, the report, and the host's pictures."""

    preset: Preset
    report: str
    pictures: object = None


def train(host: Host, order: TrainingOrder) -> Outcome | None:
    """Learn, race and save a preset; None where the host ends an interrupted work quietly.

    Raises ValueError for settings that cannot work, before the first network call.
    """
    training = Training(host, order)
    _inside(host, training)
    return training.outcome


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
    outcome = None
    if write:
        check_writable(host.presets, preset.name)

    def work(source: Source) -> Outcome:
        nonlocal outcome
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
        outcome = Outcome(held.preset, "\n".join([head, *held.notes, *_results(held.raced), *kept]))
        for line in (head, *held.notes, *kept):
            host.say(line)
        outcome.pictures = host.draw(source, held)
        return outcome
    _inside(host, work)
    return outcome


class Training:
    """The life of one training: called with a source where the host samples, it learns, races, saves and draws."""

    def __init__(self, host: Host, order: TrainingOrder):
        self.host, self.order, self.config = host, order, order.config
        self.learned: Preset | None = None          # all tables, before their race
        self.outcome: Outcome | None = None
        check_places(host.presets, host.runs, self.config.name)

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
        other = f": another preset is called {held.preset.name}, and stays" * (saved.name != held.preset.name)
        self.outcome = Outcome(saved, _report(saved, held, f"saved as {path}{other}"))
        self.host.say(f"saved as {path}{other}")
        self.outcome.pictures = self.host.draw(source, held)
        return self.outcome

    def _race_budget(self, tables: int) -> int:
        return RACE_BUDGET * tables + 250 * self.order.race_seeds

    def race_price(self, cost: trainer.Estimate) -> str:
        """What the race after the training takes at most, for people."""
        return cost.then("then its race, at most",
                         self._race_budget(len(self.config.calls) * len(self.config.windows)))

    def check(self, source: Source) -> None:
        """Settle which run it is; no network call. Raises ValueError for a name or a teacher that cannot be used."""
        take_teacher(source, self.config)
        if self.order.teacher is not None:
            source.teacher = self.order.teacher(source)
        name, model = self.config.name, source.model
        there = self.host.presets / f"{file_name(name)}{ENDING}"
        other = readable(there)                             # a file nobody can use may go
        if other is not None and not _same_model(other, model):
            raise ValueError(f"{there} is a preset for another model ({other.model.family}): give this one another "
                             "name")
        key = run_key(self.config, model, [self.order.settings, source.weights])
        self.place, seed = run_folder(self.host.runs, name, key, self.config.data.seed, self.order.resume)
        self.config, self.run, self.file = self.config.replace(seed=seed), f"{key}-{seed}", self.place / there.name

    def _learn(self, source: Source) -> None:
        """Learn all tables, or take them as a run of the same settings left them."""
        source.conditioning = self.run              # settings are in it that the trainer knows nothing of
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
        with suppress(OSError):                     # on a full disk what was learned still goes on to its race
            finished.touch()
            shutil.rmtree(self.place / "pairs")     # hundreds of megabytes that nobody needs any more

    def _pass_on(self, text: str) -> None:
        """Pass on what the trainer says, without its hints for a terminal."""
        plain = text.removeprefix("WARNING: ")
        self.host.say(_TERMINAL.sub("", plain), plain != text)

    def _progress(self, now: trainer.Progress) -> None:
        parts = [f"{now.phase} {now.table}".strip(), f"{now.done:,} of {now.total:,} network calls"]
        parts += [f"so far {now.closer:.2f} times closer than the best baseline"] if math.isfinite(now.closer) else []
        self.host.show(now.done, now.total, ", ".join([*parts, *_left(now.seconds_left)]), now.preview)

    def _keep(self, error: BaseException) -> None:
        """Save what was learned before the error as an unfinished preset, and say so."""
        when, kept = " before anything was learned", ""
        try:
            preset = self.learned or (preset_file.load(self.file) if self.file.exists() else None)
            if preset is not None and has_learned(preset):
                there = save_version(unfinished(preset, self.run), self.host.presets)[1]
                when, kept = "", f". The best tables so far are saved as {there}, marked as unfinished"
            elif isinstance(error, ValueError):
                return                              # settings that were refused need no second sentence
        except (OSError, ValueError) as problem:
            when, kept = "", f". What was learned could not be saved as a preset ({problem})"
        self.host.say(f"stopped{when}; the same settings resume it{kept}", True)       # a node shows two lines at first


def _same_model(preset: Preset, model: Model) -> bool:
    """Whether a preset was learned on this model or these two, in any precision and with whatever LoRAs and patches."""
    learned, second = preset.experts or (preset,), model.hashes.get(experts.LOW_NOISE)
    ours = [model.hashes, second] if second else [model.hashes]
    same = len(learned) == len(ours) and all(map(same_base, learned, ours))
    return preset.model.family == model.family and (same or preset.model.hashes == model.hashes)


def _report(preset: Preset, held: RaceResult, saved: str) -> str:
    """What was made, from what, at which cost, and how it did."""
    record = preset.training
    lines = [f"{preset.name} ({preset.short_hash}) for {preset.model.family}, {preset.model.prediction} prediction",
             saved,
             f"training: {record['model_calls']:,} network calls, {record['seconds']:.0f} s, teacher "
             f"{record['teacher']}, {record['conditionings']} conditioning"
             f"{'s' * (record['conditionings'] > 1)}, cfg {range_text(record['cfg'])}, "
             f"latent {size_text(record['latent'])}", f"race: {held.summary}"]
    if preset.experts:
        lines.insert(3, f"two models, which change at {turns_text(preset)}; cfg "
                        f"{preset.experts[experts.LOW].training['cfg']:g} from there. To use it, {TWO_SAMPLERS}")
    if kept := record.get("nothing_gained"):
        lines.append(f"Nothing was gained at {', '.join(kept)}: the best baseline is kept there.")
    return "\n".join([*lines, *_results(held.raced)])


def _inside(host: Host, work: Callable) -> None:
    """Let the host do the work, and look at its presets again, however it ended."""
    try:
        host.inside(work)
    finally:
        _quietly(host.changed)


def _race_progress(host: Host) -> RaceProgress:
    """A race's news for a host, on one bar that never goes back, though the forecast may grow."""
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
    return RaceProgress(status, count, lambda name, raced: host.say("\n".join(_results({name: raced})[1:])))


def _left(seconds: float) -> list[str]:
    return [f"about {duration(seconds)} left"] if math.isfinite(seconds) else []


def _results(raced: dict[str, TableResult]) -> list[str]:
    return [line for name, one in raced.items() for line in ("", f"{name}: {one.verdict}", *table_lines(one, SHOWN))]


def _quietly(work: Callable, *given) -> None:
    """work(*given), in the way of nothing: what it raises is logged."""
    try:
        work(*given)
    except Exception:
        log.exception("S4S: tidying up after a stop failed")
