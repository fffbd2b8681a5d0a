"""A training inside the host's own txt2img, and the forecast of one."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import shutil
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path

from modules import paths

from ....training import distil as trainer
from ....training.benchmark.host_race import Terms, hold
from ....training.config import Config
from ....training.modes import tries_gradients
from ....training.source import Source
from ...core import preset_file
from ...core.preset_file import Model, Preset
from ...core.table import Table
from ...library import file_name, save_version
from . import rows, shelf
from .inside import Scene, Show, inside
from .race import told


@dataclass(frozen=True)
class Wish(Scene):
    """What to train for."""

    name: str = "my-preset"
    calls: tuple = (6,)
    windows: tuple = (1.0,)
    budget: int = trainer.HOST_BUDGET
    mode: str = "auto"
    race_seeds: int = 8

    @property
    def config(self) -> Config:
        """The trainer's page of it. Raises ValueError for what cannot work."""
        return Config(name=self.name, calls=self.calls, windows=self.windows, budget=self.budget,
                      mode=self.mode)


@dataclass
class Outcome:
    """What came of it: the preset if it was finished, and pictures made with it."""

    preset: Preset | None = None
    images: list = field(default_factory=list)


def forecast(wish: Wish, show: Show) -> None:
    """Say what a training would cost, from two timed network calls. Raises ValueError as `train` does."""
    config = wish.config

    def work(source: Source, facts) -> None:
        check_free(wish.name, source.model)
        with the_right_way(source, config):
            show.say(trainer.estimate(source, config).words)
    inside(wish, max(config.calls), work)


def train(wish: Wish, show: Show) -> Outcome:
    """Learn, race and save a preset for the loaded checkpoint.

    The host's interrupt ends it: the run is kept, and the best tables so far are saved. The same wish again goes on.
    Raises ValueError in words for a wish that cannot work.
    """
    outcome = Outcome()
    images = inside(wish, max(wish.config.calls), Work(wish, outcome, show))
    if outcome.preset is not None:          # else the host's pictures are of nothing
        outcome.images = images
    rows.register()                         # the new preset is a schedule type at once
    return outcome


class Work:
    """What our sampler's place in the host does while a preset is trained."""

    def __init__(self, wish: Wish, outcome: Outcome, show: Show):
        self.wish, self.outcome, self.show = wish, outcome, show

    def __call__(self, source: Source, facts) -> Table:
        """Train, and return the table of the most calls, to be seen."""
        place, key = run_folder(self.wish, source.model)
        check_free(self.wish.name, source.model)
        try:
            made = self._learned(source, place, key)
        except BaseException:               # the host's interrupt too: it passes on
            self.show.say(keep_partial(self.wish.name, place, key))
            raise
        self.outcome.preset = self._judged(source, made)
        return made.table(max(made.counts))

    def _learned(self, source: Source, place: Path, key: str) -> Preset:
        """As a finished run of the same wish left it, else learned now."""
        file = place / f"{self.wish.name}.safetensors"
        if (place / "finished").exists():
            self.show.say(f"this was trained before: taken from {place}; delete that folder to train again")
            return preset_file.load(file)
        config = self.wish.config
        with the_right_way(source, config):
            found = trainer.estimate(source, config)
            self.show.say(found.words)
            made = trainer.distil(source, config, place, resume=True, on_progress=self._progress, say=self.show.say,
                                  estimated=found)
        made = replace(made, training={
            **made.training, "run": key, "conditionings": len(self.wish.prompts), "latent": list(source.shape),
            "created": datetime.date.today().isoformat()})
        preset_file.save(made, file)
        (place / "finished").touch()
        shutil.rmtree(place / "pairs", ignore_errors=True)      # hundreds of megabytes that nobody needs any more
        return made

    def _judged(self, source: Source, made: Preset) -> Preset:
        """The preset with its race on unseen seeds, saved where the host finds it."""
        held = hold(source, made, Terms(tuple(made.tables), range(self.wish.race_seeds)), told(self.show))
        saved, path = save_version(held.preset, shelf.folder())
        beside = f": another preset is called {held.preset.name}, and stays" if saved.name != held.preset.name else ""
        self.show.say(f"saved as {path}{beside}")
        return saved

    def _progress(self, now: trainer.Progress) -> None:
        parts = [f"{now.phase} {now.table}".strip(), f"{now.done:,} of {now.total:,} network calls"]
        parts += [f"RMSE to the teacher {now.held_out:.4g}"] if isfinite(now.held_out) else []
        parts += [f"best classical {now.classical:.4g}"] if isfinite(now.classical) else []
        left = now.seconds_left
        if isfinite(left):
            parts.append(f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left")
        self.show.count(now.done, now.total, ", ".join(parts))
        self.show.preview(now.preview)


def the_right_way(source: Source, config: Config):
    """A context in which calls carry gradients, where they are asked for or worth trying; the trainer checks them."""
    return source.network.through() if tries_gradients(config) else contextlib.nullcontext()


def run_folder(wish: Wish, model: Model) -> tuple[Path, str]:
    """(folder, key) of a run: another prompt, size, setting or checkpoint is another run."""
    key = hashlib.sha256(repr((asdict(replace(wish, race_seeds=0)), asdict(model))).encode()).hexdigest()[:10]
    return Path(paths.data_path) / "s4s_runs" / f"{file_name(wish.name)}-{key}", key


def check_free(name: str, model: Model) -> None:
    """Raise ValueError if the presets folder has this name for another model: it would be overwritten."""
    there = shelf.folder() / f"{file_name(name)}.safetensors"
    found = readable(there)                 # a file nobody can use may go
    if found is not None and found.model.hashes != model.hashes:
        raise ValueError(f"{there} is a preset for another model: give this one another name")


def keep_partial(name: str, place: Path, key: str) -> str:
    """Copy a stopped run's best tables into the presets folder, beside any other of the name; says what it did."""
    made = place / f"{name}.safetensors"
    if not made.exists():
        return "stopped before there was a table; the same again goes on"
    try:
        preset = preset_file.load(made)
        there = save_version(replace(preset, training={**preset.training, "run": key}), shelf.folder())[1]
    except (OSError, ValueError) as error:  # what stopped the training must pass on
        return f"stopped; the best tables so far stay in {made} ({error}); the same again goes on"
    return f"stopped; the best tables so far are saved as {there}, the same again goes on"


def readable(path: Path) -> Preset | None:
    """The preset in a file, or None where there is none."""
    try:
        return preset_file.load(path) if path.exists() else None
    except preset_file.PresetError:
        return None
