"""Two small class-conditional networks for 28x28 grey images, in plain torch, and a classifier of them.

Both map (x, t, label) -> an image of x's shape: x is (B, 1, 28, 28), t is a float (B,) time in
0..1, label is (B,) long in 0..10, where 10 is the null class of classifier-free guidance. Both
are smooth in x and t: no rounding, no dropout, SiLU/GELU/softmax only.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

LABELS = 11  # ten digits and the null class
FASTEST = 30.0  # rad over t = 0..1: the fastest wave of the time embedding; higher is rougher in t


class Condition(nn.Module):
    """Embeds time and label together: t (B,), label (B,) -> (B, width)."""

    def __init__(self, width, waves=16):
        super().__init__()
        rates = torch.exp(torch.linspace(0.0, math.log(FASTEST), waves))
        self.register_buffer("rates", rates, persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * waves, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(LABELS, width)

    def forward(self, t, label):
        angle = t[:, None] * self.rates
        waves = torch.cat([angle.cos(), angle.sin()], dim=1).to(self.label.weight.dtype)
        return F.silu(self.time(waves) + self.label(label))


class Residual(nn.Module):
    """Two 3x3 convolutions on (B, inner, H, W) -> (B, outer, H, W), the second one modulated."""

    def __init__(self, inner, outer, width, groups=8):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inner)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.modulation = nn.Linear(width, 2 * outer)
        self.norm2 = nn.GroupNorm(groups, outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()

    def forward(self, x, condition):
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)
        h = torch.addcmul(shift, self.norm2(h), 1 + scale)
        return self.skip(x) + self.conv2(F.silu(h))


def attend(qkv, heads):
    """Multi-head self-attention: qkv (B, N, 3 C) -> (B, N, C)."""
    batch, count, width = qkv.shape
    q, k, v = qkv.view(batch, count, 3, heads, width // (3 * heads)).permute(2, 0, 3, 1, 4)
    # Written out: for 49 positions the fused kernel's backward pass is ten times slower on a CPU.
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return (weights @ v).transpose(1, 2).reshape(batch, count, width // 3)


class Attention(nn.Module):
    """Self-attention over the positions of (B, C, H, W), with a residual connection."""

    def __init__(self, channels, heads=4):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(8, channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)

    def forward(self, x):
        tokens = self.norm(x).permute(0, 2, 3, 1).flatten(1, 2)
        out = self.out(attend(self.qkv(tokens), self.heads))
        # Rows of (H W, C) are channels_last already: a permute, not a copy.
        return x + out.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """Convolutional U-Net: 2x2 pixels folded into channels, a 14x14 level and a 7x7 level."""

    def __init__(self, channels=64, width=128):
        super().__init__()
        c = channels
        self.condition = Condition(width)
        self.stem = nn.Conv2d(4, c, 3, padding=1)
        self.down1 = Residual(c, c, width)
        self.shrink = nn.Conv2d(c, 2 * c, 3, stride=2, padding=1)
        self.mid1 = Residual(2 * c, 2 * c, width)
        self.attention = Attention(2 * c)
        self.mid2 = Residual(2 * c, 2 * c, width)
        self.grow = nn.Conv2d(2 * c, 4 * c, 1)
        self.up1 = Residual(2 * c, c, width)
        self.norm = nn.GroupNorm(8, c)
        self.head = nn.Conv2d(c, 4, 3, padding=1)

    def forward(self, x, t, label):
        condition = self.condition(t, label)
        folded = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        a = self.down1(self.stem(folded), condition)
        h = self.attention(self.mid1(self.shrink(a), condition))
        h = F.pixel_shuffle(self.grow(self.mid2(h, condition)), 2)
        h = self.up1(torch.cat([h, a], dim=1), condition)
        return F.pixel_shuffle(self.head(F.silu(self.norm(h))), 2)


def modulate(x, shift, scale):
    """(B, N, C) tokens, normalised without weights, then scaled and shifted by (B, 1, C)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:]), 1 + scale)


class MixedMLP(nn.Module):
    """Token MLP with a 3x3 depthwise convolution inside, on (B, 49, C) tokens of a 7x7 grid.

    The mix FFN of SegFormer (Xie et al. 2021), as in SANA's diffusion transformer: neighbourhoods
    need not be learned from the position embedding, which shortens the training a lot.
    """

    def __init__(self, channels, inner):
        super().__init__()
        self.enter = nn.Linear(channels, inner)
        self.near = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.leave = nn.Linear(inner, channels)

    def forward(self, x):
        grid = self.enter(x).unflatten(1, (7, 7)).permute(0, 3, 1, 2)
        mixed = (grid + self.near(grid)).permute(0, 2, 3, 1).flatten(1, 2)
        return self.leave(F.gelu(mixed))


class Block(nn.Module):
    """One adaLN-zero transformer block (Peebles & Xie 2023, DiT) on (B, N, C) tokens."""

    def __init__(self, channels, width, heads):
        super().__init__()
        self.heads = heads
        self.modulation = nn.Linear(width, 6 * channels)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.mlp = MixedMLP(channels, 3 * channels)

    def forward(self, x, condition):
        parts = self.modulation(condition)[:, None].chunk(6, dim=-1)
        h = attend(self.qkv(modulate(x, parts[0], parts[1])), self.heads)
        x = torch.addcmul(x, parts[2], self.out(h))
        return torch.addcmul(x, parts[5], self.mlp(modulate(x, parts[3], parts[4])))


class Transformer(nn.Module):
    """DiT with 4x4-pixel patches (49 tokens); a small convolution mends the patches' seams."""

    def __init__(self, channels=128, depth=5, width=64, heads=4, seam=32):
        super().__init__()
        self.condition = Condition(width)
        self.embed = nn.Conv2d(4, channels, 4, stride=2, padding=1)  # 8x8 pixels, overlapping
        self.position = nn.Parameter(torch.zeros(1, 49, channels))
        self.blocks = nn.ModuleList(Block(channels, width, heads) for _ in range(depth))
        self.modulation = nn.Linear(width, 2 * channels)
        self.unembed = nn.Linear(channels, 4 * seam)
        self.mend = nn.Conv2d(seam + 4, seam, 3, padding=1)
        self.head = nn.Conv2d(seam, 4, 3, padding=1)

    def forward(self, x, t, label):
        condition = self.condition(t, label)
        folded = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)
        h = self.embed(folded).permute(0, 2, 3, 1).flatten(1, 2) + self.position
        for block in self.blocks:
            h = block(h, condition)
        shift, scale = self.modulation(condition)[:, None].chunk(2, dim=-1)
        h = self.unembed(modulate(h, shift, scale)).unflatten(1, (7, 7)).permute(0, 3, 1, 2)
        h = torch.cat([F.pixel_shuffle(h, 2), folded], dim=1)
        h = h.contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(self.head(F.silu(self.mend(h))), 2)


class Classifier(nn.Module):
    """Four convolutions, then 64 features, then 10 logits; images (B, 1, 28, 28) in -1..1.

    In Inception's place: Fréchet distances in its features compare samplers of the bundled models alone.
    """

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
