"""The tab's trainings and races, to the session: the host's txt2img of a scene, the tab's report, its folders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from modules import paths

from ....training.benchmark.host_race import Held, Terms, sheet_rows
from ....training.config import Config
from ....training.distil import HOST_BUDGET
from ....training.source import Source
from ...core.table import Table
from ...library import tables_of
from .. import session
from ..session import Outcome
from . import rows, shelf
from .inside import Scene, Show, inside, sheet

AUTOENCODER = 0             # the hosts' number for it


@dataclass(frozen=True)
class Wish(Scene):
    """What to train for."""

    name: str = "my-preset"
    calls: tuple = (6,)
    windows: tuple = (1.0,)
    budget: int = HOST_BUDGET
    mode: str = "auto"
    race_seeds: int = 8

    @property
    def order(self) -> session.Order:
        """The session's page of it. Raises ValueError for what cannot work."""
        config = Config(name=self.name, calls=self.calls, windows=self.windows, budget=self.budget, mode=self.mode)
        settings = [self.prompts, self.negative, self.cfg, self.width, self.height]
        return session.Order(config, settings, len(self.prompts), race_seeds=self.race_seeds)


@dataclass(frozen=True)
class Race(Scene):
    """Which preset, as its schedule type names it; its tables of which numbers of calls (none: all); on which terms."""

    label: str = ""
    calls: tuple = ()
    seeds: int = 16
    opponents: int = 0
    budget: int = 0
    write: bool = False


class Tab:
    """A session's Host: one work in the host's txt2img of a scene, seen in the tab.

    samples: whether the host makes its pictures in the end, with what was learned; else there is the race's sheet.
    """

    def __init__(self, scene: Scene, show: Show, steps: int, samples: bool = False):
        self.scene, self.seen, self.steps, self.samples, self.images = scene, show, steps, samples, []
        self.library, self.presets, self.runs = shelf.library(), shelf.folder(), Path(paths.data_path) / "s4s_runs"

    def inside(self, work: Callable, gradients: Callable) -> None:
        def staged(source: Source) -> Table | None:
            with source.network.through() if gradients(source) else contextlib.nullcontext():
                made = work(source)
            return made.preset.table(max(made.preset.counts)) if self.samples else None
        self.images = inside(self.scene, self.steps, staged)

    def say(self, text: str, warning: bool = False) -> None:
        self.seen.say(text)

    def show(self, done: int, total: int, line: str, preview: Callable | None = None) -> None:
        self.seen.count(done, total, line)
        self.seen.preview(preview)

    def draw(self, source: Source, held: Held) -> list:
        return [] if self.samples else [sheet(sheet_rows(source, held), AUTOENCODER, held.preset.name)]

    def changed(self) -> None:
        """A new preset is a schedule type at once, and a loser is no longer chosen by itself."""
        rows.register()


def train(wish: Wish, show: Show) -> Outcome | None:
    """Train for the loaded checkpoint; None where the host's interrupt ended it. Raises ValueError as the session."""
    tab = Tab(wish, show, max(wish.order.config.calls), samples=True)
    outcome = session.train(tab, wish.order)
    if outcome is not None:                 # else the host's pictures are of nothing
        outcome.pictures = tab.images
    return outcome


def forecast(wish: Wish, show: Show) -> None:
    """Say what a training would cost."""
    session.forecast(Tab(wish, show, max(wish.order.config.calls)), wish.order)


def race(wish: Race, show: Show) -> Outcome | None:
    """Race a preset on the loaded checkpoint; None where the host's interrupt ended it."""
    preset = shelf.labelled(wish.label)
    if preset is None:
        raise ValueError(f"there is no preset {wish.label!r}: choose one, or Reload UI if it is new")
    terms = Terms(tuple(tables_of(preset, wish.calls, "steps")), range(wish.seeds), wish.opponents, wish.budget)
    tab = Tab(wish, show, max(preset.tables[name].calls for name in terms.tables))
    return session.race(tab, preset, terms, wish.write)
