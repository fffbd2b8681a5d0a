"""ComfyUI's own samplers by name, on its own schedulers, as entries of a race."""

from __future__ import annotations

import comfy.samplers
import torch

from ....training.baselines.measure import Entry
from ....training.source import Source
from .. import samplers
from .denoiser import teacher_of


def entries(names: tuple, source: Source, calls: int) -> list[Entry]:
    """These samplers as KSampler would run them, for so many calls. Raises ValueError for a name that is not there."""
    taking_part = []
    for name in names:
        if name not in comfy.samplers.SAMPLER_NAMES:
            known = ", ".join(comfy.samplers.SAMPLER_NAMES)
            raise ValueError(f"unknown sampler {name!r} here: use some of {known}")
        discards = name in getattr(comfy.samplers.KSampler, "DISCARD_PENULTIMATE_SIGMA_SAMPLERS", ())

        def levels(scheduler, steps, discards=discards):
            sampling = source.network.guider.inner_model.model_sampling
            sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps + discards)
            return torch.cat([sigmas[:-2], sigmas[-1:]]) if discards else sigmas
        function, _ = teacher_of(source, comfy.samplers.sampler_object(name), torch.tensor([source.sigma_max, 0.0]))
        ours = [scheduler for scheduler in comfy.samplers.SCHEDULER_NAMES if not scheduler.startswith("s4s")]
        taking_part += samplers.entries(name, "ComfyUI", source, calls, ours, levels, function)
    return taking_part
