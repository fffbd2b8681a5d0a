"""The tab's trainings and races, to the session: the host's txt2img of a scene, the tab's report, its folders."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import astuple, fields
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


def train(show: Show, race_seeds: int = 8, **asked) -> Outcome | None:
    """Train for the loaded checkpoint; None where the host's interrupt ended it. Raises ValueError as the session."""
    tab, order = _ordered(show, asked, race_seeds)
    outcome = session.train(tab, order)
    if outcome is not None:                 # else the host's pictures are of nothing
        outcome.pictures = tab.images
    return outcome


def forecast(show: Show, race_seeds: int = 8, **asked) -> None:
    """Say what a training would cost."""
    tab, order = _ordered(show, asked, race_seeds)
    tab.samples = False
    session.forecast(tab, order)


def _ordered(show: Show, asked: dict, race_seeds: int) -> tuple[Tab, session.Order]:
    """The session's host and order of the fields of a Scene, and of the trainer's Config."""
    scene = Scene(**{field.name: asked.pop(field.name) for field in fields(Scene) if field.name in asked})
    config = Config(**{"mode": "auto", "budget": HOST_BUDGET, **asked})
    return (Tab(scene, show, max(config.calls), samples=True),
            session.Order(config, astuple(scene), len(scene.prompts), race_seeds=race_seeds))


def race(show: Show, label: str, calls: tuple = (), seeds: int = 16, opponents: int = 0, budget: int = 0,
         write: bool = False, **scene) -> Outcome | None:
    """Race the preset of a schedule type, its tables of these numbers of calls (none: all), on the loaded checkpoint.

    None where the host's interrupt ended it. Raises ValueError as the session.
    """
    preset, scene = shelf.labelled(label), Scene(**scene)
    if preset is None:
        raise ValueError(f"there is no preset {label!r}: choose one, or Reload UI if it is new")
    terms = Terms(tuple(tables_of(preset, calls, "steps")), range(seeds), opponents, budget)
    return session.race(Tab(scene, show, max(preset.tables[name].calls for name in terms.tables)), preset, terms, write)
