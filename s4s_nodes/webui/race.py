"""A race inside the host's own txt2img: tables of a preset against the classical samplers on the loaded checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from torch import Tensor

from ...training import distil as trainer
from ...training.denoisers import Source
from ...training.pairs import Pairs, ends
from ..core import preset as preset_file
from ..core.preset import Preset
from ..library import shipped_folder, suits, tables_of
from . import rows, shelf
from .inside import Scene, Show, inside, sheet

SHEET = 4                   # images side by side in a sheet
SHOWN = 8                   # classical pairs named in the report
AUTOENCODER = 0             # the hosts' number for it


@dataclass(frozen=True)
class Race(Scene):
    """Which preset, as its schedule type names it; its tables of which numbers of calls (none: all); how many seeds."""

    label: str = ""
    calls: tuple = ()
    seeds: int = 16
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
    names, outcome = tables_of(preset, wish.calls, "steps"), Outcome()

    def work(source: Source, facts) -> None:
        if reason := suits(preset, facts):
            raise ValueError(f"preset {preset.name!r} cannot be raced on this checkpoint: {reason}")
        began, raced, whole = time.monotonic(), {}, None
        for name in names:
            pairs = teacher_pairs(source, preset, name, wish.seeds, show)
            whole = pairs if whole is None or pairs.clean is None else whole
            raced[name] = trainer.race(source, preset, name, pairs, on_progress=show.count)
            show.say("\n".join([f"{name}: {raced[name].verdict}", *ranking(raced[name])]))
        show.say(f"{preset.name} ({preset.short_hash}), cfg {source.cfg:g}, {wish.seeds} unseen seeds: "
                 f"{source.model_calls:,} network calls, {time.monotonic() - began:.0f} s")
        outcome.images = [sheet(sheet_rows(source, raced, whole), AUTOENCODER, preset.name)]
        outcome.scores = {name: one.scores for name, one in raced.items()}
    inside(wish, max(preset.tables[name].calls for name in names), work)
    show.line = ""
    if not outcome.scores:                  # the host ends an interrupted sampling quietly
        show.say("stopped: the race is not finished, and nothing was written")
    elif wish.write:
        show.say(written(trainer.with_scores(preset, {**preset.scores, **outcome.scores}), wish.label))
    return outcome


def teacher_pairs(source: Source, preset: Preset, name: str, seeds: int, show: Show) -> Pairs:
    """What many calls make of unseen seeds, counted where it can be seen."""
    show.line = f"{name}: the teacher on {seeds} unseen seeds"
    before = source.model_calls
    source.on_model_calls = lambda images: show.count(source.model_calls - before, 50 * seeds)
    try:
        return trainer.unseen_pairs(source, seeds, preset.tables[name])
    finally:
        source.on_model_calls = None


def ranking(raced: trainer.Raced) -> list[str]:
    """RMSE to the teacher, best first."""
    entries = sorted([raced.learned, *raced.ranked[:SHOWN]], key=lambda entry: entry.rmse)
    lines = [f"  {entry.rmse:.4f}  {'S4S' if entry is raced.learned else entry.name}" for entry in entries]
    return [*lines, f"  of {len(raced.ranked)} classical pairs that took part"]


def sheet_rows(source: Source, raced: dict, pairs: Pairs) -> dict[str, Tensor]:
    """The same unseen seeds by teacher, best classical pair and preset: "label: caption" -> latents."""
    few = pairs.part(slice(0, SHEET))
    found = {"teacher": few.target}
    for one in (one for name, one in raced.items() if "_from" not in name):
        calls = one.learned.solver.calls
        found[f"{one.best.name}: {calls} calls, RMSE {one.best.rmse:.4f}"] = ends(source, one.best.solver, few)
        found[f"S4S: {calls} calls, RMSE {one.learned.rmse:.4f}"] = ends(source, one.learned.solver, few)
    return found


def written(preset: Preset, label: str) -> str:
    """Write the scores into the user's file; words about it. What ships is left alone."""
    path = shelf.library().path(shelf.names()[label])
    if shipped_folder() in path.parents:
        return f"the scores were not written: {preset.name} ships with S4S"
    preset_file.save(preset, path)
    rows.register()
    return f"scores written into {path}"
