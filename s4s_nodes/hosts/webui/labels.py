"""Names as the host's dropdowns, infotext and XYZ plots can carry them. Knows no host."""

import re

from ... import __version__
from ...metadata import INFOTEXT, origin_of

SAMPLER = "S4S"
AUTO = "S4S Auto"
BY_SCHEDULE = "by Schedule type"            # the panel's first choice: it names no preset itself
KEY, HIRES_KEY = "S4S", "Hires S4S"         # infotext keys
SCHEDULE_KEY, HIRES_SCHEDULE_KEY = "S4S schedule", "Hires S4S schedule"
TABLE_KEY, HIRES_TABLE_KEY = INFOTEXT, f"Hires {INFOTEXT}"
OF_RUN = (KEY, HIRES_KEY, SCHEDULE_KEY, HIRES_SCHEDULE_KEY, TABLE_KEY, HIRES_TABLE_KEY)


def labelled(names) -> dict[str, str]:
    """{schedule type: preset name}, in order, all different, none of them `AUTO`.

    An infotext splits at commas and colons, an XYZ plot at commas: both give way to "_".
    """
    labels: dict[str, str] = {}
    for name in names:
        label = label_for(name)
        while label in labels or label == AUTO:
            label += "_"
        labels[label] = name
    return labels


def label_for(name: str) -> str:
    """The schedule type of a preset of this name, as far as no other has it."""
    return f"{SAMPLER} " + re.sub(r"[^\w .()+=/-]", "_", name).strip()


def key(label: str) -> str:
    """The internal name of a schedule type, as the hosts write theirs: s4s_auto."""
    return re.sub(r"[^a-z0-9]+", "_", label.lower())


def hires_schedule(written: dict) -> str:
    """The infotext key of the second pass's schedule type, spelled as the host has put it there."""
    usual = "Hires schedule type"
    return next((key for key in written if key.lower() == usual.lower()), usual)         # ersatzForge: HiRes


def has_hires(written: dict) -> bool:
    """Whether an infotext is of a picture with a hires pass, whose strength it then holds."""
    return any(str(key).startswith("Hires") for key in written)


def plain(text: str) -> str:
    """Words for an infotext's value: one line without commas, colons and quotes, which would have to be escaped."""
    return " ".join(re.sub(r'[,:"\\]', " ", text).split())[:300]


def of_schedule(selection) -> str:
    """What an infotext says about levels that another sampler ran on: whose they are."""
    preset = selection.preset
    whose = "the model's own levels" if preset is None else f"{preset.name} {origin_of(preset)['preset']}"
    return plain(f"fallback {whose} - {selection.why}" if selection.fallback else whose)


def infotext(selection) -> str:
    """What an infotext says of a run: preset, hash, table and kind; where it is no table of the file itself, why."""
    preset = selection.preset
    ran = selection.classical
    if preset is not None:
        ran = f"{preset.name} {origin_of(preset)['preset']} {selection.table_name} {selection.kind}"
    plainly = not selection.warns and selection.kind != "adapted" and selection.table_name in preset.tables
    why = "" if plainly else f" - {selection.why}" + ("" if selection.belongs else " - not learned on this model")
    return plain(f"{'fallback ' * selection.fallback}{ran}{why} (S4S {__version__})")
