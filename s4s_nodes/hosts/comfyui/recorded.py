"""The tables in the workflow of an image: whether they run again, and how to restore lost ones."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from ... import metadata
from ...core.container import parsed
from ...core.k_sampler import close
from ...core.preset_file import Preset, PresetError
from ...library import preset_name, save_version
from ...select.match import name_text
from .folder import home, presets

SOLVER = "a classical solver"
FROM_IMAGE = "S4S Preset from Image, connected to S4S Use Preset, takes the old one from the image"


def changed(selection, earlier: list) -> str:
    """What to say where the workflow's image was made here with a preset that is gone, or is no longer the same, or,
    in as many calls, with another selection than now."""
    recorded = list(_presets(earlier))
    if any(table.same_as(selection.table) for old in recorded for table in old.tables.values()):
        return ""
    there = presets().candidates()
    now = "" if selection.preset is None else metadata.origin_of(selection.preset)["preset"]
    for old in recorded:
        [table], digits = old.tables.values(), _digits(old)
        made = f"this workflow's image was made with {_name(old)}"
        if what := _fate(old, there):
            return f"{made}, which {what}. {FROM_IMAGE}"
        if table.calls == selection.table.calls and (digits != now or not digits and close(
                table.sigmas[0], selection.table.sigmas[0])):
            runs = SOLVER if digits else "another one"
            runs = runs if selection.preset is None else name_text(selection.preset)
            how = FROM_IMAGE
            if digits:
                named = next(each.name for each in there if digits == metadata.origin_of(each)["preset"])
                how = f"To run the old one, choose {named} in S4S Use Preset"
            return f"{made}, and now {runs} runs. {how}"
    return ""


def answer(body: bytes) -> dict:
    """{"text": which presets of a workflow's entries are lost here, "names": [...]}; with "save" asked, saved again,
    under the names that were free. body: JSON {"notes": entries, "save": bool}. Raises ValueError."""
    if len(body) > metadata.MAX_METADATA:
        raise ValueError(f"the workflow's entries have {len(body):,} bytes, {metadata.MAX_METADATA:,} at most")
    asked, there = parsed(body.decode()), presets().candidates()
    notes = asked.get("notes") if isinstance(asked, dict) else None
    old = metadata.grouped(_presets(notes[:metadata.MAX_TABLES] if isinstance(notes, list) else []))
    lost = [(each, what) for each in old if (what := _fate(each, there))]
    names = [each.name for each, _ in lost]
    if lost and asked.get("save") is True:
        names = [save_version(replace(each, name=preset_name(each.name)), home())[0].name for each, _ in lost]
    return {"text": "; ".join(f"{_name(each)} {what}" for each, what in lost), "names": names}


def _presets(earlier: list) -> Iterator[Preset]:
    """The presets of one table that entries of an image hold; what is damaged is left out."""
    for note in earlier:
        with suppress(PresetError):
            yield metadata.from_record(note.get("numbers") if isinstance(note, dict) else None)


def _digits(old: Preset) -> str:
    """The hash of the preset that made an image; "" of a classical solver."""
    return old.training["from_image"]["preset"]


def _name(old: Preset) -> str:
    return f"{old.name} ({_digits(old)[:10]})" if _digits(old) else SOLVER


def _fate(old: Preset, there: list[Preset]) -> str:
    """What became of an image's preset; "" if it is here, or its tables were saved again."""
    if not _digits(old) or _digits(old) in {metadata.origin_of(each)["preset"] for each in there}:
        return ""
    return "has changed since" if old.name in {each.name for each in there} else "is gone"
