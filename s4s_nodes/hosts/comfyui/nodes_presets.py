"""The nodes that carry presets between files and graphs: load, save, import, from an image, show."""

from dataclasses import replace
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ... import metadata, picture, published
from ...core import preset_file
from ...core.files import stamp
from ...core.preset_file import to_bytes
from ...library import file_in, preset_name, save_new
from . import parts
from .folder import home, presets
from .record import presets_changed


class S4SLoadPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SLoadPreset", inputs=[
            parts.combo(), io.String.Input("path", default="", optional=True),
        ], outputs=[parts.PresetType, io.String], aliases=("open preset", "s4s"))

    @classmethod
    def validate_inputs(cls, preset, path=""):
        if path:
            return True if Path(path).is_file() else f"there is no file {path}: give the full path of a preset file"
        return parts.unknown(preset) or True

    @classmethod
    def fingerprint_inputs(cls, preset, path=""):
        return f"{path}:{stamp(path)}" if path else parts.mark(preset)

    @classmethod
    def execute(cls, preset, path="") -> io.NodeOutput:
        loaded = preset_file.load(path) if path else presets().get(preset)
        text = preset_file.describe(loaded)
        return io.NodeOutput(loaded, text, ui=parts.node_ui(cls, text))


class S4SSavePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SSavePreset", inputs=[
            parts.PresetType.Input("preset"), io.String.Input("name", default=""),
            io.Boolean.Input("overwrite", default=False),
        ], outputs=[parts.PresetType, io.String], aliases=("export preset", "s4s"), is_output_node=True)

    @classmethod
    def validate_inputs(cls, name=None):
        return parts.bad_name(name) or True

    @classmethod
    def execute(cls, preset, name, overwrite) -> io.NodeOutput:
        named = replace(preset, name=preset_name(name.strip())) if name.strip() else preset
        there = file_in(home(), named.name)
        same = there.is_file() and to_bytes(preset_file.load(there)) == to_bytes(named)     # queued once more
        path = there if same else save_new(named, home(), overwrite)
        presets_changed()
        text = f"{named.name} ({named.short_hash}) is in {path}"
        return io.NodeOutput(named, str(path), ui=parts.node_ui(cls, text))


class S4SImport(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SImport", inputs=[
            io.Combo.Input("source", options=[*published.names()]),
        ], outputs=[parts.PresetType, io.String], aliases=("AYS", "align your steps", "GITS", "OSS"))

    @classmethod
    def validate_inputs(cls, source):
        return source in published.names() or f"nothing published is called {source!r}. {published.GONE}"

    @classmethod
    def execute(cls, source, **_) -> io.NodeOutput:         # older graphs link a model, too
        preset = published.make(source)
        text = "\n".join([preset_file.describe(preset), f"licence: {preset.licence}", f"source: {preset.source}",
                          str(preset.training.get("note", ""))])
        return io.NodeOutput(preset, text, ui=parts.node_ui(cls, text))


class S4SFromImage(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        folder = Path(folder_paths.get_input_directory())
        names = sorted(each.name for each in folder.iterdir() if metadata.is_image(each)) if folder.is_dir() else []
        return parts.Schema(node_id="S4SFromImage", inputs=[
            io.Combo.Input("image", options=names, upload=io.UploadType.image),
            io.Int.Input("number", default=1, min=1, max=metadata.MAX_TABLES, optional=True),
        ], outputs=[parts.PresetType, io.String], aliases=("reproduce", "metadata", "restore preset", "s4s"))

    @classmethod
    def validate_inputs(cls, image):
        return folder_paths.exists_annotated_filepath(image) or f"there is no image {image!r}: choose another one"

    @classmethod
    def fingerprint_inputs(cls, image, **_):
        return f"{stamp(folder_paths.get_annotated_filepath(image))}"

    @classmethod
    def execute(cls, image, number=1) -> io.NodeOutput:
        loaded = metadata.from_image(folder_paths.get_annotated_filepath(image))
        if number > len(loaded):
            raise ValueError(f"{image} was made with {len(loaded)} preset{'s' * (len(loaded) > 1)}: set number to 1"
                             f"{f' to {len(loaded)}' if len(loaded) > 1 else ''}")
        others = "".join(f"\n{i}: {each.name}, {', '.join(each.tables)}" for i, each in enumerate(loaded, 1))
        text = preset_file.describe(loaded[number - 1]) + (others if len(loaded) > 1 else "")
        return io.NodeOutput(loaded[number - 1], text, ui=parts.node_ui(cls, text))


class S4SShowPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(
            node_id="S4SShowPreset", inputs=[parts.PresetType.Input("preset")],
            outputs=[io.String, io.Image], aliases=("preset info", "inspect", "s4s"), is_output_node=True)

    @classmethod
    def execute(cls, preset) -> io.NodeOutput:
        text = preset_file.describe(preset)
        if preset.training.get("self_test"):
            text += f"\n  self-test  replayed here, deviates by {preset_file.verify(preset):.1e}"
        pictures = parts.image(*(picture.table(preset, name) for name in sorted(preset.tables)))
        return io.NodeOutput(text, pictures, ui=parts.node_ui(cls, text, pictures))


NODES = [S4SLoadPreset, S4SSavePreset, S4SImport, S4SFromImage, S4SShowPreset]
