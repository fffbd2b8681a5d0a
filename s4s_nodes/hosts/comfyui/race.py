"""The node that races a preset against the classical samplers on the MODEL it is given."""

from collections.abc import Iterable
from functools import partial

import comfy.samplers
import torch
from comfy_api.latest import io

from ....training.baselines.measure import Entry
from ....training.benchmark.host_race import Terms
from ....training.source import Source
from ...core.lists import numbers
from ...library import tables_of
from .. import samplers, session
from . import parts
from .denoiser import teacher_of
from .train import FIXED, scene_inputs, scene_of, second_model_inputs
from .work import Node

SAMPLERS = ("Samplers of ComfyUI that take part besides, by name, on all its schedulers, e.g. res_multistep, er_sde; "
            "or all. Stochastic ones and CFG++ are compared by the Fréchet distance only.")


class S4SRace(io.ComfyNode):
    """Equal calls, unseen seeds, your model: is the preset closer to many calls than the best classical sampler?"""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs, optional = scene_inputs("race")
        return io.Schema(
            node_id="S4SRace",
            display_name="S4S Race",
            category=parts.CATEGORY,
            description="Samples unseen seeds with a preset and with all classical samplers on all schedules, at the "
                        "same number of network calls, and measures how far each ends from what the model makes in "
                        "many calls.",
            inputs=[
                *inputs,
                parts.preset_input("The preset to race, from S4S Preset, S4S Load Preset or S4S Train Preset."),
                io.String.Input("calls", default="", tooltip="Only the tables with these numbers of calls, e.g. 5,6. "
                                                             "Empty: every table of the preset."),
                io.Int.Input("seeds", default=16, min=2, max=4096,
                             tooltip="How many images each makes. With fewer than about 12 no winner can be named."),
                io.Int.Input("seed", default=0, min=0, max=0xFFFFFF, control_after_generate=FIXED,
                             tooltip="First of the seeds, counted within the range that no training uses."),
                io.String.Input("samplers", default="", tooltip=SAMPLERS),
                io.Int.Input("budget", default=20000, min=0, max=10_000_000, step=500,
                             tooltip="Most network calls to spend. All classical samplers on all schedules take part "
                                     "in any case; a larger budget finds the best of them more surely. 0: no limit."),
                io.Int.Input("teacher_calls", default=50, min=4, max=1000,
                             tooltip="Network calls of the reference they are measured against, at first: doubled "
                                     "while its measured error is too large and the budget affords it."),
                io.Boolean.Input("write_scores", default=False,
                                 tooltip="Write the result into the preset's file in models/s4s_presets. A table "
                                         "that loses is no longer selected automatically at this cfg. Scores of other "
                                         "cfg, sizes and hosts stay."),
                *optional,
                *second_model_inputs(),
            ],
            outputs=[
                parts.PresetType.Output(display_name="preset", tooltip="The preset with its new scores."),
                io.String.Output(display_name="report", tooltip="The race in numbers, best first."),
                io.Image.Output(display_name="sheet",
                                tooltip="The same seeds by teacher, best classical sampler and preset."),
            ],
            is_output_node=True,
            **parts.aliases("S4S", "compare samplers", "benchmark", "evaluate preset"))

    @classmethod
    def validate_inputs(cls, calls=""):
        try:
            numbers(calls, int, "calls", wanted=False)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, preset, cfg, calls, seeds, seed, samplers, budget, teacher_calls, write_scores, vae=None,
                **scene) -> io.NodeOutput:
        tables = tables_of(preset, numbers(calls, int, "calls", wanted=False))
        own = sampler_names(samplers)
        if own and scene.get("low_noise_model") is not None:
            raise ValueError("ComfyUI's own samplers keep their history where the models change: leave samplers empty "
                             "to race a preset for two models")
        terms = Terms(tuple(tables), range(seed, seed + seeds), budget, teacher_calls,
                      partial(entries, own) if own else None)
        node = Node(scene_of(cfg=cfg, **scene))
        outcome = session.race(node, preset, terms, write_scores)
        sheet = node.end(outcome.report, outcome.pictures, vae)
        return io.NodeOutput(outcome.preset, outcome.report, sheet,
                             ui={**parts.shown(cls, outcome.report, sheet), **node.page(outcome)})


def sampler_names(samplers: str) -> tuple:
    """The names in a list; a graph of version 0.4 has a number here."""
    return tuple(name for name in str(samplers).replace(",", " ").split() if not name.isdigit())


def entries(names: tuple, source: Source, counts: Iterable[int]) -> tuple[dict[int, list[Entry]], list[str]]:
    """ComfyUI's own samplers by name, as KSampler would run them on its schedulers; as `samplers.entries`."""
    def made(name: str) -> samplers.Sampler:
        discards = name in getattr(comfy.samplers.KSampler, "DISCARD_PENULTIMATE_SIGMA_SAMPLERS", ())

        def levels(scheduler, steps):
            sampling = source.network.guider.inner_model.model_sampling
            sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps + discards)
            return torch.cat([sigmas[:-2], sigmas[-1:]]) if discards else sigmas
        function, _ = teacher_of(source, comfy.samplers.sampler_object(name), torch.tensor([source.sigma_max, 0.0]))
        return samplers.Sampler(function, levels)
    known, schedulers = ([name for name in names if not name.startswith("s4s")]
                         for names in (comfy.samplers.SAMPLER_NAMES, comfy.samplers.SCHEDULER_NAMES))
    return samplers.entries(names, known, made, "ComfyUI", source, counts, schedulers)


NODES = [S4SRace]
