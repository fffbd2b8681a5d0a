"""A host's guided network as the trainer's Source."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ...training.source import Source
from ..core.preset_file import Model


def source_of(network: Callable, model: Model, levels: Tensor, x: Tensor, prompts: int, cfg: float,
              chunk: int, **about) -> Source:
    """The Source of a host's network; seed i has prompt number i modulo `prompts`, x (n, ...) is a state.

    network(x, sigma (B,), which (B,), cfg (B,)): one cfg for a whole call; which: the number of each image's prompt.
    """
    def conditions(seeds):
        return {"which": torch.tensor([int(seed) % prompts for seed in seeds], device=x.device)}
    levels = levels.detach().double().cpu().numpy().copy()
    return Source(model.family, model, levels, tuple(x.shape[1:]), network, conditions, cfg, x.device, chunk=chunk,
                  any_cfg=True, about=about)
