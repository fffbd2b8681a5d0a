"""A race inside the host's own txt2img: tables of a preset against the classical samplers on the loaded checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from ....training.benchmark.host_race import Raced, Terms, Told, hold, sheet_rows, table_lines
from ....training.source import Source
from ...library import save_scores, suits, tables_of
from . import rows, shelf
from .inside import Scene, Show, inside, sheet

SHOWN = 8                   # classical pairs named in the report
AUTOENCODER = 0             # the hosts' number for it


@dataclass(frozen=True)
class Race(Scene):
    """Which preset, as its schedule type names it; its tables of which numbers of calls (none: all); on which terms."""

    label: str = ""
    calls: tuple = ()
    seeds: int = 16
    opponents: int = 0
    budget: int = 0
    write: bool = False


@dataclass
class Outcome:
    """{table: scores} of what was finished, and the sheet."""

    scores: dict = field(default_factory=dict)
    images: list = field(default_factory=list)


def race(wish: Race, show: Show) -> Outcome:
    """Equal calls, unseen seeds: how near to many calls does the preset come, and the best classical pair?

    The host's interrupt ends it; nothing is written then. Raises ValueError in words for what cannot be raced.
    """
    preset = shelf.labelled(wish.label)
    if preset is None:
        raise ValueError(f"there is no preset {wish.label!r}: choose one, or Reload UI if it is new")
    terms = Terms(tuple(tables_of(preset, wish.calls, "steps")), range(wish.seeds), wish.opponents, wish.budget)
    outcome, scored = Outcome(), []

    def work(source: Source, facts) -> None:
        if reason := suits(preset, facts):
            raise ValueError(f"preset {preset.name!r} cannot be raced on this checkpoint: {reason}")
        held = hold(source, preset, terms, told(show))
        show.say(f"{preset.name} ({preset.short_hash}), {held.words}")
        outcome.images = [sheet(sheet_rows(source, held), AUTOENCODER, preset.name)]
        outcome.scores = held.scores
        scored.append(held.preset)
    inside(wish, max(preset.tables[name].calls for name in terms.tables), work)
    show.line = ""
    if not scored:                          # the host ends an interrupted sampling quietly
        show.say("stopped: the race is not finished, and nothing was written")
    elif wish.write and scored[0] is not preset:        # the same: none of its own tables was raced
        show.say(save_scores(shelf.library(), scored[0], shelf.folder()))
        rows.register()                     # a loser is no longer chosen by itself
    return outcome


def told(show: Show) -> Told:
    """A race's news in the tab: what is done stays."""
    def finished(table: str, raced: Raced) -> None:
        show.say("\n".join([f"{table}: {raced.verdict}", *table_lines(raced, SHOWN)]))
    return Told(show.at, show.count, finished)
