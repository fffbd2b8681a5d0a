"""The small models as what is distilled: guided, conditioned by digit, with a feature space to race in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Model, schedules
from ..source import Source, guided
from . import features
from .models import load


def bundled(name: str, cfg: float | tuple, device="cpu") -> Source:
    """One of the small models that come with the package. Raises ValueError for an unknown name.

    cfg: one guidance scale, or several that the seeds take turns with, each digit with all of them.
    """
    digits = load(name, device=str(device))
    flow = digits.prediction == "flow"
    levels = schedules.flow_levels() if flow else np.asarray(digits.sigmas.cpu(), dtype=np.float64)

    cfgs = tuple(cfg) if isinstance(cfg, (tuple, list)) else (cfg,)

    def conditions(seeds):
        seeds = [int(seed) for seed in seeds]
        labels = {"label": torch.as_tensor([seed % digits.classes for seed in seeds], device=device)}
        turns = [cfgs[(seed + seed // digits.classes) % len(cfgs)] for seed in seeds]
        return labels if len(cfgs) == 1 else {**labels, "cfg": torch.tensor(turns, device=device)}
    model = Model(name, digits.prediction, float(levels[0]), float(levels[-1]), shift=1.0 if flow else None,
                  channels=digits.shape[0])
    middle = (min(cfgs) + max(cfgs)) / 2
    return Source(name, model, levels, tuple(digits.shape), guided(digits.denoise, middle, digits.null), conditions,
                  middle, torch.device(device), cfgs=cfgs if len(cfgs) > 1 else (), features=digit_features(device),
                  feature_space="64 features of the bundled digit classifier")


def digit_features(device) -> Callable:
    """images (n, 1, 28, 28) -> (n, 64) of the bundled classifier, which is read when it is first asked."""
    kept = []

    def answer(images: Tensor) -> Tensor:
        if not kept:
            kept.append(features.load(device))
        return kept[0].features(images.float())
    return answer
