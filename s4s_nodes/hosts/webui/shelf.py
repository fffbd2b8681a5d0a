"""The presets this host offers: which schedule type is which preset, and which one is meant when none is named."""

import os
from contextlib import suppress
from functools import cache
from html import escape
from pathlib import Path
from urllib.parse import quote

from modules import paths

from ...library import Library, ModelFacts, Preset, Request, shipped_folder
from . import labels, settings
from .words import say


@cache
def library() -> Library:
    """The host's models/s4s_presets and what ships. The folder is made, so that users find it."""
    with suppress(OSError):                 # a read-only models folder still serves presets
        folder().mkdir(parents=True, exist_ok=True)
    return Library([folder()])


def folder() -> Path:
    return Path(paths.models_path) / "s4s_presets"


def runs() -> Path:
    return Path(paths.data_path) / "s4s_runs"


def report_page(preset: Preset) -> Path:
    """Where the page of a preset's training or race is, if there was one: by its numbers, whatever its name."""
    return runs() / "reports" / preset.short_hash / "report.html"


def link_to(page: Path) -> str:
    """A link to a page in the data folder, which the host serves; relative to where it runs, if it lies there."""
    page, here = Path(os.path.abspath(page)), Path.cwd()
    place = quote((page.relative_to(here) if here in page.parents else page).as_posix())
    return f'<a href="file={place}" target="_blank">{escape(say("Open the report as a page"))}</a>'


def without_places(text: str) -> str:
    """A message without the server's own folders, since its reader may be anywhere."""
    known = [(folder(), "s4s_presets"), (shipped_folder(), "solver_presets"), (folder().parent, "models"),
             (Path(getattr(paths, "data_path", folder())), "")]
    for path, name in known:
        for place in {os.path.abspath(path), os.path.realpath(path)} - {os.sep}:
            text = text.replace(place + os.sep, name and f"{name}/").replace(place, name or "the data folder")
    return text


def names() -> dict[str, str]:
    """{schedule type: preset name} of all that is there now."""
    return labels.labelled(library().offered())


def presets() -> dict[str, Preset]:
    """{schedule type: preset} of all that is there now."""
    there = library().offered()
    return {label: there[name] for label, name in labels.labelled(there).items()}


def is_ours(label) -> bool:
    """Whether a schedule type, by label or internal name, is one of S4S's, there now or once."""
    return str(label).startswith((f"{labels.SAMPLER} ", labels.key(f"{labels.SAMPLER} ")))


def meant(chosen, schedule) -> str:
    """The schedule type that counts: of the preset chosen in the panel, else the page's own.

    chosen: a schedule type or a preset's name; "Automatic" and the internal name of Auto are Auto.
    """
    if chosen:
        return next((label for label, name in names().items() if chosen in (label, name)),
                    chosen if is_ours(chosen) else labels.label_for(chosen))
    if schedule in (None, "", "Automatic", "automatic"):
        return labels.AUTO
    return next((label for label in (labels.AUTO, *names()) if schedule == labels.key(label)), schedule)


def request(named: Preset | None, missing: str, facts: ModelFacts, strict: bool = False, **asked) -> Request:
    """The library's request for what `pasted.named` gives: that preset, else the settings' for this family, else auto;
    for a missing one no other takes its place."""
    usual = settings.default_for(facts.family)
    if named is None and usual is not None and not missing:
        named = library().named().get(usual)
    return Request(facts, [] if missing else library().candidates(), named=named, **asked,
                   strict=strict or settings.chosen(settings.MATCHING) == "strict")


def label_of(preset: Preset, label: str = labels.AUTO) -> str:
    """The schedule type that names a preset: `label` where it does, else the first of the same name and numbers."""
    same = [one for one, there in presets().items() if (there.name, there.hash) == (preset.name, preset.hash)]
    return label if label in (*same, *map(labels.key, same)) else next(iter(same), labels.AUTO)


def preset_of(label) -> Preset | None:
    """The preset a schedule type names, by its label or internal name, or None."""
    return next((preset for known, preset in presets().items() if label in (known, labels.key(known))), None)
