"""The small models as what is distilled: guided, conditioned by digit, with a feature space to race in."""

import numpy as np
import torch

from ...s4s_nodes.core import Model, schedules
from ..source import Source, guided
from .models import load, load_classifier


def bundled(name: str, cfg: float, device="cpu") -> Source:
    """One of the small models that come with the package. Raises ValueError for an unknown name.

    Args:
        name: digits-eps or digits-flow.
        cfg: the guidance scale.
        device: of the network and its states.
    """
    digits = load(name, device=str(device))
    flow = digits.prediction == "flow"
    levels = schedules.flow_levels() if flow else np.asarray(digits.sigmas.cpu(), dtype=np.float64)

    def conditions(seeds):
        return {"label": torch.as_tensor([int(seed) % digits.classes for seed in seeds], device=device)}

    def features(images):                       # of the classifier, which is read when it is first asked
        return load_classifier(device).features(images.float())
    model = Model(name, digits.prediction, float(levels[0]), float(levels[-1]), shift=1.0 if flow else None,
                  channels=digits.shape[0])
    return Source(name, model, levels, tuple(digits.shape), guided(digits.denoise, cfg, digits.null), conditions,
                  cfg, torch.device(device), any_cfg=True, features=features,
                  feature_space="64 features of the bundled digit classifier")
