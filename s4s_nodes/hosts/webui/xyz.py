"""An axis of the host's XYZ plot: [S4S] Preset."""

from __future__ import annotations

from pathlib import Path

from modules import script_callbacks, scripts

from . import labels, shelf

AXIS = "[S4S] Preset"
AUTO = "Auto"


def register() -> None:
    """Add the axis now (an API-only host builds its list before any callback), and again when the page is built."""
    add_axis()
    script_callbacks.on_before_ui(add_axis)


def add_axis() -> None:
    """Give the host's plot script the axis; one that is there is replaced."""
    for data in scripts.scripts_data:
        if Path(data.path).name == "xyz_grid.py":
            listed = data.module.axis_options
            axis = data.module.AxisOption(AXIS, str, apply, confirm=confirm, choices=choices)
            listed[:] = [*(option for option in listed if option.label != AXIS), axis]


def choices() -> list[str]:
    """Presets as the axis names them: their schedule types without the first word."""
    return [AUTO, *(label.partition(" ")[2] for label in shelf.names())]


def confirm(p, names) -> None:
    """Refuse a plot that asks for presets that are not there, before its first cell."""
    if unknown := [name for name in names if name not in choices()]:
        raise RuntimeError(f"there is no S4S preset {unknown[0]!r}; there are: {', '.join(choices())}")


def apply(p, name: str, names) -> None:
    """A cell: the sampler S4S with the preset's schedule, whatever the panel says."""
    p.sampler_name, p.scheduler, p.s4s_preset = labels.SAMPLER, f"{labels.SAMPLER} {name}", ""
