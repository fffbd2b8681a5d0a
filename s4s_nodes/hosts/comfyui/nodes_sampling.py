"""The nodes that put a preset into a graph: SAMPLER, SIGMAS, SCHEDULER_FUNC, and what was used."""

import comfy.samplers
import torch
from comfy_api.latest import io

from ...library import Request, schedule
from . import facts, parts, record
from .sampler import pin, sample_s4s

NOT_LINKED = "not linked"           # before a prompt runs the host gives None for what a node will give
SchedulerFunc = io.Custom("SCHEDULER_FUNC")         # Impact Pack's and Inspire Pack's: (model, sampler name, steps)


class S4SPreset(io.ComfyNode):
    """Everything a custom-sampling graph needs from one preset."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="S4SPreset", display_name="S4S Preset", category=parts.CATEGORY,
            description="Picks an installed preset, by name or the connected model's own, and gives its sampler "
                        "and noise levels to SamplerCustom or SamplerCustomAdvanced.",
            inputs=[
                parts.combo("A preset from models/s4s_presets or one that ships with S4S; auto takes the one that "
                            "was learned on the connected model.", parts.AUTO),
                parts.calls_input(), parts.denoise_input(),
                io.Boolean.Input("strict", default=False,
                                 tooltip="Refuse to sample where the preset was learned on another model, or has no "
                                         "table for what is asked, instead of running a fallback and saying so."),
                io.Model.Input("model", optional=True,
                               tooltip="The model that will be sampled. Needed for auto; otherwise it is checked "
                                       "against the preset.")],
            outputs=[
                parts.PresetType.Output(display_name="preset", tooltip="The preset, for the other S4S nodes."),
                io.Sampler.Output(display_name="sampler", tooltip="The preset as a sampler for custom sampling."),
                io.Sigmas.Output(display_name="sigmas", tooltip="The noise levels the preset was learned on."),
                io.Int.Output(display_name="calls", tooltip="How many network calls that is: the number of levels less "
                                                            "one."),
                io.Float.Output(display_name="cfg", tooltip="The guidance scale the preset was learned at; 1 where it "
                                                            "does not say (the text tells)."),
                io.String.Output(display_name="text", tooltip="What is used and why, in words."),
                io.Image.Output(display_name="picture", tooltip="The table: its noise levels, its coefficients and "
                                                                "its scores.")],
            **parts.aliases("solver", "few steps", "learned sampler", "distilled solver", "s4s"))

    @classmethod
    def validate_inputs(cls, preset):
        return parts.unknown(preset, parts.AUTO) or True

    @classmethod
    def fingerprint_inputs(cls, preset, **_):
        return parts.mark(preset)

    @classmethod
    def execute(cls, preset, calls, denoise, strict, model=None) -> io.NodeOutput:
        named = parts.preset_named(preset, model)
        seen = parts.facts_for(named, model)
        sigmas, selection = parts.plan(named, seen, calls, denoise, strict)
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
                             ui=parts.shown(cls, text, pictures))


class S4SUsePreset(io.ComfyNode):
    """A preset for a model, in a graph with a plain KSampler."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="S4SUsePreset", display_name="S4S Use Preset", category=parts.CATEGORY,
            description="Makes the sampler and the scheduler s4s of every KSampler on this model use one preset. Put "
                        "it between the model's loader and the KSampler.",
            inputs=[
                io.Model.Input("model", tooltip="The model as it will be sampled, with its LoRAs and patches."),
                parts.combo("The preset to use, even one for another model: a warning then says so."),
                io.Boolean.Input("strict", default=False,
                                 tooltip="Refuse to sample where the preset was learned on another model, or has no "
                                         "table for what is asked, instead of running it or a classical solver."),
                parts.PresetType.Input("other", optional=True,
                                       tooltip="A preset from a node, such as S4S Preset from Image, to use instead of "
                                               "the one chosen above.")],
            outputs=[io.Model.Output(display_name="model", tooltip="The same model, which carries the preset.")],
            **parts.aliases("pin", "choose preset", "which solver", "s4s"))

    @classmethod
    def validate_inputs(cls, preset, other=NOT_LINKED):
        return other is not NOT_LINKED or parts.unknown(preset) or True

    @classmethod
    def fingerprint_inputs(cls, preset, other=NOT_LINKED, **_):
        return parts.mark(preset) if other is NOT_LINKED else ""

    @classmethod
    def execute(cls, model, preset, strict, other=None) -> io.NodeOutput:
        if other is None:
            other = parts.preset_named(preset, model)
        else:
            parts.check_suits(other, facts.of_model(model))
        return io.NodeOutput(pin(model, other, strict))


