"""The nodes for the presets one has: all of them at a glance, rename, delete; several joined into one."""

import hashlib
from pathlib import Path

from comfy_api.latest import io

from ...core import preset_file
from ...core.lists import range_text
from ...library import Library, Preset, cfg_range, measured_text, preset_name, recommended_text
from ...select.cfg import join_presets
from . import parts, record
from .folder import home, presets

LIST, RENAME, DELETE = "list", "rename", "delete"


class S4SPresets(io.ComfyNode):
    """The collection: every preset in words, and a new name or an end for one's own.

    Workflows are passed on with their settings, and a node stays as it was set: what deletes a preset has to name its
    numbers too, so that it never meets another one of the same name.
    """

    @classmethod
    def define_schema(cls):
        names = presets().listed()
        return parts.Schema(node_id="S4SPresets", inputs=[
            io.Combo.Input("preset", options=names, default=names[0] if names else None),
            io.Combo.Input("action", options=[LIST, RENAME, DELETE], default=LIST),
            io.String.Input("name", default=""),
        ], outputs=[io.String], aliases=("list presets", "rename preset", "delete preset", "manage presets", "s4s"),
            hidden=[io.Hidden.unique_id], is_output_node=True, not_idempotent=True)

    @classmethod
    def validate_inputs(cls, preset):
        typed = {"preset": preset, **record.typed_inputs(cls)}
        return _refusal(*(typed.get(key) for key in ("preset", "action", "name"))) or True

    @classmethod
    def fingerprint_inputs(cls, action, **_):
        """The list is made again when it changed; a rename or delete is never taken for done."""
        return _listed(presets()) if action == LIST else float("nan")

    @classmethod
    def execute(cls, preset, action, name) -> io.NodeOutput:
        if refusal := _refusal(preset, action, name):        # a name that was linked, or a prompt that had to wait
            raise ValueError(refusal)
        library = presets()
        if action == LIST:
            text = _listed(library)
        elif action == RENAME:
            old, new = library.path(preset), library.rename(preset, name.strip())
            text = f"{old} is now {new}. Press R to update the lists"
        else:
            path = library.path(preset)
            library.delete(preset)
            text = f"deleted {path}. Press R to update the lists"
        record.presets_changed()
        return io.NodeOutput(text, ui=parts.node_ui(cls, text))


def _refusal(preset: str | None, action: str | None, name: str | None) -> str | None:
    """Why it cannot be done, and what to do, or None; an input that is None is not known yet."""
    library = presets()
    if action not in (None, LIST, RENAME, DELETE):
        return f"unknown action {action!r}: use {LIST}, {RENAME} or {DELETE}"
    if action in (None, LIST) or preset is None:
        return None
    if preset not in library.files():
        return (f"preset {preset!r} does not exist: press R and choose another one, or set action to "
                f"{LIST}; there are: {', '.join(library.listed())}")
    if reason := library.why_kept(preset):
        return f"{reason}. Or set action to {LIST}"
    if name is None:
        return None
    if action == RENAME:
        return parts.bad_name(name) if name.strip() else f"write the new name of {preset!r} into name"
    wanted = f"{preset} {_digits(library, preset)}"
    return None if name.split() == wanted.split() else (f"to delete {library.path(preset)} for good, write into name: "
                                                         f"{wanted}")


def _digits(library: Library, name: str) -> str:
    """10 hex digits that tell a preset from others of its name: its hash, of an unreadable file that of its bytes."""
    if name in library.named():
        return library.get(name).short_hash
    return hashlib.sha256(library.path(name).read_bytes()).hexdigest()[:10]


def _listed(library: Library) -> str:
    """Every preset in three lines, the user's first, then what could not be read and which files hide others."""
    presets = library.offered()
    files = {name: path for name, path in library.files().items() if name in presets}
    shipped = {name for name, path in files.items() if library.in_shipped(path)}
    blocks = [f"{len(files) - len(shipped)} of yours in {home()}, {len(shipped)} that ship with S4S"]
    blocks += [_passport(presets[name], path, name, name in shipped) for name, path in files.items()]
    return "\n\n".join([*blocks, *(f"! {problem}" for problem in library.problems())])


def _passport(preset: Preset, path: Path, name: str, ships: bool) -> str:
    trained = cfg_range(preset)
    cfg = f"; cfg {range_text(trained)}" if trained else ""
    return (f"{name} {preset.short_hash}: {'ships with S4S' if ships else 'yours'}\n"
            f"for {preset.model.family}, {preset.model.prediction}; {', '.join(map(str, preset.counts))} calls{cfg}\n"
            f"measured: {measured_text(preset)}; recommended: {recommended_text(preset)}\n"
            f"{path}")


class S4SJoinPresets(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SJoinPresets", inputs=[
            parts.PresetType.Input("preset"), parts.PresetType.Input("preset_2"),
            io.String.Input("name", default=""), parts.PresetType.Input("preset_3", optional=True),
            parts.PresetType.Input("preset_4", optional=True),
        ], outputs=[parts.PresetType, io.String], aliases=("merge presets", "interpolate cfg", "s4s"))

    @classmethod
    def validate_inputs(cls, name=None):
        return parts.bad_name(name) or True

    @classmethod
    def execute(cls, preset, preset_2, name, preset_3=None, preset_4=None) -> io.NodeOutput:
        given = [one for one in (preset, preset_2, preset_3, preset_4) if one is not None]
        whole = join_presets(given, preset_name(name.strip()) if name.strip() else f"{preset.name[:93]} joined")
        low, high = whole.training["cfg"]
        text = (f"for cfg {low:g} to {high:g}: tables are interpolated between the {len(given)} learned cfg; outside "
                f"them the nearest table runs\n{preset_file.describe(whole)}")
        return io.NodeOutput(whole, text, ui=parts.node_ui(cls, text))


NODES = [S4SPresets, S4SJoinPresets]
