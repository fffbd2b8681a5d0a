"""The nodes that train a preset for their MODEL exactly as it is, with LoRAs, quantization and patches, or race one."""

from collections import Counter
from collections.abc import Iterable
from functools import partial

import comfy.samplers
import torch
from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ....training.baselines.measure import Entry
from ....training.benchmark.host_race import Terms
from ....training.checks import check_two_models
from ....training.config import BUDGETS, Config
from ....training.source import Source
from ... import picture
from ...core.lists import numbers
from ...library import file_in, tables_of
from ...select.cfg import cfg_nodes, middle_node
from .. import samplers as host_samplers, session
from ..runs import check_places
from . import parts, record
from .denoiser import Scene, teacher_of
from .folder import home
from .work import Node, runs, settings_of

MODES = ("auto", "forward-only")                            # both are the same; kept for saved graphs
# older hosts do not know it: there web/s4s.js sets it on a new node, and saved workflows still fit
FIXED = getattr(getattr(io, "ControlAfterGenerate", None), "fixed", True)
ESTIMATE = "only estimate"
CHECKED = ("calls", "windows", "budget", "teacher_calls", "name", "seed", "cfg")       # before anything runs
MORE_PROMPTS = ("positive_2", "positive_3", "positive_4")
MORE_LATENTS = ("latent_2", "latent_3")
SAVED: dict = {}            # the file of each name's last training since the host's start
DELETED: Counter = Counter()


def scene_inputs(cfg: io.Input) -> tuple[list, list]:
    """(required, optional) inputs of what is sampled, for a node that would train or race."""
    required = [io.Model.Input("model"), io.Conditioning.Input("positive"), io.Latent.Input("latent"), cfg]
    optional = [io.Conditioning.Input(name, optional=True) for name in ("negative", *MORE_PROMPTS)]
    return required, [*optional, io.Vae.Input("vae", optional=True)]


def second_model_inputs() -> list:
    """The inputs for a second model: an expert, or the teacher. They come last, so saved values keep their places."""
    return [
        io.Model.Input("low_noise_model", optional=True),
        io.Float.Input("boundary", default=0.875, min=0.0, max=1.0, step=0.001, round=0.0001, optional=True),
        io.Float.Input("low_noise_cfg", default=0.0, min=0.0, max=100.0, step=0.1, round=0.01, optional=True),
        io.Model.Input("teacher_model", optional=True),
        io.Float.Input("teacher_cfg", default=5.0, min=0.0, max=100.0, step=0.1, round=0.01, optional=True),
    ]


def scene_of(model, positive, latent, cfg, negative=None, low_noise_model=None, boundary=0.875, low_noise_cfg=0.0,
             teacher_model=None, teacher_cfg=5.0, **more) -> Scene:
    """The Scene of a node's inputs. Raises ValueError as Scene."""
    prompts = [positive, *(more[name] for name in MORE_PROMPTS if more.get(name) is not None)]
    sizes = tuple(more[name] for name in MORE_LATENTS if more.get(name) is not None)
    low = None if low_noise_model is None else Scene(low_noise_model, prompts, negative, low_noise_cfg or cfg, latent)
    teacher = None if teacher_model is None else Scene(teacher_model, prompts, negative, teacher_cfg, latent)
    return Scene(model, prompts, negative, cfg, latent, low, boundary, sizes, teacher)


