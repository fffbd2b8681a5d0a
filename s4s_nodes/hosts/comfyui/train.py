"""The node that trains a preset for the MODEL it is given, as it is: with its LoRAs, quantisation and patches."""

from collections import Counter

from comfy_api.latest import io
from comfy_execution.graph import ExecutionBlocker

from ....training.checks import check_two_models
from ....training.config import BUDGETS, Config
from ... import picture
from ...core.lists import numbers
from ...library import ENDING, file_name
from .. import session
from ..runs import check_places
from . import parts, record
from .denoiser import Scene, teacher_of
from .folder import home
from .work import Node, runs, settings_of

MODES = ("auto", "forward-only")                            # one and the same, kept for saved graphs
# an older host knows none: there web/s4s.js sets it on a new node, and saved workflows still fit its widgets
FIXED = getattr(getattr(io, "ControlAfterGenerate", None), "fixed", True)
ESTIMATE = "only estimate"
CHECKED = ("calls", "windows", "budget", "teacher_calls", "name", "seed", "cfg_range")       # before anything runs
MORE_PROMPTS = ("positive_2", "positive_3", "positive_4")
MORE_LATENTS = ("latent_2", "latent_3")
SAVED: dict = {}            # the file of each name's last training since the host's start
DELETED: Counter = Counter()


def scene_inputs(verb: str) -> tuple[list, list]:
    """(required, optional) inputs of what is sampled, for a node that would train or race."""
    required = [
        io.Model.Input("model", tooltip=f"The model to {verb} on, exactly as you sample it: LoRAs, quantisation, "
                                        "ModelSampling nodes and other patches in front. It is not changed."),
        io.Conditioning.Input("positive", tooltip="A prompt typical of what you make. More prompts make the result "
                                                  "more general: connect positive_2 to positive_4."),
        io.Latent.Input("latent", tooltip="The size of the images. Only the size counts, not the content."),
        io.Float.Input("cfg", default=5.0, min=0.0, max=100.0, step=0.1, round=0.01,
                       tooltip="The guidance you sample with. A preset is best at the cfg it was learned at."),
    ]
    optional = [
        io.Conditioning.Input("negative", optional=True,
                              tooltip="The negative prompt. May stay unconnected when cfg is 1."),
        *(io.Conditioning.Input(name, optional=True,
                                tooltip="One more prompt; each image is made for one of them. Conditioning (Combine) "
                                        "would mix them in every image instead.") for name in MORE_PROMPTS),
        io.Vae.Input("vae", optional=True,
                     tooltip="Decodes the pictures of the sheet. Unconnected: quick latent previews are shown."),
    ]
    return required, optional


def second_model_inputs() -> list:
    """Of two models that take turns. They stand last, so that saved values keep their places."""
    return [
        io.Model.Input("low_noise_model", optional=True,
                       tooltip="Of a model in two parts (Wan 2.2 14B): the low-noise expert, model being the "
                               "high-noise one. One preset is for both."),
        io.Float.Input("boundary", default=0.875, min=0.0, max=1.0, step=0.001, round=0.0001, optional=True,
                       tooltip="The noise level at which the low-noise expert takes over: for Wan 2.2 0.875 for text "
                               "to video, 0.9 for image to video. Not used without low_noise_model."),
        io.Float.Input("low_noise_cfg", default=0.0, min=0.0, max=100.0, step=0.1, round=0.01, optional=True,
                       tooltip="The cfg of the low-noise expert. 0: the same as cfg."),
    ]


