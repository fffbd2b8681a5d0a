"""The WebUI's own samplers by name, on its own schedule types, as entries of a race."""

from __future__ import annotations

import torch
from modules import sd_samplers, sd_schedulers, shared

from ....training.baselines.measure import Entry
from ....training.source import Source
from .. import samplers


class Shown:
    """A Source's denoiser with the host's own, for samplers that read it, as its `inner_model`."""

    def __init__(self, denoiser, network):
        self.denoiser, self.inner_model = denoiser, network.denoiser.inner_model

    def __call__(self, x, sigma, **extra):
        return self.denoiser(x, sigma, **extra)


def entries(names: tuple, source: Source, calls: int) -> list[Entry]:
    """These samplers, for so many calls. Raises ValueError for a name that is not there, or has no k-diffusion form."""
    return [entry for name in names for entry in _entries(name, source, calls)]


def _entries(name: str, source: Source, calls: int) -> list[Entry]:
    known = {data.name.lower(): data.name for data in sd_samplers.all_samplers if not data.name.startswith("S4S")}
    if name.lower() not in known:
        raise ValueError(f"unknown sampler {name!r} here: use some of {', '.join(known.values())}")
    sampler = sd_samplers.create_sampler(known[name.lower()], shared.sd_model)
    function, options = getattr(sampler, "func", None), sampler.config.options
    if function is None:
        raise ValueError(f"{name} runs its own loop and cannot be raced: leave it out")
    discards, inner = bool(options.get("discard_next_to_last_sigma")), source.network.denoiser.inner_model
    types = {kind.name: kind for kind in sd_schedulers.schedulers if kind.function is not None}

    def levels(schedule: str, steps: int):
        kind = types[schedule]
        asked = {"inner_model": inner} if kind.need_inner_model else {}
        sigmas = torch.as_tensor(kind.function(n=steps + discards, sigma_min=float(source.levels[0]),
                                               sigma_max=source.sigma_max, device="cpu", **asked)).tolist()
        return sigmas[:-2] + sigmas[-1:] if discards else sigmas

    def run(denoiser, x, sigmas, extra_args, disable):
        more = {"solver_type": options["solver_type"]} if "solver_type" in options else {}
        return function(Shown(denoiser, source.network), x, sigmas, extra_args=extra_args, disable=disable, **more)
    return samplers.entries(known[name.lower()], "WebUI", source, calls, types, levels, run)
