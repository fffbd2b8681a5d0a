"""What a WebUI host shows of its loaded model, as the library's ModelFacts."""

import math
import sys
import weakref
from collections import ChainMap
from functools import partial
from itertools import islice
from traceback import walk_stack

from modules import sd_samplers_common, shared

from ...core.files import stamp
from ...core.levels import ENDLESS
from ...core.sketch import PATCHES
from ...library import ModelFacts
from ...select.families import family_of
from ..digest import described, digest, hung_in, sketch_of

_PREDICTORS = {"epsilon": "eps", "v_prediction": "v", "const": "flow"}         # Forge's names
_FAMILIES = {"is_sdxl": "sdxl", "is_sd3": "sd3", "is_flux": "flux", "is_wan": "wan21", "is_sd2": "sd20",
             "is_sd1": "sd15"}
TURNS = ("s_min_uncond", "skip_early_cond")         # the host's settings that sometimes leave out the negative prompt
_CALLERS = 6                # how many callers to search: the host's own are 1 to 3 away
_sketches: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()              # network -> (file, its sketch)
_digests: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()       # the host's patched UNet -> (patches, digest)


def of(wrap, model) -> ModelFacts:
    """The facts of a sampler's model_wrap (it has the levels) and the host's sd_model (it has the name)."""
    predictor = getattr(wrap, "predictor", None)
    low, high = float(wrap.sigmas[0]), float(wrap.sigmas[-1])       # never .sigma_max: on Forge it raises
    prediction, vae = _prediction(predictor, model, high), getattr(getattr(model, "forge_objects", None), "vae", None)
    channels = getattr(vae, "latent_channels", getattr(model, "latent_channels", None))
    return ModelFacts(_family(model), prediction, low, high, prediction != "flow" and high > ENDLESS,
                      _shift(predictor, model) if prediction == "flow" else None, channels,
                      fingerprint=partial(_hashes, model))


def _prediction(predictor, model, high: float) -> str:
    """Forge's predictor names it; elsewhere a flow's levels end at 1, and the model itself says v."""
    if predictor is not None:
        return _PREDICTORS.get(predictor.prediction_type, "x0")     # "edm": nothing learned is for it
    if high <= 1.001:
        return "flow"
    return "v" if getattr(model, "parameterization", "eps") == "v" else "eps"


def _family(model) -> str:
    """The loader's own name for the architecture, as in ComfyUI, where the host keeps it; else a flag it sets."""
    config = getattr(model, "model_config", None)
    if type(config).__module__.startswith("huggingface_guess"):
        return family_of(config)
    return next((family for flag, family in _FAMILIES.items() if getattr(model, flag, False)), "unknown")


def _shift(predictor, model) -> float | None:
    mu, shift = getattr(predictor, "mu", None), getattr(predictor, "shift", getattr(model, "shift", None))
    if mu is not None:
        return math.exp(mu)                 # Flux: e^mu / (e^mu + 1/t - 1)
    return float(shift or 0) or None


def _hashes(model) -> dict:
    """{"weights_1d": sketch, "sha256_10": ..., "file": ..., "patches": of LoRAs}, as far as they can be had without
    reading the file."""
    checkpoint = getattr(model, "sd_checkpoint_info", None)
    known = {"sha256_10": getattr(checkpoint, "shorthash", None), "file": getattr(checkpoint, "name_for_extra", None),
             **_sketch(model), PATCHES: _changes(model)}
    return {kind: value for kind, value in known.items() if value}


def of_asking() -> tuple[dict, object]:
    """({"cfg", "size", "calls", "guidance", "around"} as a Request takes them, where a schedule is asked for, and the
    host's processing); what is not known is left out, or None.

    The host shows a schedule its number of steps alone. Whoever asks is a sampler of the host, whose functions hold p,
    the latent x and, of an img2img or a hires pass, t_enc, the index of the last step that runs.
    """
    held = ChainMap(*(frame.f_locals for frame, _ in islice(walk_stack(sys._getframe(1)), _CALLERS)
                      if isinstance(frame.f_locals.get("self"), sd_samplers_common.Sampler)))
    p, x, last = map(held.get, ("p", "x", "t_enc"))
    asked = {"cfg": is_hires(p) and getattr(p, "hr_cfg", None) or getattr(p, "cfg_scale", None),
             "size": tuple(x.shape[2:]) if getattr(x, "ndim", 0) > 3 else None,
             "calls": None if last is None else int(last) + 1, "guidance": told_guidance(p), "around": _around(p)}
    return {name: value for name, value in asked.items() if value is not None}, p