def setting_inputs() -> list:
    """How to train."""
    return [
        io.String.Input("calls", default="6",
                        tooltip="For how many network calls (KSampler's steps) to learn a table. A list such as 4,5,6,"
                                "8 makes several in one preset."),
        io.String.Input("windows", default="1.0",
                        tooltip="Denoise strengths to learn tables for. 1.0 is text to image; add e.g. 0.75,0.5 for "
                                "image to image and hires fixes. Each is learned for every number of calls."),
        io.Combo.Input("mode", options=[*MODES], default="auto",
                       tooltip="Leave it as it is: both are the same. Training needs nothing but sampling, and works "
                               "with quantised, compiled and offloaded models. The mode gradient of version 0.4 is "
                               "gone: it learned less."),
        io.Combo.Input("budget", options=[*BUDGETS, ESTIMATE], default="normal",
                       tooltip="How long to train: quick 3,000, normal 10,000, thorough 40,000 network calls per table "
                               "at most, the teacher's share included. only estimate trains nothing and shows how long "
                               "each of them takes on this device."),
        io.Int.Input("teacher_calls", default=32, min=4, max=1000,
                     tooltip="Calls of the default teacher at first. They are doubled, up to 128, while its measured "
                             "error is too large. Not used when a teacher_sampler is connected."),
        io.Int.Input("race_seeds", default=8, min=2, max=1024,
                     tooltip="Unseen seeds of the race against the classical samplers at the end. 8 show a clear win; "
                             "more make the numbers firmer and take longer."),
        io.String.Input("name", default="my-preset",
                        tooltip="Name of the preset and of its file. Another preset of this name stays: then this one "
                                "is saved as my-preset-2."),
        io.Int.Input("seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=FIXED,
                     tooltip="First seed of the noises it learns from. The same seed and settings give the same "
                             "preset."),
        io.Boolean.Input("resume", default=True,
                         tooltip="Resume a run of the same settings that was stopped, whatever its seed (kept in "
                                 "output/s4s_runs). Off: start over."),
        io.Sampler.Input("teacher_sampler", optional=True,
                         tooltip="A deterministic SAMPLER whose results are to be reached, with teacher_sigmas. "
                                 "Unconnected: a third-order solver suited to the model."),
        io.Sigmas.Input("teacher_sigmas", optional=True,
                        tooltip="The SIGMAS of the teacher: many steps, denoise 1."),
    ]


def preset_outputs() -> list:
    return [
        parts.PresetType.Output(display_name="preset",
                                tooltip="The learned preset, already saved and in the dropdowns."),
        io.String.Output(display_name="report",
                         tooltip="What was learned, at which cost, and the race in numbers."),
        io.Image.Output(display_name="tables",
                        tooltip="Each table as a picture: its noise levels and coefficients."),
        io.Image.Output(display_name="sheet",
                        tooltip="Unseen seeds side by side: teacher, best classical sampler, S4S."),
        io.Image.Output(display_name="before_after",
                        tooltip="Pairs of images of one unseen seed and as many steps: the best classical sampler, "
                                "then S4S."),
    ]


def scene_of(model, positive, latent, cfg, negative=None, scales=(), low_noise_model=None, boundary=0.875,
             low_noise_cfg=0.0, **more) -> Scene:
    """The Scene of a node's inputs. Raises ValueError as Scene."""
    prompts = [positive, *(more[name] for name in MORE_PROMPTS if more.get(name) is not None)]
    sizes = tuple(more[name] for name in MORE_LATENTS if more.get(name) is not None)
    low = None if low_noise_model is None else Scene(low_noise_model, prompts, negative, low_noise_cfg or cfg, latent)
    return Scene(model, prompts, negative, cfg, latent, scales, low, boundary, sizes)


