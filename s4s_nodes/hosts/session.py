"""Training and racing inside a host, once for all of them.

    check -> estimate -> learn -> race -> save -> report

What can be refused is refused before the first network call. Whatever stops the work passes on unchanged, a host's own
interrupt too. What a training has learned by then is saved as an unfinished preset, and the same settings resume it.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Protocol

from torch import Tensor

from ...training import distil as trainer
from ...training.benchmark.host_race import Held, Terms, Told, hold, table_lines
from ...training.config import Config
from ...training.modes import tries_gradients
from ...training.source import Source
from ..core import preset_file
from ..core.files import check_writable
from ..core.preset_file import Model, Preset, PresetError
from ..library import ENDING, Library, ModelFacts, file_name, save_scores, save_version, suits

log = logging.getLogger("s4s")
SHOWN = 8                   # classical pairs named in a report
_SEPARATORS = re.compile(r"[\s,;，；、]+")
_TERMINAL = re.compile(r" \(on the command line: [^)]*\)")


class Host(Protocol):
    """What a session needs of a host. Any method may raise the host's interrupt.

    library: its presets; presets: the folder of the user's own; runs: where the folders of trainings lie.
    """

    library: Library
    presets: Path
    runs: Path

    def inside(self, work: Callable[[Source], object], gradients: Callable[[Source], bool]) -> None:
        """Run work(source) where the host samples, with a network that carries gradients if gradients(source)."""

    def say(self, text: str, warning: bool = False) -> None:
        """Tell the user what happened: words that stay."""

    def show(self, done: int, total: int, line: str, preview: Callable | None = None) -> None:
        """Show how far it is: network calls, a line that the next one replaces, preview() -> (student, teacher)."""

    def draw(self, source: Source, held: Held) -> object:
        """The pictures of a race, as the host shows them."""

    def changed(self) -> None:
        """Look at the presets again: one is new or has new scores."""


@dataclass(frozen=True)
class Order:
    """What to train. settings: all that a run depends on beside config and model, such as prompts and size.

    teacher(source) -> Source.teacher; None: the trainer's own.
    """

    config: Config
    settings: object = ()
    conditionings: int = 1
    teacher: Callable | None = None
    race_seeds: int = 8
    resume: bool = True


@dataclass
class Outcome:
    """The preset with its scores, its report, {table: scores} of the race, and the host's pictures."""

    preset: Preset
    report: str
    scores: dict = field(default_factory=dict)
    pictures: object = None


# --- what a host calls ----------------------------------------------------------------------------------------------

def train(host: Host, order: Order) -> Outcome | None:
    """Learn, race and save a preset; None where the host ends an interrupted work quietly.

    Raises ValueError for settings that cannot work, before the first network call.
    """
    training = Training(host, order)
    training.check_folders()
    try:
        host.inside(training, partial(tries_gradients, config=order.config))
    finally:
        if training.saved:
            _quietly(host.changed)
    return training.outcome


def forecast(host: Host, order: Order) -> None:
    """Say what a training would cost, from a few timed network calls. Raises ValueError as `train` does."""
    training = Training(host, order)
    training.check_folders()

    def work(source: Source) -> None:
        training.check(source)
        host.say(trainer.estimate(source, order.config).words)
    host.inside(work, partial(tries_gradients, config=order.config))


def race(host: Host, preset: Preset, terms: Terms, write: bool = False) -> Outcome | None:
    """Race a preset against the classical samplers, and write its scores where asked to; None as in `train`.

    Raises ValueError for a preset of another kind of model, or too small a budget, before the first network call.
    """
    made: list[Outcome] = []
    if write:
        _check_writable(host.presets, preset.name)

    def work(source: Source) -> Outcome:
        if reason := suits(preset, ModelFacts.of(source.model)):
            raise ValueError(f"preset {preset.name!r} cannot be raced on this model: {reason}")
        try:
            held = hold(source, preset, terms, _told(host))
            report = [f"{preset.name} ({preset.short_hash}) on this model ({source.model.family}), {held.words}",
                      *_results(held)]
            if write and held.preset is not preset:         # the same: none of its own tables was raced
                report.append(save_scores(host.library, held.preset, host.presets))
        except BaseException as error:
            if not isinstance(error, ValueError):
                _quietly(host.say, "stopped: the race is not finished, and nothing was written", True)
            raise
        host.say(report[0])
        if write and held.preset is not preset:
            host.say(report[-1])
        made.append(Outcome(held.preset, "\n".join(report), held.scores))
        made[0].pictures = host.draw(source, held)
        return made[0]
    try:
        host.inside(work, lambda source: False)
    finally:
        if made and write:
            _quietly(host.changed)
    return made[0] if made else None


def numbers(text, kind: type, what: str, wanted: bool = True) -> tuple:
    """The numbers of a list such as "4, 5; 6". what: the list's name; wanted: whether it may not be empty.

    Raises ValueError with what to write instead.
    """
    example = "4,5,6" if kind is int else "1,0.75,0.5"
    parts = [part for part in _SEPARATORS.split(str(text)) if part]
    if wanted and not parts:
        raise ValueError(f"{what} is empty: write one number or several, such as {example}")
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        whole = "whole " if kind is int else ""
        raise ValueError(f"{what}: {text!r} is not a list of {whole}numbers such as {example}") from None


