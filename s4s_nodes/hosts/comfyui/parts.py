"""What the nodes share: their types, how a preset is picked, and how words and pictures reach the screen."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ... import picture
from ...library import Choice, ModelFacts, Preset, cfg_range, choose, levels_for, preset_name, suits, table_for
from ...select.cfg import at_cfg, learned_at
from . import facts
from .folder import presets, tell_problems

PresetType = io.Custom("S4S_PRESET")
CATEGORY = "S4S"
AUTO = "auto"
MOST_CALLS = 1000
WHOLE = 0.9999              # the host's KSampler takes a denoise above this for all of the schedule


def aliases(*words: str) -> dict:
    """The schema's search words, where this host's schema knows them."""
    known = {field.name for field in fields(io.Schema)}
    return {"search_aliases": list(words)} if "search_aliases" in known else {}


def preset_input(tooltip: str) -> io.Input:
    """The PRESET socket."""
    return PresetType.Input("preset", tooltip=tooltip)


def calls_input() -> io.Input:
    """The number of network calls."""
    return io.Int.Input("calls", default=6, min=1, max=MOST_CALLS,
                        tooltip="Network calls, what a KSampler calls steps. A preset holds tables for a few numbers "
                                "of calls; for others a classical solver runs on the preset's stretched schedule.")


def denoise_input() -> io.Input:
    """How much of the way from noise is sampled, as in a KSampler."""
    return io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                          tooltip="Below 1 for image to image, as in a KSampler: the share of the schedule that is "
                                  "sampled. A preset with a table for that window uses it.")


def combo(tooltip: str, *first: str) -> io.Input:
    """The installed presets; the list is made anew whenever the browser asks for the nodes (press R)."""
    names = [*first, *presets().names()]
    tell_problems()
    return io.Combo.Input("preset", options=names, default=names[0] if names else None, tooltip=tooltip)


def unknown(name: str, *first: str) -> str | None:
    """What is wrong with a preset's name, or None; for validate_inputs, in place of the host's bare refusal."""
    names = [*first, *presets().names()]
    if name in names:
        return None
    broken = "; ".join(problem for problem in presets().problems() if name in problem)
    return broken or (f"no preset {name!r} is installed; there are: {', '.join(names)}. Put its file into "
                      "models/s4s_presets and press R")


def bad_name(name: str | None) -> str | None:
    """Why a preset cannot be called so, before anything runs, or None; empty keeps the name it has."""
    try:
        return None if not (name or "").strip() else preset_name(name.strip()) and None
    except ValueError as error:
        return str(error)


def mark(name: str) -> str:
    """What a node's result depends on beyond its inputs: the preset's numbers, for auto those of every preset."""
    library = presets()
    if name == AUTO:
        return " ".join(f"{preset.name}:{preset.short_hash}" for preset in library.presets())
    path = library.path(name)
    return f"{path}:{path.stat().st_mtime_ns}:{path.stat().st_size}"


def pick(name: str, model=None, calls: int | None = None, denoise: float = 1.0) -> tuple[Preset, str]:
    """(the preset of this name, or for "auto" the model's, why). Raises ValueError with what to do.

    calls and denoise: how many calls will run, and from which share of the schedule on.
    """
    if name != AUTO:
        preset = presets().get(name)
        reason = None if model is None else suits(preset, facts.of_model(model))
        if reason is not None:
            raise ValueError(f"preset {name!r} does not suit this model: {reason}. Choose another one, or auto")
        return preset, "chosen by name"
    if model is None:
        raise ValueError("auto needs the MODEL that will be sampled: connect it, or choose a preset by name")
    installed, seen = presets().presets(), facts.of_model(model)
    preset, why = choose(installed, seen, calls=calls)
    if calls is not None and 0 < denoise <= WHOLE:
        preset, why = choose(installed, seen, calls=calls, start=float(_cut(preset, seen, calls, denoise)[0]))
    if preset is None:
        raise ValueError(f"no preset for this model: {why}. Train one with S4S Train Preset, or import a published one")
    return preset, why


def facts_for(preset: Preset, model=None) -> ModelFacts:
    """The model's facts, or without a MODEL those of the model the preset is for."""
    return ModelFacts.of(preset.model) if model is None else facts.of_model(model)


@dataclass(frozen=True)
class Plan:
    """What will run for a preset, a number of calls and a denoise strength: the levels, and the library's choice."""

    sigmas: torch.Tensor            # float32 (calls + 1,), or empty for denoise 0
    choice: Choice | None           # None for denoise 0


def plan(preset: Preset, seen: ModelFacts, calls: int, denoise: float) -> Plan:
    """Levels as a KSampler cuts them; a window's own table brings its own start, so nothing has to be moved."""
    if denoise <= 0:
        return Plan(torch.zeros(0), None)
    choice = table_for(_cut(preset, seen, calls, denoise), seen, preset, own_schedule=True)
    if choice.kind == "adapted":
        choice = table_for(at_cfg(preset, None)[0].tables[choice.table_name].sigmas, seen, preset)
    return Plan(torch.tensor(choice.table.sigmas, dtype=torch.float32), choice)


def _cut(preset: Preset | None, seen: ModelFacts, calls: int, denoise: float) -> np.ndarray:
    """The last levels of a preset's schedule, (calls + 1,), from where this denoise starts."""
    whole = levels_for(preset, seen, calls if denoise > WHOLE else int(calls / denoise))
    return whole[-(calls + 1):]


def cfg_of(preset: Preset) -> tuple[float, str]:
    """(the guidance a preset was made at, in words); 1.0 where it does not say."""
    trained = cfg_range(preset)
    if trained is None:
        return 1.0, "cfg: the preset does not say; 1 is put out, use what suits your model"
    low, high = trained
    words = f"cfg: {low:g}" + (f" to {high:g}" if high > low else "")
    return (low + high) / 2, words + (", with a table for each cfg between" if learned_at(preset) else "")


def drawn(preset: Preset, choice: Choice | None) -> Image.Image:
    """The picture of what runs: a table of the preset, or the solver that stands in."""
    if choice is None:
        return picture.table(preset, min(preset.tables))
    if choice.table_name in preset.tables:
        return picture.table(preset, choice.table_name)
    if choice.table_name:                                    # of a joined preset: for a cfg
        return picture.table_page(choice.table, preset.name, preset.short_hash, choice.words(), preset.model.flow, [])
    return picture.table_page(choice.table, "S4S fallback", "", choice.words(), preset.model.flow, [])


def image(*pictures: Image.Image) -> torch.Tensor:
    """IMAGE (B, H, W, 3) in 0..1; shorter pictures are filled up with white."""
    height, width = max(p.height for p in pictures), max(p.width for p in pictures)
    page = np.ones((len(pictures), height, width, 3), dtype=np.float32)
    for i, each in enumerate(pictures):
        page[i, :each.height, :each.width] = np.asarray(each.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(page)


def shown(node, text: str, pictures: torch.Tensor | None = None) -> dict:
    """What appears on the node's face: text, and pictures above it."""
    pictures = {} if pictures is None else ui.PreviewImage(pictures, cls=node).as_dict()
    return {**pictures, **ui.PreviewText(text).as_dict()}