class S4STrainPreset(io.ComfyNode):
    """Learn a few-call solver for a model, race it, save it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        inputs, optional = scene_inputs("learn")
        return io.Schema(
            node_id="S4STrainPreset",
            display_name="S4S Train Preset",
            category=parts.CATEGORY,
            description="Learns a solver of a few network calls for this very MODEL: it compares what a few calls "
                        "make of a noise with what the same model makes of it in many, and turns the table of the "
                        "solver until they agree. The model itself is not changed. The preset is saved into "
                        "models/s4s_presets and can be used at once by sampler and scheduler s4s.",
            inputs=[
                *inputs,
                *setting_inputs(),
                *optional,
                io.String.Input("cfg_range", default="", optional=True,         # last: saved values keep their places
                                tooltip="Learn for a range of cfg, such as 3-7: tables at a few cfg of it, and those "
                                        "between are interpolated. It takes about 1.7 times as long. The race is at "
                                        "the learned cfg nearest to cfg. Empty: for cfg only."),
                *second_model_inputs(),
                *(io.Latent.Input(name, optional=True,
                                  tooltip="Another size of images to learn the same tables for. It takes no more "
                                          "network calls: the sizes take turns.") for name in MORE_LATENTS),
            ],
            outputs=preset_outputs(),
            hidden=[io.Hidden.unique_id],
            is_output_node=True,
            **parts.aliases("S4S", "distill", "few steps", "train sampler", "learned sampler", "fast sampling"),
        )

    @classmethod
    def validate_inputs(cls, calls):
        try:
            typed = {"calls": calls, **record.typed_inputs(cls)}
            name = _config(**{key: typed[key] for key in CHECKED if key in typed}).name
            check_places(home(), runs(), name)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, name="", **_):
        """How often what was saved by this name was deleted since: then the host runs the node again."""
        if name in SAVED and not SAVED[name].exists():
            del SAVED[name]
            DELETED[name] += 1
        return DELETED[name]

    @classmethod
    def execute(cls, cfg, calls, windows, mode, budget, teacher_calls, race_seeds, name, seed, resume,
                teacher_sampler=None, teacher_sigmas=None, vae=None, cfg_range="", **scene) -> io.NodeOutput:
        config = _config(calls=calls, windows=windows, budget=budget, teacher_calls=teacher_calls, name=name, seed=seed,
                         cfg_range=cfg_range)
        scales = config.cfg if cfg_range.strip() else (cfg,)
        nearest = min(scales, key=lambda scale: abs(scale - cfg))
        node = Node(scene_of(cfg=nearest, scales=scales, **scene))
        teacher = both_or_none(teacher_sampler, teacher_sigmas)
        if node.scene.low_noise is not None:
            check_two_models(config, node.scene.boundary)
            if teacher is not None:
                raise ValueError("a training for two models uses its own teacher: leave teacher_sampler and "
                                 "teacher_sigmas unconnected")
        if teacher is not None and node.scene.more_latents:
            raise ValueError("a training for several sizes uses its own teacher: leave teacher_sampler and "
                             "teacher_sigmas unconnected")
        order = session.TrainingOrder(config, settings_of(node.scene, teacher), len(node.scene.positives),
                              teacher and (lambda source: teacher_of(source, *teacher)), race_seeds, resume)
        if budget == ESTIMATE:
            session.forecast(node, order)
            report = "\n".join(node.said)
            nothing = ExecutionBlocker(None)            # what hangs on the outputs does not run, without an error
            return io.NodeOutput(nothing, report, nothing, nothing, nothing, ui=parts.shown(cls, report))
        outcome = session.train(node, order)
        SAVED[name] = home() / f"{file_name(outcome.preset.name)}{ENDING}"
        tables = parts.image(*(picture.table(outcome.preset, table) for table in outcome.preset.tables))
        sheet = node.end(outcome.report, outcome.pictures, vae)
        return io.NodeOutput(outcome.preset, outcome.report, tables, sheet, node.before_after(),
                             ui={**parts.shown(cls, outcome.report, sheet), **node.page(outcome)})


def _config(calls="6", windows="1", budget="normal", name="", cfg_range="", **more) -> Config:
    """The settings of a training as they are written on the node. Raises ValueError for what cannot work."""
    if str(cfg_range).strip():
        more["cfg"] = str(cfg_range)
    return Config.of(calls=numbers(calls, int, "calls"), windows=numbers(windows, float, "windows"),
                     budget="normal" if budget == ESTIMATE else budget, name=str(name).strip(), **more)


def both_or_none(sampler, sigmas) -> tuple | None:
    """(SAMPLER, SIGMAS) of a teacher, or None. Raises ValueError where one of them is missing."""
    if (sampler is None) != (sigmas is None):
        raise ValueError("a teacher needs both teacher_sampler and teacher_sigmas: connect the other one too, or "
                         "neither for the default teacher")
    return None if sampler is None else (sampler, sigmas)


NODES = [S4STrainPreset]
