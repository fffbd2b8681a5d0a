"""What the nodes share: their types, how a preset is picked, and how words and pictures reach the screen."""

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image

from ... import picture
from ...core.files import stamp
from ...core.lists import range_text
from ...library import ModelFacts, Preset, Request, Selection, cfg_range, preset_name, select, suits
from ...select.cfg import at_cfg, learned_at
from . import facts
from .folder import folder_mark, presets, tell_problems

PresetType = io.Custom("S4S_PRESET")
CATEGORY = "S4S"
AUTO = "auto"
MOST_CALLS = 1000
WHOLE = 0.9999              # the host's KSampler treats a denoise above this as the whole schedule
_WORDS = json.loads((Path(__file__).parents[3] / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))


def Schema(node_id: str, inputs: list, outputs: list, aliases: tuple, **more) -> io.Schema:
    """A node's schema, with its words from locales/en/nodeDefs.json. A registry's scanner looks for Schema(node_id="...

    outputs: their types; aliases: words to find it by, which older hosts do not know.
    """
    words = _WORDS[node_id]
    for each in inputs:
        each.tooltip = words["inputs"][each.id]["tooltip"]
    if "search_aliases" in {field.name for field in fields(io.Schema)}:
        more["search_aliases"] = [*aliases]
    return io.Schema(
        node_id=node_id, display_name=words["display_name"], category=CATEGORY, description=words["description"],
        inputs=inputs, outputs=[kind.Output(display_name=word["name"], tooltip=word["tooltip"])
                                for kind, word in zip(outputs, words["outputs"].values())], **more)


def calls_and_denoise() -> list:
    return [io.Int.Input("calls", default=6, min=1, max=MOST_CALLS),
            io.Float.Input("denoise", default=1.0, min=0.0, max=1.0, step=0.01)]


def combo(*first: str) -> io.Input:
    """The installed presets; the list is made again whenever the browser asks for the nodes (press R)."""
    names = [*first, *presets().offered()]
    tell_problems()
    return io.Combo.Input("preset", options=names, default=names[0] if names else None)


def unknown(name: str, *first: str) -> str | None:
    """What is wrong with a preset's name, or None; for validate_inputs, in place of the host's bare refusal."""
    if name in (*first, *presets().named()):            # a saved workflow may name one that is not offered
        return None
    names = ", ".join([*first, *presets().offered()])
    broken = "; ".join(problem for problem in presets().problems() if name in problem)
    return broken or (f"no preset {name!r} is installed; there are: {names}. Put its file into "
                      "models/s4s_presets and press R; S4S Preset from Image takes it from an image that it made")


def bad_name(name: str | None) -> str | None:
    """Why a preset cannot be called so, before anything runs, or None; empty keeps the name it has."""
    try:
        return None if not (name or "").strip() else preset_name(name.strip()) and None
    except ValueError as error:
        return str(error)


def mark(name: str) -> str:
    """What a node's result depends on beyond its inputs: the preset's numbers, for auto those of every preset."""
    if name == AUTO:
        return folder_mark()
    path = presets().path(name)
    return f"{path}:{stamp(path)}"


def facts_for(preset: Preset | None, model) -> ModelFacts:
    """The facts of a MODEL, or of None those of the model the preset is for; preset: None for auto.

    Raises ValueError for auto without a MODEL, and for a preset whose tables are not valid for such a model.
    """
    if model is None:
        if preset is None:
            raise ValueError("auto needs the MODEL that will be sampled: connect it, or choose a preset by name")
        return ModelFacts.of(preset.model)
    seen = facts.of_model(model)
    if preset is not None and (reason := suits(preset, seen)) is not None:
        raise ValueError(f"preset {preset.name!r} does not suit this model: {reason}. Choose another one")
    return seen


def plan(preset: Preset | None, seen: ModelFacts, calls: int, denoise: float,
         strict: bool = False) -> tuple[torch.Tensor, Selection | None]:
    """(levels (calls + 1,) as a KSampler cuts them, the library's selection); (none, None) for denoise 0.

    A window's own table brings its own start, so nothing has to be moved. preset: None for the model's own.
    """
    if denoise <= 0:
        return torch.zeros(0), None
    request = Request(seen, presets().candidates(), calls if denoise > WHOLE else int(calls / denoise), calls,
                      named=preset, strict=strict)
    selection = select(request)
    if selection.kind == "adapted":
        own = at_cfg(selection.preset, None)[0].tables[selection.table_name].sigmas
        selection = select(replace(request, steps=None, calls=None, levels=own))
    return torch.tensor(selection.table.sigmas, dtype=torch.float32), selection


def cfg_of(preset: Preset) -> tuple[float, str]:
    """(the guidance a preset was made at, in words); 1.0 where it does not say."""
    trained = cfg_range(preset)
    if trained is None:
        return 1.0, "cfg: the preset does not record it, so the output is 1; use what suits your model"
    between = ", with a table for each cfg between" if learned_at(preset) else ""
    return sum(trained) / 2, f"cfg: {range_text(trained)}{between}"


def drawn(preset: Preset, selection: Selection | None) -> Image.Image:
    """The picture of what runs: a table of a preset, or the solver that stands in."""
    if selection is None:
        return picture.table(preset, min(preset.tables))
    shown = selection.preset or preset
    if selection.table_name in shown.tables:
        return picture.table(shown, selection.table_name)
    title = shown.name if selection.table_name else "S4S fallback"          # a joined one: at cfg
    return picture.table_page(selection.table, title, selection.message(), shown.model.flow, [])


def image(*pictures: Image.Image) -> torch.Tensor:
    """IMAGE (B, H, W, 3) in 0..1; shorter pictures are filled up with white."""
    height, width = max(p.height for p in pictures), max(p.width for p in pictures)
    page = np.ones((len(pictures), height, width, 3), dtype=np.float32)
    for i, each in enumerate(pictures):
        page[i, :each.height, :each.width] = np.asarray(each.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(page)


def node_ui(node, text: str, pictures: torch.Tensor | None = None) -> dict:
    """What appears on the node's face: text, and pictures above it."""
    pictures = {} if pictures is None else ui.PreviewImage(pictures, cls=node).as_dict()
    return {**pictures, **ui.PreviewText(text).as_dict()}
