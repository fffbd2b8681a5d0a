"""Presets for other programs: plain levels, JSON, and a diffusers scheduler (needs diffusers, only when asked for)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ..core import Preset, write_atomically
from ..core.table import PARTS


def sigmas_text(preset: Preset, calls: int) -> str:
    """The levels of one table, "14.61, 6.475, ..., 0.0": for ManualSigmas and the hosts' custom-sigma fields.

    They are the schedule only: with another solver the coefficients are its own. A flow's levels are as the model
    sees them, its shift included.
    """
    return ", ".join(repr(float(f"{level:.9g}")) for level in preset.table(calls).sigmas)


def json_text(preset: Preset) -> str:
    """Everything in the preset, for reading and for other programs; `core.preset_file.load` does not read it back."""
    model = {key: value for key, value in vars(preset.model).items() if value not in (None, {}, False)}
    tables = {name: {part: getattr(table, part).tolist() for part in PARTS} for name, table in preset.tables.items()}
    return json.dumps({"name": preset.name, "hash": preset.short_hash, "model": model, "tables": tables,
                       "training": preset.training, "scores": preset.scores, "recommended": preset.recommended,
                       "licence": preset.licence, "source": preset.source}, indent=1)


def write(preset: Preset, to: str, path, calls: int | None = None) -> Path:
    """Write the preset and return what was written.

    to: sigmas, one line per table, or only the one with `calls`; or diffusers, a folder with scheduler_config.json, for
    `S4SScheduler.from_pretrained`. Raises ValueError for calls that the preset does not have, ImportError without
    diffusers.
    """
    if to == "diffusers":
        from .scheduler import S4SScheduler
        S4SScheduler.from_preset(preset).save_config(path)
        return Path(path) / "scheduler_config.json"
    lines = [sigmas_text(preset, count) for count in ([calls] if calls else preset.counts)]
    return write_atomically(path, ("\n".join(lines) + "\n").encode())
