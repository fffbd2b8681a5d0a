"""Exact gradients through a host's network: what has to be out of the way, and its way back.

    inference mode      a node runs under it and loaders make weights under it: left, and every weight shown to autograd
                        through a second tensor on the same memory (no copy), or an own copy where the host can load one
    recycled weights    (dynamic VRAM) what backward needs is overwritten by the next layer: off, the model fully loaded
    attention           PyTorch's own: sage, flash and chunked attention have no backward
    fused kernels       off through the host's own training switch, where it has one
    rounded timesteps   discrete models look up the nearest of 1000 levels: forward still rounds, backward sees the
                        straight line between them (straight-through, in log sigma)

Networks that add in place (Flux, Wan, LTXV, ...) and the memory of many calls are the trainer's affair: it runs every
guided call again in its backward pass, ControlNets, hooks and all (training/recompute.py).
"""

from __future__ import annotations

import contextlib
import copy
import inspect

import comfy.model_management
import torch
from comfy.ldm.modules.attention import attention_pytorch

from ....training.visible import between_levels, cloned, visible_weights

ALL_THERE_IS = 1e20         # bytes asked for, so that the host moves everything else out
__all__ = ["cloned", "differentiable", "training_mode", "visible_weights"]


@contextlib.contextmanager
def training_mode():
    """Autograd on, inference mode off, the host's training switch on; all as before at the end."""
    host = comfy.model_management
    before = getattr(host, "in_training", None)             # None: a host without the switch
    with torch.inference_mode(False), torch.enable_grad():
        if before is not None:
            host.in_training = True
        try:
            yield
        finally:
            if before is not None:
                host.in_training = before


def differentiable(patcher):
    """A patcher of the same model whose calls carry gradients to x and sigma. Call it within training_mode.

    Its weights are an own copy where the host can load one (so the shared model stays as it is), else the shared ones.
    """
    own = own_copy(patcher)
    options = own.model_options.setdefault("transformer_options", {})
    options["optimized_attention_override"] = lambda attention, *args, **kwargs: attention_pytorch(*args, **kwargs)
    sampling = own.get_model_object("model_sampling")
    comfy.model_management.load_models_gpu([own], memory_required=ALL_THERE_IS, force_full_load=True)
    if rounds_timesteps(sampling):
        own.add_object_patch("model_sampling", smooth(sampling))
    return own


def own_copy(patcher):
    """A clone with weights of its own, never in recycled buffers; on hosts that cannot, or for models whose loader did
    not say how to load them again, a plain clone."""
    options = {name: True for name in ("disable_dynamic", "force_deepcopy")
               if name in inspect.signature(patcher.clone).parameters}
    try:
        return patcher.clone(**options)
    except RuntimeError:
        return patcher.clone()


# --- timesteps ----------------------------------------------------------------------------------------------------

def rounds_timesteps(sampling) -> bool:
    """Whether the model's clock counts whole steps: sigma is looked up in a table and rounded to the nearest level."""
    return hasattr(sampling, "log_sigmas") and not sampling.timestep(sampling.sigmas[-1:]).is_floating_point()


def smooth(sampling):
    """The same model_sampling, whose timestep(sigma) has a slope: forward rounds, backward runs between the levels."""
    ends = sampling.timestep(sampling.sigmas[[0, -1]])
    steps = float(ends[1] - ends[0]) / (len(sampling.sigmas) - 1)       # 1, but for distilled models that skip some

    class Smooth(type(sampling)):
        def timestep(self, sigma):
            line = steps * between_levels(self.log_sigmas.to(sigma.device), sigma)
            return super().timestep(sigma) + (line - line.detach())
    changed = copy.copy(sampling)
    changed.__class__ = Smooth
    return changed
