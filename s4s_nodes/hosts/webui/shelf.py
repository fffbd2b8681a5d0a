"""The presets this host offers: which schedule type is which preset, and which one is meant when none is named."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from modules import paths

from ...library import Library, ModelFacts, Preset, PresetError, choose, shipped_folder
from . import labels, settings


@cache
def library() -> Library:
    """The host's models/s4s_presets and what ships. The folder is made, so that users find it."""
    try:
        folder().mkdir(parents=True, exist_ok=True)
    except OSError:                         # a models folder that is not ours to write to still serves presets
        pass
    return Library([folder()])


def folder() -> Path:
    """Where this host's users put presets."""
    return Path(paths.models_path) / "s4s_presets"


def without_places(text: str) -> str:
    """A message without the server's own folders: whoever reads it may be anywhere."""
    known = [(folder(), "s4s_presets"), (shipped_folder(), "solver_presets"), (folder().parent, "models"),
             (Path(getattr(paths, "data_path", folder())), "")]
    for path, name in known:
        for place in {os.path.abspath(path), os.path.realpath(path)} - {os.sep}:
            text = text.replace(place + os.sep, name and f"{name}/").replace(place, name or "the data folder")
    return text


def problems() -> list[str]:
    """What is wrong with files that are not offered."""
    return library().problems()


def names() -> dict[str, str]:
    """{schedule type: preset name} of all that is there now."""
    return labels.labelled(library().names())


def is_ours(label) -> bool:
    """Whether a schedule type, by label or internal name, is one of S4S's, there now or once."""
    return str(label).startswith((f"{labels.SAMPLER} ", labels.key(f"{labels.SAMPLER} ")))


def pick(label, facts: ModelFacts, cfg: float | None = None, calls: int | None = None,
         start: float | None = None) -> tuple[Preset | None, str]:
    """(preset, why) for a schedule type: the one it names, else the settings' for this family, else what fits best.

    calls and start: how many calls will run, down from which level (None: the highest).
    """
    for known, name in names().items():
        if label in (known, labels.key(known)):
            return _got(name, "the schedule type names it")
    if is_ours(label) and label not in (labels.AUTO, labels.key(labels.AUTO)):
        return None, f"the schedule type {label} names a preset that is not there"
    if name := settings.default_for(facts.family):
        return _got(name, f"it is the settings' default for {facts.family}")
    return choose(library().presets(), facts, cfg, calls, settings.strict(), start)


def label_of(preset: Preset) -> str:
    """The schedule type that names a preset."""
    return next((label for label, name in names().items() if library().get(name) is preset), labels.AUTO)


def labelled(label) -> Preset | None:
    """The preset a schedule type names, or None."""
    name = names().get(label)
    return None if name is None else _got(name, "")[0]


def _got(name: str, why: str) -> tuple[Preset | None, str]:
    try:
        return library().get(name), why
    except PresetError as error:
        return None, str(error)
