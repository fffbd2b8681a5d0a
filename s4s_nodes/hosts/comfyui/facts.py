"""What ComfyUI shows of a model, as the library's ModelFacts: from a MODEL, a running sampler, or a schedule alone."""

import math
import sys
from dataclasses import replace
from itertools import islice
from traceback import walk_stack

import comfy.model_sampling
import comfy.samplers
import torch

from ...core.model import is_number
from ...library import ModelFacts, Request
from ...select.families import family_of
from ...select.match import HOOKS
from . import fingerprint

_CLASSES = (("x0", "IMG_TO_IMG_FLOW"), ("flow", "CONST"), ("x0", "X0"), ("x0", "COSMOS_RFLOW"), ("v", "V_PREDICTION"),
            ("v", "V_PREDICTION_DDPM"), ("eps", "EPS"))          # subclasses before their base classes
# classes of model_sampling for whose models no table can be learned
_UNFIT = {"IMG_TO_IMG": "this model turns one image into another and denoises nothing",
          "IMG_TO_IMG_FLOW": "this model turns one image into another and denoises nothing",
          "ModelSamplingAV": "this model's latent holds video and sound, and tables are learned for one of them"}
_NESTED = {"ltxav": _UNFIT["ModelSamplingAV"],          # model_sampling does not tell for these
           "triposplat": "this model's latent holds a shape and a camera, and tables are for one of them"}
# the host's classes that answer a sampler, and the methods that others override to answer in another way
ANSWERING = {comfy.samplers.CFGGuider: ("__call__", "outer_predict_noise", "predict_noise"),
             comfy.samplers.KSamplerX0Inpaint: ("__call__",)}
_CALLERS = 12               # how many callers to search for the MODEL: the host's own are 1 to 4 away


def of_schedule(sampling) -> ModelFacts:
    """All that a scheduler is shown: the model_sampling object. Raises ValueError for a prediction unknown here."""
    low, high = float(sampling.sigma_min), float(sampling.sigma_max)
    names = [parent.__name__ for parent in type(sampling).__mro__]
    prediction = next((prediction for prediction, name in _CLASSES          # older hosts lack some of these classes
                       if isinstance(sampling, getattr(comfy.model_sampling, name, ()))), "")
    if not prediction:
        raise ValueError(f"the model's sampling is a {' + '.join(names[1:3])}: S4S knows eps, v, flow and x0 "
                         "predictions; use another sampler for this model")
    return ModelFacts("unknown", prediction, low, high, bool(getattr(sampling, "zsnr", False)),
                      shift=_shift(sampling) if prediction == "flow" else None,
                      unfit=next((words for name, words in _UNFIT.items() if name in names), ""))


def _shift(sampling) -> float | None:
    """A flow's shift; Flux' sampling keeps its logarithm, mu."""
    shift = getattr(sampling, "shift", None)
    mu = shift is not None and isinstance(sampling, comfy.model_sampling.ModelSamplingFlux)
    return math.exp(shift) if mu else float(shift or 0) or None


def of_model(model) -> ModelFacts:
    """The facts of a MODEL (a model patcher) with its patches, such as those of a ModelSampling node."""
    return _of(model.model, model.get_model_object("model_sampling"), model)


def of_asking(sampling, steps: int) -> tuple[Request, object, str | None]:
    """(all that can be known where a scheduler is called, which is shown the model_sampling alone; the MODEL; a
    KSampler's sampler).

    Whoever calls it holds the MODEL: KSampler and BasicScheduler as `model`. It is looked up in the calling functions
    and believed only where its model_sampling is this very object. A KSampler's caller also has the cfg and the noise.
    """
    known: dict = {}
    for frame, _ in islice(walk_stack(sys._getframe(1)), _CALLERS):
        here = frame.f_locals
        asker = here.get("self")
        models = (here.get("model"), getattr(asker, "model", None))
        model = next((one for one in models if _samples_by(one, sampling)), None)
        if model is not None:
            start = here.get("start_step")  # steps that a KSamplerAdvanced skips, unless another sampler ran them
            more = {"patcher": model, "calls": _calls(asker, here.get("steps"), steps), "part": _part(here, steps),
                    "cfg": float(here["cfg"]) if is_number(here.get("cfg")) else None,
                    "left_out": start if isinstance(start, int) and not here.get("disable_noise") else None,
                    "size": size_of(here.get("noise")),
                    "sampler": asker.sampler if isinstance(asker, comfy.samplers.KSampler) else None}
            if isinstance(here.get("positive"), list) and isinstance(here.get("negative"), list):
                prompts = {name: conditions(here[name]) for name in ("positive", "negative")}
                told = {each["guidance"] for each in prompts["positive"] if is_number(each.get("guidance"))}
                more |= {"guidance": tuple(sorted(told)), "around": fingerprint.of_hooks(prompts)}
            known = {**{name: value for name, value in more.items() if value is not None}, **known}
    model, sampler, left_out = known.pop("patcher", None), known.pop("sampler", None), known.pop("left_out", 0)
    if left_out < known.get("calls", 0):
        known["calls"] -= left_out
    return Request(of_schedule(sampling) if model is None else of_model(model), steps=steps, **known), model, sampler


