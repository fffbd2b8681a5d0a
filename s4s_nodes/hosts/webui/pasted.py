"""A pasted infotext's own tables: they run where the preset that made the picture is gone or was changed since."""

from ... import metadata
from ...library import Preset, PresetError
from ...select.match import is_solver
from . import labels, shelf

CHOICE = "S4S table of the pasted picture"  # among the panel's presets


def tables(written: dict) -> str:
    """The packed tables of an infotext's two passes, "/" between them; "" for none. written: {key: value}."""
    texts = [written.get(key) or "" for key in (labels.TABLE_KEY, labels.HIRES_TABLE_KEY)]
    return "/".join(texts) if any(texts) else ""


def preset(texts: str, hires: bool = False) -> Preset:
    """The preset of one table that a pass of the picture ran; of the other pass where it has none.

    Raises PresetError for damaged ones, and for none.
    """
    first, _, second = (texts or "").partition("/")
    if not (text := (second or first) if hires else (first or second)):
        raise PresetError("no picture with a table was pasted: paste its parameters, or send it from PNG Info")
    return metadata.from_text(metadata.unpack(text))


def named(label: str, texts: str = "", hires: bool = False) -> tuple[Preset | None, str]:
    """(the preset that a schedule type names, or that made the pasted picture; why it cannot be had)"""
    try:
        there = preset(texts, hires) if label == CHOICE else shelf.preset_of(label)
    except PresetError as error:
        return None, str(error)
    lost = there is None and label != labels.AUTO and shelf.is_ours(label)
    return there, f"{label} names a preset that does not exist" if lost else ""


def same(there: Preset | None, preset: Preset) -> bool:
    return there is not None and there.hash.startswith(metadata.origin_of(preset)["preset"][:16])


def standing(preset: Preset) -> str:
    """What became of the preset that made the picture."""
    if is_solver(preset):
        return "a classical solver made the picture: its own table runs again"
    origin = metadata.origin_of(preset)
    there = next((each for each in shelf.library().named().values() if each.name == origin["name"]), None)
    if there is None:
        return f"{origin['name']} ({origin['preset'][:10]}), which made the picture, is not here: its own table runs"
    if same(there, preset):
        return f"the picture's own table runs; {there.name} has the same"
    return (f"{there.name} was changed since it made the picture ({origin['preset'][:10]}, now {there.short_hash}): "
            "the picture's own table runs")
