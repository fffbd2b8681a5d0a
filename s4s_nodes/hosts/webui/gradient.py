"""Exact gradients through a host's guided denoiser: what has to be out of the way, and its way back.

    inference mode      hosts sample under it and some load under it: left for a call, and weights, levels and prompts
                        shown to autograd as normal tensors (weights on the same memory)
    rounded timesteps   Forge and reForge look up the nearest of 1000 levels, others do where a setting says so: forward
                        still rounds, backward sees the straight line between them (straight-through, in log sigma)
    autocast            hosts that sample under it have no such thing in a backward pass: put up again for every call
    previews            the host keeps every answer for its live preview: it gets one without its graph

Whether it worked is seen by the trainer's check against finite differences, before anything is learned. Attention
without a backward pass, quantised weights, LoRAs kept beside the weights: the check fails and says why.
"""

from __future__ import annotations

import contextlib
from copy import copy

import torch
from modules import shared
from torch import Tensor

from ....training.visible import between_levels, cloned, normal, visible_weights

CLOCKS = ("timestep", "sigma_to_t")         # as Forge and reForge, and as k-diffusion's wrappers call theirs


@contextlib.contextmanager
def through(networks: list, model):
    """Let calls of the networks (inside.Network, of one denoiser) carry gradients, until the end; model: the host's
    sd_model."""
    before, denoiser = [network.extra_args for network in networks], networks[0].denoiser
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        for part in parts(denoiser, model):
            stack.enter_context(visible_weights(part, shown))
        for owner, name in clocks(denoiser, model):
            stack.enter_context(sloped(owner, name))
        for network in networks:
            network.extra_args, network.gradients = conditions(network.extra_args), True
        try:
            yield
        finally:
            for network, extra_args in zip(networks, before, strict=True):
                network.extra_args, network.gradients = extra_args, False


def parts(denoiser, model) -> list[torch.nn.Module]:
    """Every module that has a share in an answer, each network once."""
    unet = getattr(getattr(model, "forge_objects", None), "unet", None)
    parts = (denoiser, denoiser.inner_model, model, getattr(unet, "model", None))
    return [part for part in parts if isinstance(part, torch.nn.Module)]


def shown(tensor: Tensor) -> Tensor:
    """A normal tensor on the same memory; quantised kinds of the host's stay as they are."""
    return normal(tensor) if type(tensor) in (Tensor, torch.nn.Parameter, torch.nn.Buffer) else tensor


def clocks(denoiser, model) -> list[tuple]:
    """(owner, name) of the methods that turn a level into a whole step of the training clock."""
    wrap, unet = denoiser.inner_model, getattr(getattr(model, "forge_objects", None), "unet", None)
    owners = {id(owner): owner for owner in (
        getattr(getattr(unet, "model", None), "predictor", None), getattr(wrap, "predictor", None),
        getattr(getattr(unet, "model", None), "model_sampling", None), wrap) if hasattr(owner, "log_sigmas")}
    return [(owner, name) for owner in owners.values() for name in CLOCKS
            if hasattr(owner, name) and not getattr(owner, name)(normal(owner.sigmas)[-1:]).is_floating_point()]


@contextlib.contextmanager
def sloped(owner, name: str):
    """The clock with a slope, for a while."""
    clock, levels = getattr(owner, name), normal(owner.log_sigmas)

    def between(sigma: Tensor, *arguments, **more) -> Tensor:
        line = between_levels(levels.to(sigma.device), sigma)
        return clock(sigma, *arguments, **more) + (line - line.detach())
    setattr(owner, name, between)
    try:
        yield
    finally:
        delattr(owner, name)                # the class's own method is found again


def conditions(extra_args: dict) -> dict:
    """The host's arguments with every tensor copied out of inference mode."""
    return {name: scheduled(value) for name, value in extra_args.items()}


def scheduled(content):
    """The same for the hosts' classes of prompts: parts with weights, parts by step."""
    if hasattr(content, "batch") or hasattr(content, "schedules"):
        same = copy(content)
        for name, value in vars(content).items():
            setattr(same, name, [scheduled(one) for one in value] if isinstance(value, list) else cloned(value))
        return same
    return [scheduled(one) for one in content] if isinstance(content, list) else cloned(content)


class Autocast:
    """The autocast the host samples under, for a call in a backward pass, where it is not."""

    def __init__(self, device: torch.device):
        self.kind, self.on = device.type, torch.is_autocast_enabled(device.type)
        self.dtype = torch.get_autocast_dtype(device.type) if self.on else None

    def __call__(self):
        return torch.autocast(self.kind, self.dtype) if self.on else contextlib.nullcontext()


def forget(denoiser, answer: Tensor) -> None:
    """Give the host's preview the answer without its graph, which would be kept and cannot be drawn."""
    seen = answer.detach()
    denoiser.sampler.last_latent = shared.state.current_latent = seen