class S4SSampler(io.ComfyNode):
    """A preset as a SAMPLER."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="S4SSampler", display_name="S4S Sampler from Preset", category=parts.CATEGORY,
            description="A SAMPLER that runs this preset's table for the levels it is given. Pair it with S4S Sigmas.",
            inputs=[
                parts.preset_input("The preset to sample with."),
                io.Combo.Input("unmatched", options=["classical solver", "error"], default="classical solver",
                               tooltip="What to do on levels the preset has no table for: run a classical solver and "
                                       "say so in the log, on the node and in the image's metadata, or stop.")],
            outputs=[io.Sampler.Output(display_name="sampler", tooltip="For SamplerCustom and "
                                                                       "SamplerCustomAdvanced.")],
            **parts.aliases("solver", "learned sampler", "s4s"))

    @classmethod
    def execute(cls, preset, unmatched) -> io.NodeOutput:
        return io.NodeOutput(comfy.samplers.KSAMPLER(sample_s4s, {"preset": preset, "strict": unmatched == "error"}))


class S4SSigmas(io.ComfyNode):
    """A preset's noise levels."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="S4SSigmas", display_name="S4S Sigmas", category=parts.CATEGORY,
            description="The noise levels a preset was learned on, for any sampler.",
            inputs=[
                parts.preset_input("The preset whose levels to use."), parts.calls_input(), parts.denoise_input(),
                io.Model.Input("model", optional=True, tooltip="The model that will be sampled, to check that the "
                                                               "preset suits it.")],
            outputs=[io.Sigmas.Output(display_name="sigmas", tooltip="Falling noise levels, one more than calls.")],
            **parts.aliases("schedule", "scheduler", "timesteps", "s4s"))

    @classmethod
    def execute(cls, preset, calls, denoise, model=None) -> io.NodeOutput:
        seen = parts.facts_for(preset, model)
        parts.check_suits(preset, seen)
        return io.NodeOutput(parts.plan(preset, seen, calls, denoise)[0])


class S4SSchedulerFunc(io.ComfyNode):
    """A preset's schedule as other packs take one."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="S4SSchedulerFunc", display_name="S4S Scheduler Function", category=parts.CATEGORY,
            description="A preset's noise levels as a SCHEDULER_FUNC, for the detailer and sampler nodes of Impact "
                        "Pack, Inspire Pack and others that copied the scheduler list before S4S was loaded.",
            inputs=[parts.preset_input("The preset whose levels to use.")],
            outputs=[SchedulerFunc.Output(display_name="scheduler_func", tooltip="Connect to scheduler_func_opt; "
                                                                                 "choose the sampler s4s beside it.")],
            **parts.aliases("impact pack", "detailer", "inspire pack", "schedule", "s4s"))

    @classmethod
    def execute(cls, preset) -> io.NodeOutput:
        def levels(model, sampler_name, steps):
            seen = facts.of_model(model)
            parts.check_suits(preset, seen)
            return torch.tensor(schedule(Request(seen, steps=steps, named=preset)), dtype=torch.float32)
        return io.NodeOutput(levels)


class S4SImageInfo(io.ComfyNode):
    """What the S4S samplers of this run used, as text beside the image."""

    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="S4SImageInfo", display_name="S4S Image Info", category=parts.CATEGORY,
            description="Passes images on and tells which presets and tables sampled them, and every fallback. The "
                        "same is written into the metadata of saved images under the key s4s, with or without this "
                        "node.",
            inputs=[io.Image.Input("images", tooltip="The decoded images, on their way to Save Image.")],
            outputs=[io.Image.Output(display_name="images", tooltip="The same images."),
                     io.String.Output(display_name="text", tooltip="One line for each sampler that ran.")],
            hidden=[io.Hidden.extra_pnginfo],
            **parts.aliases("metadata", "which solver", "s4s"))

    @classmethod
    def execute(cls, images) -> io.NodeOutput:
        notes = (cls.hidden.extra_pnginfo or {}).get(record.KEY) or []
        text = "\n".join(note["text"] for note in notes) or (
            "no S4S sampler ran for this image: it was made by another one, or its result was reused from before")
        return io.NodeOutput(images, text, ui=parts.shown(cls, text))


NODES = [S4SPreset, S4SUsePreset, S4SSampler, S4SSigmas, S4SSchedulerFunc, S4SImageInfo]
