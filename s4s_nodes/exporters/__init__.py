"""Presets for other programs: plain levels and JSON here, a diffusers scheduler in scheduler.py."""

import json

from ..core import Preset
from ..core.table import PARTS


def sigmas_text(preset: Preset, calls: int) -> str:
    """The levels of one table, "14.61, 6.475, ..., 0.0": for ManualSigmas and the hosts' custom-sigma fields.

    They are only the schedule: another solver has its own coefficients. A flow's levels include its shift.

    Args:
        preset: the preset.
        calls: the number of network calls of its table.
    """
    return ", ".join(repr(float(f"{level:.9g}")) for level in preset.table(calls).sigmas)


def json_text(preset: Preset) -> str:
    """Everything in the preset, for reading and for other programs; `core.preset_file.load` does not read it back."""
    model = {key: value for key, value in vars(preset.model).items() if value not in (None, {}, False)}
    tables = {name: {part: getattr(table, part).tolist() for part in PARTS} for name, table in preset.tables.items()}
    return json.dumps({"name": preset.name, "hash": preset.short_hash, "model": model, "tables": tables,
                       "training": preset.training, "scores": preset.scores, "recommended": preset.recommended,
                       "licence": preset.licence, "source": preset.source}, indent=1)
