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


class S4SRace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs, optional = scene_inputs(io.Float.Input("cfg", default=5.0, min=0.0, max=100.0, step=0.1, round=0.01))
        return parts.Schema(node_id="S4SRace", inputs=[
            *inputs, parts.PresetType.Input("preset"), io.String.Input("calls", default=""),
            io.Int.Input("seeds", default=16, min=2, max=4096),
            io.Int.Input("seed", default=0, min=0, max=0xFFFFFF, control_after_generate=FIXED),
            io.String.Input("samplers", default=""),
            io.Int.Input("budget", default=20000, min=0, max=10_000_000, step=500),
            io.Int.Input("teacher_calls", default=50, min=4, max=1000),
            io.Boolean.Input("write_scores", default=False), *optional, *second_model_inputs(),
        ], outputs=[parts.PresetType, io.String, io.Image],
            aliases=("S4S", "compare samplers", "benchmark", "evaluate preset"), is_output_node=True)

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
        own = tuple(each for each in str(samplers).replace(",", " ").split() if not each.isdigit())     # 0.4: a number
        if own and scene.get("low_noise_model") is not None:
            raise ValueError("ComfyUI's own samplers keep their history where the models change: leave samplers empty "
                             "to race a preset for two models")
        terms = Terms(tuple(tables), range(seed, seed + seeds), budget, teacher_calls,
                      partial(entries, own) if own else None)
        node = Node(scene_of(cfg=cfg, **scene))
        outcome = session.race(node, preset, terms, write_scores)
        sheet, ui = node.end(cls, outcome, vae)
        return io.NodeOutput(outcome.preset, outcome.report, sheet, ui=ui)


def entries(names: tuple, source: Source, counts: Iterable[int]) -> tuple[dict[int, list[Entry]], list[str]]:
    """ComfyUI's own samplers by name, as KSampler would run them on its schedulers; as `samplers.entries`."""
    levels = partial(comfy.samplers.calculate_sigmas, source.network.guider.inner_model.model_sampling)

    def sampler(name: str) -> samplers.Sampler:
        function, _ = teacher_of(source, comfy.samplers.sampler_object(name), torch.tensor([source.sigma_max, 0.0]))
        return samplers.Sampler(function, levels, name in comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS)
    known, schedulers = ([name for name in names if not name.startswith("s4s")]
                         for names in (comfy.samplers.SAMPLER_NAMES, comfy.samplers.SCHEDULER_NAMES))
    return samplers.entries(names, known, sampler, "ComfyUI", source, counts, schedulers)


NODES = [S4SRace]
