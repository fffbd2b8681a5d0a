"""The configuration of a run: one frozen page; its words are the command line's help."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields

from ..s4s_nodes.core import names
from ..s4s_nodes.select.cfg import cfg_nodes
from .checkpoints.loras import Lora
from .optimizers.objective import NAMES as OBJECTIVES
from .parametrization.families import FAMILIES, check_base, usual_base
from .parametrization.parameters import LEARN

MOST_CALLS = 50        # a learned table pays off below about 12 calls; 50 rows back-propagated already take hours

BUDGETS = {"quick": 3_000, "normal": 10_000, "thorough": 40_000}        # network calls per table, by name
MODES = {"gradient": 400, "forward": 0}         # and the iterations each takes by default; 0: what the budget allows
PREDICTIONS, DTYPES = ("auto", "eps", "v", "v_zsnr"), ("auto", "fp32", "fp16", "bf16")
CHECKPOINT_SETTINGS = ("checkpoint", "prompts", "negative", "width", "height", "dtype", "config", "text_encoders",
                       "vae", "prediction", "shift", "guidance", "lora")    # how a checkpoint is opened

# options until version 0.4, and what runs may carry of them: the default
REMOVED = {"clock": "host", "form": "data", "restrict": "none", "initial": "solver"}


def calls_of_budget(budget) -> int:
    """Network calls of a budget given by name or number. Raises ValueError for anything else."""
    try:
        return BUDGETS[budget] if budget in BUDGETS else int(budget)
    except (TypeError, ValueError):
        raise ValueError(f"budget {budget!r}: use {', '.join(BUDGETS)}, or a number of network calls") from None


def _set(default, words: str):
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Config:
    """Every setting of `s4s train`. Raises ValueError for a value that cannot work."""

    name: str = _set("my-preset", "name of the preset")
    model: str = _set("digits-eps", "what is distilled: digits-eps or digits-flow")
    checkpoint: str = _set("", "a checkpoint in its place: a .safetensors file, or a folder in diffusers' "
                               "layout")
    prompts: str = _set("", "of a checkpoint: a text file, one prompt per line; seeds take turns")
    negative: str = _set("", "its negative prompt, for a cfg above 1")
    width: int = _set(0, "its pictures' width in pixels; 0: what it was made for")
    height: int = _set(0, "their height; 0: as wide")
    dtype: str = _set("auto", "its precision: fp32, fp16, bf16; auto: half of a GPU's, full on a CPU")
    config: str = _set("", "a folder in diffusers' layout that says how it is built (weights not needed); else "
                           "diffusers' cache on this machine")
    text_encoders: str = _set("", "a folder with text encoders its file lacks: diffusers' layout, or clip_l, "
                                  "clip_g, t5xxl as hosts have them")
    vae: str = _set("", "the file of its autoencoder, where its own lacks one")
    prediction: str = _set("auto", "what it predicts, where its file does not say: eps, v, v_zsnr")
    shift: float = _set(0.0, "of a flow: the shift of its levels; 0: its own")
    guidance: float = _set(3.5, "what Flux dev is told of guidance, beside cfg 1")
    lora: tuple = _set((), "a LoRA it is used with, FILE or FILE:WEIGHT, added to its network and text encoders; once "
                           "for each")
    calls: tuple = _set((6,), "numbers of network calls to learn a table for, e.g. 4,5,6,8")
    windows: tuple = _set((1.0,), "denoise strengths to learn tables for; below 1 for img2img, e.g. 1,0.75,0.5,0.35")
    cfg: tuple = _set((3.0,), "guidance scale of teacher and student; a range, e.g. 3:7: tables at a few of them, "
                              "interpolated between; or a list of these, e.g. 3,5,7")
    teacher: str = _set("auto", "classical solver that makes the targets; auto: unipc_bh2_3")
    teacher_calls: int = _set(32, "its calls at first; doubled, up to 128, while its measured error is above a "
                                  "fifth of the student's")
    family: str = _set("lms", "lms: multistep; pc: predictor-corrector, no call more; ss: single-step, several calls "
                              "each")
    base: str = _set("auto", "classical solver the student starts from; auto: dpmpp_2m, for pc unipc_bh2_3, for ss "
                             "dpm_2, with order 3 dpmpp_3s")
    schedule: str = _set("auto", "schedule it starts on: one of the race's, log_snr, dmn, gits, or a preset's file, "
                                 "for its levels; auto: the best solver on the best schedule, by a short race")
    order: int = _set(0, "newest predictions a row may weigh freely, 0 means all (the paper: 3); of ss: calls a step")
    learn: str = _set("joint", "coefficients: weights only (S4S); schedule: noise levels and those told to the network "
                               "(LD3); joint: both; alternate: both in turn (S4S-Alt); generalized: each row's "
                               "carry, too (BNS, GS)")
    rounds: int = _set(8, "of alternate: turns of schedule and coefficients each; with a budget, a step each while it "
                          "lasts")
    pairs: int = _set(256, "cached teacher pairs to learn from")
    fresh: bool = _set(False, "gradient mode: new noise in every iteration, taught there and then, in place of pairs")
    validation: int = _set(64, "held-out pairs that choose the best state")
    batch: int = _set(16, "pairs per iteration")
    mode: str = _set("auto", "forward: Gauss-Newton, no backward pass; gradient: Adam through the sampler; auto: "
                             "forward, unless another setting needs gradients")
    budget: int = _set(10_000, "most network calls per table, its share of the teacher's included: quick "
                               "(3,000), normal (10,000), thorough (40,000), or a number; 0: no limit")
    iterations: int = _set(0, "optimizer steps per table; 0: 400 in gradient mode, else as many as the budget allows")
    rate: float = _set(0.03, "Adam's learning rate at its height, cosine to 1 % of it")
    average: float = _set(0.97, "decay of the moving average that is validated and kept")
    clip: float = _set(1.0, "largest gradient norm")
    seed: int = _set(0, "first seed: training, validation and test seeds follow from it")
    objective: str = _set("rmse", "distance to the target, the mean over images: rmse, mse, l1, pseudo_huber, or lpips "
                                  "(of decoded images); forward mode lowers rmse only")
    relaxed: float = _set(0.0, "gradient mode: how far a pair's start may move to meet its target, in units of LD3's "
                               "radius; 0: not at all")
    every: int = _set(20, "gradient mode: iterations between validations, each followed by a save")
    device: str = _set("auto", "cpu, cuda, mps, or auto")

    def __post_init__(self):
        object.__setattr__(self, "budget", calls_of_budget(self.budget))
        object.__setattr__(self, "calls", tuple(int(c) for c in self.calls))
        object.__setattr__(self, "windows", tuple(float(w) for w in self.windows))
        object.__setattr__(self, "lora", tuple(str(words) for words in self.lora))
        object.__setattr__(self, "cfg", cfg_nodes(self.cfg))
        for name, words in (("mode", (*MODES, "auto")), ("learn", LEARN), ("objective", OBJECTIVES),
                            ("family", FAMILIES), ("prediction", PREDICTIONS), ("dtype", DTYPES)):
            if getattr(self, name) not in words:
                raise ValueError(f"{name} {getattr(self, name)!r}: use one of {', '.join(words)}")
        if self.base == "auto":
            object.__setattr__(self, "base", usual_base(self.family, self.order))
        check_base(self.family, self.base, self.order)
        if self.iterations == 0 and self.budget == 0 and self.mode in MODES:
            object.__setattr__(self, "iterations", MODES[self.mode])
        for name in ("teacher_calls", "pairs", "validation", "batch", "every", "rounds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: at least 1 is wanted")
        for name in ("budget", "iterations", "order", "width", "height", "shift"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: 0 or more is wanted")
        if not 0 <= self.relaxed < math.inf:
            raise ValueError(f"relaxed is {self.relaxed}: 0 (off) or a multiple of LD3's radius is wanted, e.g. 1")
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}: a decay from 0 up to, but not, 1 is wanted")
        if self.relaxed and self.fresh:
            raise ValueError("--relaxed moves the starts of cached pairs, and --fresh has none: use one of them")
        if self.mode == "forward" and self.gradient_only:
            raise ValueError(f"{' and '.join(self.gradient_only)}: only gradient mode can do that: use --mode "
                             "gradient, or leave it out (forward mode lowers the RMSE to cached pairs)")
        if self.rate <= 0 or self.clip <= 0:
            raise ValueError(f"rate {self.rate} and clip {self.clip} must be above 0")
        if bool(self.checkpoint) != bool(self.prompts):
            raise ValueError("--checkpoint and --prompts go together: a checkpoint is learned on prompts, and the "
                             "bundled models have none")
        if self.loras and not self.checkpoint:
            raise ValueError("--lora changes a checkpoint's weights: name one with --checkpoint")
        self._check_tables()

    @property
    def loras(self) -> list[Lora]:
        """The checkpoint's LoRAs. Raises ValueError for a weight that is no number."""
        return [Lora.of(words) for words in self.lora]

    @property
    def gradient_only(self) -> list[str]:
        """The settings that gradient mode alone honours, as they would be typed."""
        asked = {f"--objective {self.objective}": self.objective != "rmse", "--relaxed": self.relaxed > 0,
                 "--fresh": self.fresh}
        return [words for words, given in asked.items() if given]

    @property
    def first_mode(self) -> str:
        """The mode that auto is planned for before a test backward pass settles it."""
        return self.mode if self.mode != "auto" else "gradient" if self.gradient_only else "forward"

    def _check_tables(self) -> None:
        names.preset_name(self.name)                    # the name of a file, too: before anything is learned
        if not self.calls:
            raise ValueError("calls is empty: name at least one number of network calls, e.g. --calls 6")
        for calls in self.calls:
            if not 1 <= calls <= MOST_CALLS:
                raise ValueError(f"{calls} calls asked for: a learned table has 1 to {MOST_CALLS} (they pay off "
                                 "below about 12; above that use a classical solver)")
        for what in (self.calls, self.windows, self.lora):
            if len(set(what)) < len(what):
                raise ValueError(f"{what} names one of them twice")
        if 1.0 not in self.windows or not all(0 < window <= 1 for window in self.windows):
            raise ValueError(f"windows {self.windows}: denoise strengths above 0 and up to 1 are wanted, 1 among them "
                             "(the others start on the levels it learns)")

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Config:
        """Raises ValueError for unknown settings."""
        content = json.loads(text)
        if content.get("learn") == ["sigmas", "query", "weights"]:          # as version 0.2.0 wrote the default
            content["learn"] = "joint"
        content.pop("starts", None)                                         # a setting until version 0.4
        for name, usual in REMOVED.items():
            if (value := content.pop(name, usual)) != usual:
                raise ValueError(f"the run used {name} {value!r}, an option of version 0.4 that is gone: start a new "
                                 "run in another folder")
        if unknown := set(content) - {f.name for f in fields(cls)}:
            raise ValueError(f"unknown settings {', '.join(sorted(unknown))}: was this run made by a newer version?")
        return cls(**content)


def help_texts() -> dict[str, str]:
    """What each setting means, by name."""
    return {f.name: f.metadata["help"] for f in fields(Config)}
