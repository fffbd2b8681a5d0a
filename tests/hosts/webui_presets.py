"""Presets on a shelf for the tests of the WebUI side: tables and windows for SD1.5's and a flow's levels."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.core.preset_file import save

HASHES = {"sha256_10": "0123456789"}        # of the checkpoint that hosts without a file have loaded


def eps_preset(name="toy, sd15") -> Preset:
    """Full tables of 4, 6 and 8 calls on one curve, and a window of 5 calls."""
    curve = schedules.karras(8, 0.0292, 14.6146)
    tables = {f"calls{n}": classical.unipc(schedules.stretched(curve, n, False)) for n in (4, 6, 8)}
    tables["calls5_from1.9"] = classical.unipc(schedules.karras(5, 0.0292, 1.9))
    return Preset(name, tables, Model("sd15", "eps", 0.0292, 14.6146, channels=4, hashes=HASHES),
                  training={"cfg": [1, 7]})


def flow_preset(name="toy-flow") -> Preset:
    """Full tables of 4 and 6 calls for a rectified flow of shift 3."""
    tables = {f"calls{n}": classical.SOLVERS["lms_2"](schedules.linear_flow(n, 3.0), True) for n in (4, 6)}
    return Preset(name, tables, Model("sd3", "flow", 0.003, 1.0, shift=3.0, channels=16, hashes=HASHES))


def shelved(models: Path, hashes: dict = HASHES) -> Path:
    """Write both into a host's models folder, as learned on the checkpoint of these hashes."""
    folder = models / "s4s_presets"
    for preset in (eps_preset(), flow_preset()):
        save(replace(preset, model=replace(preset.model, hashes=hashes)), folder / f"{preset.name}.safetensors")
    return folder


def levels_close(one, other) -> bool:
    return np.allclose(np.asarray(one), np.asarray(other), rtol=1e-3, atol=1e-6)
