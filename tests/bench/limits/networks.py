"""Small networks of kinds the package does not ship: a transformer over patches and a plain U-Net."""

import math

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

FREQUENCIES = 32


def waves(time: Tensor, frequencies: Tensor) -> Tensor:
    """Sines and cosines (B, 2 FREQUENCIES) of a network's clock (B,)."""
    angles = time[:, None].float() * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1)


class Condition(nn.Module):
    """(time (B,), label (B,)) -> (B, width)."""

    def __init__(self, width: int, labels: int):
        super().__init__()
        self.label = nn.Embedding(labels, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        frequencies = torch.exp(torch.linspace(math.log(0.5), math.log(30.0), FREQUENCIES))
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, time: Tensor, label: Tensor) -> Tensor:
        return F.silu(self.time(waves(time, self.frequencies.float()).to(self.label.weight.dtype)) + self.label(label))


class Transformer(nn.Module):
    """A transformer over patches with adaptive layer norms (Peebles and Xie 2023): (B, C, S, S) -> the same."""

    def __init__(self, channels: int, size: int, patch: int, labels: int, width: int = 64, depth: int = 3):
        super().__init__()
        self.patch, self.side = patch, size // patch
        self.stem = nn.Linear(channels * patch ** 2, width)
        self.place = nn.Parameter(0.02 * torch.randn(self.side ** 2, width))
        self.condition = Condition(width, labels)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.final, self.head = nn.Linear(width, 2 * width), nn.Linear(width, channels * patch ** 2)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        tokens = rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=self.patch, q=self.patch)
        tokens, condition = self.stem(tokens) + self.place, self.condition(time, label)
        for block in self.blocks:
            tokens = block(tokens, condition)
        scale, shift = self.final(condition)[:, None].chunk(2, -1)
        tokens = self.head(F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale) + shift)
        return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=self.side, p=self.patch, q=self.patch)


class Block(nn.Module):
    def __init__(self, width: int, heads: int = 4):
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        scale, shift, gate, scale2, shift2, gate2 = self.modulation(condition)[:, None].chunk(6, -1)
        inner = F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale) + shift
        q, k, v = rearrange(self.qkv(inner), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        inner = rearrange(F.scaled_dot_product_attention(q, k, v), "b h n d -> b n (h d)")
        tokens = tokens + gate * self.out(inner)
        inner = F.layer_norm(tokens, tokens.shape[-1:]) * (1 + scale2) + shift2
        return tokens + gate2 * self.down(F.gelu(self.up(inner)))


class UNet(nn.Module):
    """Two halvings, one residual block a level, the condition in the second norm: (B, C, S, S) -> the same."""

    def __init__(self, channels: int, labels: int, width: int = 16, condition: int = 96):
        super().__init__()
        self.condition = Condition(condition, labels)
        self.stem, self.head = _conv(channels, width), _conv(width, channels)
        self.down1, self.down2 = Residual(width, width, condition), Residual(width, 2 * width, condition)
        self.half1, self.half2 = nn.Conv2d(width, width, 2, 2), nn.Conv2d(2 * width, 2 * width, 2, 2)
        self.middle1 = Residual(2 * width, 2 * width, condition)
        self.middle2 = Residual(2 * width, 2 * width, condition)
        self.up2, self.up1 = Residual(4 * width, width, condition), Residual(2 * width, width, condition)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, time: Tensor, label: Tensor) -> Tensor:
        condition = self.condition(time, label)
        first = self.down1(self.stem(x), condition)
        second = self.down2(self.half1(first), condition)
        inner = self.middle2(self.middle1(self.half2(second), condition), condition)
        inner = F.interpolate(inner, size=second.shape[-2:], mode="nearest")
        inner = self.up2(torch.cat([inner, second], 1), condition)
        inner = F.interpolate(inner, size=first.shape[-2:], mode="nearest")
        return self.head(self.up1(torch.cat([inner, first], 1), condition))


class Residual(nn.Module):
    def __init__(self, before: int, after: int, condition: int):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, before), _conv(before, after)
        self.norm2, self.conv2 = nn.GroupNorm(4, after), _conv(after, after)
        self.modulation = nn.Linear(condition, 2 * after)
        self.skip = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, 1)
        inner = self.norm2(self.conv1(F.silu(self.norm1(x)))) * (1 + scale) + shift
        return self.skip(x) + self.conv2(F.silu(inner))


class Autoencoder(nn.Module):
    """(B, 1, 28, 28) <-> latents (B, 4, 7, 7)."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(_conv(1, 24), nn.SiLU(), nn.Conv2d(24, 48, 4, 2, 1), nn.SiLU(),
                                     nn.Conv2d(48, 48, 4, 2, 1), nn.SiLU(), _conv(48, 4))
        self.decoder = nn.Sequential(_conv(4, 48), nn.SiLU(), nn.Upsample(scale_factor=2), _conv(48, 48), nn.SiLU(),
                                     nn.Upsample(scale_factor=2), _conv(48, 24), nn.SiLU(), _conv(24, 1))


def _conv(before: int, after: int) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, padding=1)
