"""The nodes that put a preset into a graph: SAMPLER, SIGMAS, SCHEDULER_FUNC, and what was used."""

import comfy.samplers
import torch
from comfy_api.latest import io

from ...library import Request, select
from . import graph, parts, record
from .folder import presets
from .sampler import CLASSICAL, ERROR, UNMATCHED, pin, sample_s4s

NOT_LINKED = "not linked"           # before a prompt runs, the host passes None for other nodes' outputs
SchedulerFunc = io.Custom("SCHEDULER_FUNC")         # Impact Pack's and Inspire Pack's: (model, sampler name, steps)


class S4SPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SPreset", inputs=[
            parts.combo(parts.AUTO), *parts.calls_and_denoise(), io.Boolean.Input("strict", default=False),
            io.Model.Input("model", optional=True),
        ], outputs=[parts.PresetType, io.Sampler, io.Sigmas, io.Int, io.Float, io.String, io.Image],
            aliases=("solver", "few steps", "learned sampler", "distilled solver", "s4s"))

    @classmethod
    def validate_inputs(cls, preset):
        return parts.unknown(preset, parts.AUTO) or True

    @classmethod
    def fingerprint_inputs(cls, preset, **_):
        return parts.mark(preset)

    @classmethod
    def execute(cls, preset, calls, denoise, strict, model=None) -> io.NodeOutput:
        named = None if preset == parts.AUTO else presets().get(preset)
        seen = parts.facts_for(named, model)
        sigmas, selection = parts.plan(named, seen, calls, denoise, strict)
        _tell_levels(selection, seen, sigmas)
        used = named
        if used is None:
            chosen = selection or parts.plan(None, seen, calls, 1.0)[1]
            used = chosen.preset or chosen.about
            if used is None:
                raise ValueError(f"{chosen.why}: train one with S4S Train Preset, or choose a preset by name")
        cfg, cfg_text = parts.cfg_of(used)
        words = "denoise 0: nothing is sampled" if selection is None else selection.message()
        text = "\n".join(filter(None, [words, cfg_text, str(used.training.get("note", ""))]))
        pictures = parts.image(parts.drawn(used, selection))
        # auto leaves the choice to the run: it sees the cfg and the size, and chooses by the same rules
        sampler = comfy.samplers.KSAMPLER(sample_s4s, {"preset": named, "strict": strict})
        return io.NodeOutput(used, sampler, sigmas, max(len(sigmas) - 1, 0), cfg, text, pictures,
                             ui=parts.node_ui(cls, text, pictures))


class S4SUsePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SUsePreset", inputs=[
            io.Model.Input("model"), parts.combo(), io.Boolean.Input("strict", default=False),
            io.Combo.Input("unmatched", options=[*UNMATCHED], default=CLASSICAL, optional=True),
            parts.PresetType.Input("other", optional=True),
        ], outputs=[io.Model], aliases=("pin", "choose preset", "which solver", "s4s"))

    @classmethod
    def validate_inputs(cls, preset, other=NOT_LINKED):
        return other is not NOT_LINKED or parts.unknown(preset) or True

    @classmethod
    def fingerprint_inputs(cls, preset, other=NOT_LINKED, **_):
        return parts.mark(preset) if other is NOT_LINKED else ""

    @classmethod
    def execute(cls, model, preset, strict, unmatched=None, other=None) -> io.NodeOutput:
        other = other or presets().get(preset)
        if unmatched != CLASSICAL:
            parts.facts_for(other, model)           # refuses what does not suit
        return io.NodeOutput(pin(model, other, strict, unmatched))


class S4SSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SSampler", inputs=[
            parts.PresetType.Input("preset"),
            io.Combo.Input("unmatched", options=[*UNMATCHED], default=CLASSICAL),
        ], outputs=[io.Sampler], aliases=("solver", "learned sampler", "s4s"))

    @classmethod
    def execute(cls, preset, unmatched) -> io.NodeOutput:
        refused = {"strict": unmatched == ERROR, "unmatched": unmatched}
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_s4s, {"preset": preset, **refused}))


class S4SSigmas(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(node_id="S4SSigmas", inputs=[
            parts.PresetType.Input("preset"), *parts.calls_and_denoise(), io.Model.Input("model", optional=True),
        ], outputs=[io.Sigmas], aliases=("schedule", "scheduler", "timesteps", "s4s"))

    @classmethod
    def execute(cls, preset, calls, denoise, model=None) -> io.NodeOutput:
        seen = parts.facts_for(preset, model)
        sigmas, selection = parts.plan(preset, seen, calls, denoise)
        _tell_levels(selection, seen, sigmas)
        return io.NodeOutput(sigmas)


class S4SSchedulerFunc(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(
            node_id="S4SSchedulerFunc", inputs=[parts.PresetType.Input("preset")],
            outputs=[SchedulerFunc], aliases=("impact pack", "detailer", "inspire pack", "schedule", "s4s"))

    @classmethod
    def execute(cls, preset) -> io.NodeOutput:
        def levels(model, sampler_name, steps):
            seen = parts.facts_for(preset, model)
            selection = select(Request(seen, steps=steps, named=preset))
            if sampler_name != record.KEY:
                record.tell_schedule(selection, seen, selection.schedule, {sampler_name})
            return torch.tensor(selection.schedule, dtype=torch.float32)
        return io.NodeOutput(levels)


class S4SImageInfo(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return parts.Schema(
            node_id="S4SImageInfo", inputs=[io.Image.Input("images")],
            outputs=[io.Image, io.String], aliases=("metadata", "which solver", "s4s"),
            hidden=[io.Hidden.extra_pnginfo])

    @classmethod
    def execute(cls, images) -> io.NodeOutput:
        notes = (cls.hidden.extra_pnginfo or {}).get(record.KEY) or []
        text = "\n".join(note["text"] for note in notes) or (
            "no S4S sampler ran for this image: another sampler made it, or its result was reused")
        return io.NodeOutput(images, text, ui=parts.node_ui(cls, text))


def _tell_levels(selection, seen, sigmas) -> None:
    """Tell of levels that a node gives to other samplers than ours."""
    notes, node = record.running()
    samplers = graph.samplers_behind(notes.prompt, node)
    if selection is not None and samplers - {record.KEY}:
        record.tell_schedule(selection, seen, sigmas, samplers)


NODES = [S4SPreset, S4SUsePreset, S4SSampler, S4SSigmas, S4SSchedulerFunc, S4SImageInfo]