def _samples_by(model, sampling) -> bool:
    """Whether this is a MODEL whose model_sampling, patched or not, is this object."""
    try:
        return model is not None and model.get_model_object("model_sampling") is sampling
    except AttributeError:                  # something else that is called model
        return False


def _calls(asker, named, steps: int) -> int | None:
    """How many of the steps will run: a KSampler knows it, another function only where it wants fewer than it asks for.

    Where it asks for as many as it wants, it may still cut them.
    """
    if isinstance(asker, comfy.samplers.KSampler):
        return int(asker.steps)
    return named if isinstance(named, int) and not isinstance(named, bool) and 0 < named < steps else None


def _part(here: dict, steps: int) -> tuple | None:
    """(first, last) of the steps that a KSampler's caller will run; None if it is none."""
    asked, first, last = (here.get(name) for name in ("steps", "start_step", "last_step"))
    if not {"start_step", "last_step", "force_full_denoise"} <= set(here) or not is_number(asked):
        return None
    last = asked if last is None or here["force_full_denoise"] else min(last, asked)    # that ends at 0, as a whole
    first = first or 0
    return (steps - asked + first, steps - asked + last) if first < last else None


def size_of(noise) -> tuple | None:
    """(height, width) of states (n, channels, height, width), of a video's with its frames before."""
    return tuple(noise.shape[2:]) if isinstance(noise, torch.Tensor) and noise.ndim > 3 else None


def conditions(conditioning: list) -> list[dict]:
    """What the host's CONDITIONING, [[tokens, {...}], ...], says beside its tokens."""
    return [each[1] for each in conditioning if isinstance(each, (list, tuple)) and isinstance(each[-1], dict)]


def _defined(kind: type, name: str):
    """What a class or one that it derives from defines by this name."""
    return next((vars(parent)[name] for parent in kind.__mro__ if name in vars(parent)), None)


def _own(each, known: type, words: str) -> str:
    """words {of its name}, where it does not answer as the host's class of its kind; else nothing."""
    usual = not any(name in getattr(each, "__dict__", ()) or _defined(type(each), name) not in (
        None, _defined(known, name)) for name in ANSWERING[known])
    return "" if usual else words.format(getattr(each, "__name__", type(each).__name__))


def of_sampling(denoiser) -> dict:
    """{"cfg", "guidance", "around"} of what a sampler function is called with, as a Request takes them.

    A guider that combines the network's answers in its own way has no cfg that a preset could be compared by. Some
    packs call a sampler with a function of theirs around the model.
    """
    guider = getattr(denoiser, "inner_model", None)
    own = _own(guider, comfy.samplers.CFGGuider, "the guidance of {}")
    around = [own, _own(denoiser, comfy.samplers.KSamplerX0Inpaint, "{} around the model"),
              fingerprint.of_hooks(getattr(guider, "original_conds", {}))]
    return {"cfg": None if own else getattr(guider, "cfg", None), "around": " and ".join(filter(None, around)),
            "guidance": told_guidance(guider, [getattr(guider, "conds", {})])}


def recorded(guider) -> dict:
    """What a training records of its prompts' distilled guidance and hooks; guider: the trainer's."""
    several = told_guidance(guider, [prompt for size in guider.prepared for prompt in size])
    hooks = fingerprint.of_hooks(guider.original_conds)
    guidance = {"guidance": several[0] if len(several) == 1 else list(several)} if several else {}
    return guidance | ({HOOKS: hooks} if hooks else {})


def told_guidance(guider, every: list[dict]) -> tuple:
    """The guidance that the prepared positives give to a model distilled for guidance; () for other models."""
    network = getattr(getattr(guider, "inner_model", None), "diffusion_model", None)
    if not getattr(getattr(network, "params", None), "guidance_embed", True):       # Flux schnell ignores it
        return ()
    found = [each.get("model_conds", {}).get("guidance") for conds in every for each in conds.get("positive") or ()]
    return tuple(sorted({round(float(each.cond.flatten()[0]), 4) for each in found if each is not None}))


def of_running(denoiser) -> ModelFacts:
    """The facts of the denoiser that a sampler function is called with."""
    guider = getattr(denoiser, "inner_model", denoiser)
    network = getattr(guider, "inner_model", guider)        # the guider holds the model while it samples
    if not hasattr(network, "model_sampling"):
        raise ValueError(f"the sampler was called with a {type(denoiser).__name__} that shows no model_sampling: "
                         "run it from a KSampler or SamplerCustom node")
    return _of(network, network.model_sampling, getattr(guider, "model_patcher", None))


def _of(network, sampling, patcher) -> ModelFacts:
    latent, config = getattr(network, "latent_format", None), getattr(network, "model_config", None)
    seen, family = of_schedule(sampling), "unknown" if config is None else family_of(config)
    return replace(seen, family=family, channels=getattr(latent, "latent_channels", None),
                   unfit=_NESTED.get(family, seen.unfit), fingerprint=lambda: fingerprint.of(network, patcher))
