"""The small real models of the study: ten, in three families that share prediction, noise levels and range.

Two come with the package (digits-eps, digits-flow), one lies in tests/assets (emoji-sd3, latents); the others are
trained by train.py and kept in the cache folder. All are class-conditional and can be guided.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from s4s.s4s_nodes.core import Model, schedules
from s4s.training.demo_models import models as bundled
from s4s.training.demo_models.network import UNet
from s4s.training.demo_models.source import bundled as bundled_source
from s4s.training.source import Source, guided
from tests.assets.emoji import conditions as words, network as mmdit
from tests.bench.demo_models.initial import begun

ZERO_SNR_TOP = 4518.0                   # the highest level ComfyUI and WebUI give a zero terminal SNR model
FLOW_FLOOR = 1e-3


@dataclass(frozen=True)
class Kind:
    """What is trained: prediction and data, the U-Net's width, and for how long, in batches.

    sizes: sides of the pictures, drawn by the batch; the last is the one the model is known for.
    """

    prediction: str                     # eps, flow, or v (zero terminal SNR)
    data: str                           # digits, cifar or emoji
    width: int
    iterations: int
    seed: int
    sizes: tuple = (16,)


TRAINED = {
    "emoji-eps": Kind("eps", "emoji", 48, 4600, 1, (32, 24, 16)),
    "cifar-eps": Kind("eps", "cifar", 48, 3000, 2),
    "emoji-flow": Kind("flow", "emoji", 48, 4600, 4, (32, 24, 16)),
    "cifar-flow": Kind("flow", "cifar", 48, 3000, 3),
    "digits-v": Kind("v", "digits", 48, 2400, 5),
    "emoji-v": Kind("v", "emoji", 48, 3000, 6),
    "cifar-v": Kind("v", "cifar", 48, 2400, 7),
}
FAMILIES = {"eps": ("digits-eps", "emoji-eps", "cifar-eps"),
            "flow": ("digits-flow", "emoji-sd3", "emoji-flow", "cifar-flow"),
            "v, zero SNR": ("digits-v", "emoji-v", "cifar-v")}
CLASSES = {"digits": 10, "cifar": 10, "emoji": len(words.CLASSES)}


class Small(nn.Module):
    """A model like training.demo_models.models.Digits, for any picture; sigma is always a noise level, never a time.

    eps and v: x = x0 + sigma noise. The network gives what v-prediction means, for eps too (see Digits.denoise): the
    optimum is the same and at high noise its errors are not multiplied by sigma. flow: x = (1 - s) x0 + s noise.
    """

    def __init__(self, kind: Kind):
        super().__init__()
        self.kind, self.flow = kind, kind.prediction == "flow"
        self.null = CLASSES[kind.data]
        self.channels = 1 if kind.data == "digits" else 3
        self.shape = (self.channels, kind.sizes[-1], kind.sizes[-1])
        levels = (schedules.flow_levels() if self.flow else schedules.sd_levels() if kind.prediction == "eps"
                  else schedules.zero_snr_levels(ZERO_SNR_TOP))
        self.register_buffer("levels", torch.from_numpy(levels.copy()), persistent=False)
        self.network = _network(kind, self.channels, self.null + 1)

    def forward(self, shown: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """The network's answer to the unit-variance state shown at sigma (B,)."""
        time = sigma if self.flow else bundled.level_to_time(sigma, self.levels)
        return self.network(shown, time.float(), label)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """The estimate of the clean picture, as x."""
        level = sigma.to(x.dtype)[:, None, None, None]
        if self.flow:
            return x - level * self(x, sigma, label)
        c_in = (1 + level ** 2).rsqrt()
        return c_in ** 2 * x - level * c_in * self(c_in * x, sigma, label)


def _network(kind: Kind, channels: int, labels: int) -> nn.Module:
    """The bundled U-Net with as many channels and labels as asked for."""
    network = begun(UNet(kind.width))
    network.stem = nn.Conv2d(4 * channels, kind.width, 3, padding=1)
    network.head = nn.Conv2d(kind.width, 4 * channels, 3, padding=1)
    nn.init.zeros_(network.head.weight)
    nn.init.zeros_(network.head.bias)
    network.condition.label = nn.Embedding(labels, network.condition.label.embedding_dim)
    return network


def family_of(name: str) -> str:
    """The family a model belongs to. Raises KeyError for an unknown one."""
    return next(family for family, names in FAMILIES.items() if name in names)


def source(name: str, cfg: float, cache: Path, size: int = 0) -> Source:
    """The model under guidance; size: the side of its pictures (latents), 0 for the one it is known for."""
    if name in bundled.NAMES:
        made = bundled_source(name, cfg)
    elif name == "emoji-sd3":
        made = _sd3(cfg)
    else:
        made = _trained(name, cfg, cache)
    if size:
        made.shape = (made.shape[0], size, size)
    return made


def _trained(name: str, cfg: float, cache: Path) -> Source:
    model = Small(TRAINED[name])
    bundled.read_weights(model.network, weights_path(name, cache))
    model.network.to(memory_format=torch.channels_last)
    model.eval().requires_grad_(False)
    facts = Model(name, model.kind.prediction, float(model.levels[0]), float(model.levels[-1]),
                  zero_terminal_snr=model.kind.prediction == "v", shift=1.0 if model.flow else None,
                  channels=model.channels)
    return _source(name, facts, model.levels.numpy(), model.shape, guided(model.denoise, cfg, model.null),
                   cfg, model.null)


def weights_path(name: str, cache: Path) -> Path:
    return Path(cache) / "models" / f"{name}.safetensors"


def ready(name: str, cache: Path) -> bool:
    """Whether the model's weights are there."""
    return name not in TRAINED or weights_path(name, cache).is_file()


def _sd3(cfg: float) -> Source:
    """The MMDiT of tests/assets/emoji, with the shift 3 of Stable Diffusion 3."""
    network, null = mmdit.load(), len(words.CLASSES)

    def denoise(x, sigma, label):
        return network.denoise(x, sigma, *words.conditions(label))
    levels = schedules.flow_levels(3.0)
    facts = Model("emoji-sd3", "flow", float(levels[0]), float(levels[-1]), shift=3.0, channels=mmdit.CHANNELS)
    return _source("emoji-sd3", facts, levels, (mmdit.CHANNELS, mmdit.SIZE, mmdit.SIZE),
                   guided(denoise, cfg, null), cfg, null)


def _source(name, facts, levels, shape, network, cfg, classes) -> Source:
    def conditions(seeds):
        return {"label": torch.as_tensor([int(seed) % classes for seed in seeds])}
    return Source(name, facts, np.asarray(levels, dtype=np.float64), shape, network, conditions, cfg,
                  torch.device("cpu"))
