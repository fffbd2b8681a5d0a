"""The preset a user pinned to a MODEL with S4S Use Preset: carried by the model, found by the rows `s4s`."""

from __future__ import annotations

from dataclasses import dataclass

from ...library import Preset

_KEY = "s4s_preset"


@dataclass(frozen=True)
class Pin:
    """What every sampler and scheduler `s4s` on this model uses."""

    preset: Preset
    strict: bool


def pin(model, preset: Preset, strict: bool):
    """A clone of the MODEL that carries the preset, as the host carries attachments; the weights are shared."""
    clone = model.clone()
    clone.set_attachments(_KEY, Pin(preset, strict))
    return clone


def of(patcher) -> Pin | None:
    """What is pinned to a MODEL, or None."""
    attached = getattr(patcher, "attachments", {}).get(_KEY)
    return attached if isinstance(attached, Pin) else None
