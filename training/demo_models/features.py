"""A small MNIST classifier in Inception's place: its Fréchet distances compare samplers of the bundled models alone."""

from functools import cache

import torch
from torch import nn
from torch.nn import functional as F

from .models import FOLDER, read_weights

FILE = FOLDER / "digits-features.safetensors"


class Classifier(nn.Module):
    """Four convolutions, then 64 features, then 10 logits; images (B, 1, 28, 28) in -1..1."""

    def __init__(self, width=64):
        super().__init__()
        sizes = [(1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)]  # channels in, out, stride
        layers = [layer for inner, outer, stride in sizes for layer in (
            nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outer), nn.SiLU())]
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())
        self.last = nn.Linear(64 * 9, width)
        self.head = nn.Linear(width, 10)

    def features(self, x):
        """(B, 1, 28, 28) -> (B, 64), the layer before the logits."""
        return F.silu(self.last(self.body(x)))

    def forward(self, x):
        """(B, 1, 28, 28) -> logits (B, 10)."""
        return self.head(self.features(x))


@cache
def load(device="cpu"):
    """The bundled classifier, in eval mode, weights frozen, float32."""
    model = Classifier()
    read_weights(model, FILE)
    return model.float().to(device, memory_format=torch.channels_last).eval().requires_grad_(False)