class S4STrainPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs, optional = scene_inputs(io.MultiType.Input(io.String.Input("cfg", default="5"), [io.Float]))
        return parts.Schema(node_id="S4STrainPreset", inputs=[
            *inputs, io.String.Input("calls", default="6"), io.String.Input("windows", default="1.0"),
            io.Combo.Input("mode", options=[*MODES], default="auto"),
            io.Combo.Input("budget", options=[*BUDGETS, ESTIMATE], default="normal"),
            io.Int.Input("teacher_calls", default=32, min=4, max=1000),
            io.Int.Input("race_seeds", default=8, min=2, max=1024), io.String.Input("name", default="my-preset"),
            io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=FIXED),
            io.Boolean.Input("resume", default=True), io.Sampler.Input("teacher_sampler", optional=True),
            io.Sigmas.Input("teacher_sigmas", optional=True), *optional,
            *second_model_inputs(), *(io.Latent.Input(name, optional=True) for name in MORE_LATENTS),
        ], outputs=[parts.PresetType, io.String, io.Image, io.Image, io.Image],
            aliases=("S4S", "distill", "few steps", "train sampler", "learned sampler", "fast sampling"),
            hidden=[io.Hidden.unique_id], is_output_node=True)

    @classmethod
    def validate_inputs(cls, calls):
        try:
            typed = {"calls": calls, **record.typed_inputs(cls)}
            if typed.get("cfg_range"):
                raise ValueError("cfg_range was removed: write the range into cfg")
            check_places(_config(**{key: typed[key] for key in CHECKED if key in typed}).name, home(), runs())
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, name="", **_):
        """How often the file saved under this name was deleted since, so that the host runs the node again."""
        if name in SAVED and not SAVED[name].exists():
            del SAVED[name]
            DELETED[name] += 1
        return DELETED[name]

    @classmethod
    def execute(cls, cfg, calls, windows, mode, budget, teacher_calls, race_seeds, name, seed, resume,
                teacher_sampler=None, teacher_sigmas=None, vae=None, **scene) -> io.NodeOutput:
        config = _config(calls=calls, windows=windows, budget=budget, teacher_calls=teacher_calls, name=name, seed=seed,
                         cfg=cfg)
        node = Node(scene_of(cfg=middle_node(cfg_nodes(cfg)), **scene))
        teacher = _teacher(node.scene, teacher_sampler, teacher_sigmas)
        if node.scene.low_noise is not None:
            check_two_models(config, node.scene.boundary)
        order = session.TrainingOrder(config, settings_of(node.scene, teacher), len(node.scene.positives),
                              teacher and (lambda source: teacher_of(source, *teacher)), race_seeds, resume)
        if budget == ESTIMATE:
            session.forecast(node, order)
            report = "\n".join(node.said)
            nothing = ExecutionBlocker(None)            # nodes on the outputs do not run, without an error
            return io.NodeOutput(nothing, report, nothing, nothing, nothing, ui=parts.node_ui(cls, report))
        outcome = session.train(node, order)
        SAVED[name] = file_in(home(), outcome.preset.name)
        tables = parts.image(*(picture.table(outcome.preset, table) for table in outcome.preset.tables))
        sheet, shown = node.end(cls, outcome, vae)
        return io.NodeOutput(outcome.preset, outcome.report, tables, sheet, node.before_after(), ui=shown)


def _config(calls="6", windows="1", budget="normal", name="", cfg="5", **more) -> Config:
    """The settings of a training, as entered on the node. Raises ValueError for settings that cannot work."""
    if len(scales := cfg_nodes(cfg)) > 1:                           # one: the scene's
        more["cfg"] = scales
    return Config.of(calls=numbers(calls, int, "calls"), windows=numbers(windows, float, "windows"),
                     budget="normal" if budget == ESTIMATE else budget, name=str(name).strip(), **more)


def _teacher(scene: Scene, sampler, sigmas) -> tuple | None:
    """(SAMPLER, SIGMAS) of a teacher, or None. Raises ValueError if one is missing, or the scene takes none."""
    if sampler is None and sigmas is None:
        return None
    if sampler is None or sigmas is None:
        raise ValueError("a teacher needs both teacher_sampler and teacher_sigmas: connect the other one too, or "
                         "neither for the default teacher")
    if scene.low_noise is not None or scene.more_latents:
        raise ValueError(f"a training for {'several sizes' if scene.more_latents else 'two models'} uses its own "
                         "teacher: leave teacher_sampler and teacher_sigmas unconnected")
    return sampler, sigmas


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
    """ComfyUI's own samplers by name, as KSampler would run them on its schedulers; as `host_samplers.entries`."""
    levels = partial(comfy.samplers.calculate_sigmas, source.network.guider.inner_model.model_sampling)
    discarding = comfy.samplers.KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS

    def sampler(name: str) -> host_samplers.Sampler:
        function, _ = teacher_of(source, comfy.samplers.sampler_object(name), torch.tensor([source.sigma_max, 0.0]))
        return host_samplers.Sampler(function, levels, name in discarding)
    known, schedulers = ([name for name in names if not name.startswith("s4s")]
                         for names in (comfy.samplers.SAMPLER_NAMES, comfy.samplers.SCHEDULER_NAMES))
    return host_samplers.entries(names, known, sampler, "ComfyUI", source, counts, schedulers)


NODES = [S4STrainPreset, S4SRace]
