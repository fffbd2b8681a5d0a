"""Train a preset for your own denoiser, here a closed-form one in the plane, and race it against the baselines."""

import tempfile

import numpy as np
import torch

from s4s.s4s_nodes.core import Model, mixture
from s4s.training.distil import Config, Source, distil, estimate, race, unseen_pairs


def denoise(x, sigma, **extra):
    """Your network with its guidance: x (B, ...) and sigma (B,) in, the predicted clean x out."""
    return mixture(x, sigma)


levels = np.geomspace(0.03, 15, 1000)                   # the noise levels your model was trained on, rising
source = Source("my-model", Model("my-model", "eps", levels[0], levels[-1]), levels, shape=(2,), network=denoise,
                conditions=lambda seeds: {}, cfg=1.0, device=torch.device("cpu"))
config = Config.of(name="my-preset", calls=(5,), iterations=4, pairs=64, validation=32)
print("cost:", estimate(source, config).summary)

with tempfile.TemporaryDirectory() as folder:           # use a folder that stays: resume=True continues the run
    preset = distil(source, config, folder)             # also written to folder/my-preset.safetensors
print(race(source, preset, "calls5", unseen_pairs(source, 64)).verdict)