def told_guidance(p) -> tuple:
    """The guidance that a pass gives to a model distilled for guidance; () for other models."""
    if not getattr(shared.sd_model, "use_distilled_cfg_scale", False):
        return ()
    return (float(getattr(p, "hr_distilled_cfg" if is_hires(p) else "distilled_cfg_scale", None) or 3.5),)


def _around(p) -> str:
    """What changes the network in this pass alone, in words: the host's settings that take turns while it samples."""
    where = getattr(shared.opts, "hires_fix_refiner_pass", "second pass") if getattr(p, "enable_hr", False) else ""
    refiner, switch = getattr(p, "refiner_checkpoint_info", None), getattr(p, "refiner_switch_at", None)
    refined = refiner not in (None, getattr(shared.sd_model, "sd_checkpoint_info", None)) and (
        switch is None or switch < 1) and where != ("first pass" if is_hires(p) else "second pass")
    acts = {"a refiner": refined, "NGMS": getattr(p, "s_min_uncond", None) or getattr(shared.opts, TURNS[0], 0),
            "Skip Early CFG": getattr(shared.opts, TURNS[1], 0)}
    return " and ".join(name for name, on in acts.items() if on)


def is_hires(p) -> bool:
    return bool(getattr(p, "is_hr_pass", False))


def _unet(model):
    """Forge's and reForge's patched network of a checkpoint; None in A1111."""
    return getattr(getattr(model, "forge_objects", None), "unet", None)


def _sketch(model) -> dict:
    """A sketch of the norms and biases, made again for another file: A1111 loads it into the network that it has."""
    net, file = getattr(getattr(_unet(model) or model, "model", None), "diffusion_model", None), _file(model)
    if net is None:
        return {}
    if net not in _sketches or _sketches[net][0] != file:
        _sketches[net] = file, sketch_of({f"diffusion_model.{name}": tensor for name, tensor in net.named_parameters()
                                          if tensor.ndim == 1})
    return _sketches[net][1]


def _file(model) -> tuple:
    """(path, stamp) of the checkpoint's file, as far as the host names one and it can be seen."""
    path = getattr(getattr(model, "sd_checkpoint_info", None), "filename", None)
    try:
        return path, stamp(path)
    except (OSError, TypeError, ValueError):
        return path, ()


def _changes(model) -> str:
    """16 hex digits of all that changes the network's answer; "" for nothing.

    Forge and reForge keep a LoRA's tensors as patches of their UNet, and FreeU and the like as its options; A1111 keeps
    lists, and merges tokens by itself.
    """
    unet = _unet(model)
    if unet is not None:
        parts = [_of_patches(unet), *hung_in(unet)]
    else:
        merged = getattr(model, "applied_token_merged_ratio", 0)
        parts = [_of_list(sys.modules.get("networks")), digest(["merged", merged]) if merged else "", *(
            digest([each.name, [[layer.multiplier for layer in layers] for layers in each.layers.values()],
                    described(each.layers)]) for each in getattr(shared, "loaded_hypernetworks", ()))]
    parts = sorted(filter(None, parts))
    return parts[0][:16] if len(parts) == 1 else digest(parts)[:16] if parts else ""


def is_patched() -> bool:
    """Whether the last picture's network had patches, beside LoRAs, that a training leaves out."""
    unet = _unet(shared.sd_model)
    return unet is not None and bool(hung_in(unet))


def _of_patches(unet) -> str:
    """Patches of Forge's UNet, {(file, strength, ...): {weight: [patch, ...]}}; reForge's {weight: [patch, ...]}."""
    loras = getattr(unet, "lora_patches", None)
    sets = list(loras.values()) if isinstance(loras, dict) else [getattr(unet, "patches", None) or {}]
    sets = [each for each in sets if each]
    if not sets:
        return ""
    mark = [id(each) for each in sets]
    if _digests.get(unet, ((), ""))[0] != mark:
        _digests[unet] = mark, digest(sorted(digest(each) for each in sets))[:16]
    return _digests[unet][1]


def _of_list(networks) -> str:
    """What is active in A1111's own LoRA extension, and how strongly."""
    active = [(str(getattr(net.network_on_disk, "hash", "") or net.name), float(net.unet_multiplier), net.dyn_dim)
              for net in getattr(networks, "loaded_networks", None) or () if net.unet_multiplier]
    return digest(sorted(map(repr, active)))[:16] if active else ""
