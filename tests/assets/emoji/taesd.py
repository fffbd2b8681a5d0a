"""The tiny autoencoder of SD3 latents (TAESD, Ollin Boer Bohan, MIT), as far as making the asset needs it.

Pictures are (B, 3, H, W) in 0..1; latents are (B, 16, H / 8, W / 8) in the space SD3 is trained in: scaled and shifted,
of deviation about 1. That is what the network's files speak; hosts shift and scale around them.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTH = 64


def convolution(inner: int, outer: int, **options) -> nn.Conv2d:
    return nn.Conv2d(inner, outer, 3, padding=1, **options)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [convolution(WIDTH, WIDTH) for _ in range(3)]
        self.conv = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv(x) + x).relu()


class Bounded(nn.Module):
    """Latents held within -3..3."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def encoder(folder) -> nn.Sequential:
    """taesd3_encoder.safetensors of the folder, frozen, float32."""
    layers = [convolution(3, WIDTH), Residual()]
    for _ in range(3):
        layers += [convolution(WIDTH, WIDTH, stride=2, bias=False), Residual(), Residual(), Residual()]
    return _filled(nn.Sequential(*layers, convolution(WIDTH, 16)), Path(folder) / "taesd3_encoder.safetensors")


def decoder(folder) -> nn.Sequential:
    """taesd3_decoder.safetensors of the folder, frozen, float32; its pictures may leave 0..1 a little."""
    layers = [Bounded(), convolution(16, WIDTH), nn.ReLU()]
    for _ in range(3):
        layers += [Residual(), Residual(), Residual(), nn.Upsample(scale_factor=2),
                   convolution(WIDTH, WIDTH, bias=False)]
    layers += [Residual(), convolution(WIDTH, 3)]
    return _filled(nn.Sequential(*layers), Path(folder) / "taesd3_decoder.safetensors")


def _filled(network: nn.Sequential, path: Path) -> nn.Sequential:
    network.load_state_dict(load_file(path))
    return network.float().eval().requires_grad_(False)