# --- one training ---------------------------------------------------------------------------------------------------

class Training:
    """The life of one training: called with a source where the host samples, it learns, races, saves and draws."""

    def __init__(self, host: Host, order: Order):
        self.host, self.order, self.config = host, order, order.config
        self.place, self.run, self.made, self.saved, self.outcome = Path(), "", None, False, None

    def __call__(self, source: Source) -> Outcome:
        self.check(source)
        try:
            self._open()
            self.made = self._recorded(self._learned(source), source)
            terms = Terms(tuple(self.made.tables), range(self.order.race_seeds),
                          teacher_calls=self.config.teacher_calls)
            held = hold(source, self.made, terms, _told(self.host))
            saved, path = save_version(held.preset, self.host.presets)
            self.saved = True
        except BaseException as error:
            if not self.saved:
                _quietly(self._keep, error)
            raise
        with contextlib.suppress(OSError):
            (self.place / "saved").touch()
        self.outcome = Outcome(saved, report(saved, held, path), held.scores)
        beside = f": another preset is called {self.config.name}, and stays" * (saved.name != self.config.name)
        self.host.say(f"saved as {path}{beside}")
        self.outcome.pictures = self.host.draw(source, replace(held, preset=saved))
        return self.outcome

    # --- checking ---------------------------------------------------------------------------------------------------

    def check_folders(self) -> None:
        """Raise ValueError where the preset or the run could not be written in the end."""
        _check_writable(self.host.presets, self.config.name)
        _check_writable(self.host.runs, self.config.name)

    def check(self, source: Source) -> None:
        """Settle which run it is; no network call. Raises ValueError for a name or a teacher that cannot be used."""
        if self.order.teacher is not None:
            source.teacher = self.order.teacher(source)
        name, there = self.config.name, self.host.presets / f"{file_name(self.config.name)}{ENDING}"
        other = _readable(there)                            # a file nobody can use may go
        if other is not None and (other.model.family, other.model.hashes) != (source.model.family,
                                                                              source.model.hashes):
            raise ValueError(f"{there} is a preset for another model ({other.model.family}): give this one another "
                             "name")
        key = run_key(self.order, source.model)
        self.place = run_folder(self.host.runs, name, key, self.config.seed, self.order.resume)
        self.config = replace(self.config, seed=int(self.place.name.rpartition("-")[2]))
        self.run = f"{key}-{self.config.seed}"

    @property
    def file(self) -> Path:
        """The tables that the trainer keeps in the run's folder."""
        return self.place / f"{self.config.name}{ENDING}"

    # --- learning ---------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        if not self.order.resume and self.place.exists():
            shutil.rmtree(self.place)
        if self.config.seed != self.order.config.seed:
            self.host.say(f"resuming the unfinished training of these settings, with its seed {self.config.seed}")

    def _learned(self, source: Source) -> Preset:
        """The preset as a finished run of the same settings left it, else learned now."""
        finished = self.place / "finished"
        if finished.exists() and (before := _readable(self.file)) is not None:
            self.host.say(f"this was trained before with the same settings: taken from {self.place}. Delete that "
                          "folder to train again")
            return before
        found = trainer.estimate(source, self.config)
        self.host.say(found.words)
        made = trainer.distil(source, self.config, self.place, resume=True, on_progress=self._progress,
                              say=self._heard, estimated=found)
        try:
            finished.touch()
            shutil.rmtree(self.place / "pairs")             # hundreds of megabytes that nobody needs any more
        except OSError as error:                            # what was learned goes on to its race
            log.info("S4S could not tidy up %s: %s", self.place, error)
        return made

    def _recorded(self, made: Preset, source: Source) -> Preset:
        return replace(made, training={**made.training, "run": self.run, "conditionings": self.order.conditionings,
                                       "latent": list(source.shape), "created": datetime.date.today().isoformat()})

    def _heard(self, text: str) -> None:
        """Pass on what the trainer says, without its hints for a terminal."""
        plain = text.removeprefix("WARNING: ")
        self.host.say(_TERMINAL.sub("", plain), plain != text)

    def _progress(self, now: trainer.Progress) -> None:
        parts = [f"{now.phase} {now.table}".strip(), f"{now.done:,} of {now.total:,} network calls"]
        parts += [f"RMSE to the teacher {now.held_out:.4g}"] if isfinite(now.held_out) else []
        parts += [f"best classical {now.classical:.4g}"] if isfinite(now.classical) else []
        if isfinite(left := now.seconds_left):
            parts.append(f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left")
        self.host.show(now.done, now.total, ", ".join(parts), now.preview)

    # --- stopping ---------------------------------------------------------------------------------------------------

    def _keep(self, error: BaseException) -> None:
        """Save what was learned as an unfinished preset, and say so."""
        why, made = "", self.made
        try:
            made = made or (preset_file.load(self.file) if self.file.exists() else None)
            if made is not None and has_learned(made):
                there = save_version(unfinished(made, self.run), self.host.presets)[1]
                self.saved = True
                return self.host.say(f"stopped; the best tables so far are saved as {there}, marked as unfinished. "
                                     "The same settings resume the training", True)
        except (OSError, ValueError) as problem:
            why = f"; what was learned could not be saved as a preset ({problem})"
        if why or not isinstance(error, ValueError):        # settings that were refused need no second sentence
            nothing = "" if why else " before anything was learned"
            self.host.say(f"stopped{nothing}{why}. The same settings resume the training", True)


def has_learned(preset: Preset) -> bool:
    """Whether any table of a run is better than the classical solver it started from."""
    found = preset.training.get("held_out_rmse", {}).values()
    return any(best < start for start, best in found)


def unfinished(preset: Preset, run: str) -> Preset:
    """The preset of a run that was stopped: nothing takes it by itself, and the finished one replaces it."""
    record = {name: value for name, value in preset.training.items() if name != "created"}
    return replace(preset, recommended=False, training={**record, "run": run, "unfinished": True})


def report(preset: Preset, held: Held, path: Path) -> str:
    """What was made, from what, at which cost, and how it did."""
    made = preset.training
    beside = f": another preset is called {held.preset.name}, and stays" * (preset.name != held.preset.name)
    lines = [f"{preset.name} ({preset.short_hash}) for {preset.model.family}, {preset.model.prediction} prediction",
             f"saved as {path}{beside}",
             f"training: {made['model_calls']:,} network calls, {made['seconds']:.0f} s, {made['mode']} mode, teacher "
             f"{made['teacher']}, {made['conditionings']} conditioning{'s' * (made['conditionings'] > 1)}, cfg "
             f"{made['cfg'][0]:g}, latent {' x '.join(map(str, made['latent']))}", f"race: {held.words}"]
    return "\n".join([*lines, *_results(held)])


# --- runs -----------------------------------------------------------------------------------------------------------

def run_key(order: Order, model: Model) -> str:
    """10 digits that name all that a run depends on, but for its seed."""
    seen = hashlib.sha256()
    _digest(seen, [asdict(replace(order.config, seed=0)), asdict(model), order.settings])
    return seen.hexdigest()[:10]


def run_folder(runs: Path, name: str, key: str, seed: int, resume: bool = True) -> Path:
    """NAME-KEY-SEED, or the newest unfinished run of another seed: its user may never have chosen one."""
    start, folders = f"{file_name(name)}-{key}-", runs.iterdir() if runs.is_dir() else ()
    own = runs / f"{start}{seed}"
    stopped = [folder for folder in folders if folder.name.startswith(start) and (folder / "config.json").exists()
               and not (folder / "saved").exists()]
    if own.exists() or not resume or not stopped:
        return own
    return max(stopped, key=lambda folder: (folder / "config.json").stat().st_mtime)


def _digest(into, content) -> None:
    """Feed tensors, numbers, texts and their containers to a hash; other objects by their kind."""
    if isinstance(content, Tensor):
        into.update(content.detach().float().cpu().contiguous().numpy().tobytes())
    elif isinstance(content, dict):
        for key in content:
            _digest(into, (str(key), content[key]))
    elif isinstance(content, (list, tuple)):
        into.update(b"[")
        for item in content:
            _digest(into, item)
    else:
        plain = content is None or isinstance(content, (str, int, float, bool))
        into.update((repr(content) if plain else type(content).__name__).encode() + b";")


# --- shared ---------------------------------------------------------------------------------------------------------

def _told(host: Host) -> Told:
    """A race's news for a host."""
    place = [""]

    def status(words: str) -> None:
        place[0] = words
        host.show(0, 1, words)

    def count(done: int, total: int) -> None:
        host.show(done, max(done, total), f"{place[0]}: {done:,} of about {max(done, total):,} network calls")
    return Told(status, count, lambda name, raced: host.say("\n".join(_result(name, raced))))


def _result(name: str, raced) -> list[str]:
    return [f"{name}: {raced.verdict}", *table_lines(raced, SHOWN)]


def _results(held: Held) -> list[str]:
    return [line for name, raced in held.raced.items() for line in ("", *_result(name, raced))]


def _readable(path: Path) -> Preset | None:
    """The preset in a file, or None where there is none."""
    try:
        return preset_file.load(path) if path.exists() else None
    except (PresetError, OSError):
        return None


def _check_writable(folder: Path, name: str) -> None:
    try:
        check_writable(Path(folder) / f"{file_name(name)}{ENDING}")
    except OSError as error:
        raise ValueError(f"{name!r} cannot be saved in {folder} ({error.strerror or error}). Make room there or allow "
                         "writing, or choose another name") from None


def _quietly(work: Callable, *given) -> None:
    """work(*given), in the way of nothing: what it raises is logged."""
    try:
        work(*given)
    except Exception:
        log.exception("S4S: tidying up after a stop failed")
