"""The MMDiT of Stable Diffusion 3 at a small size, in plain torch: the network of emoji_sd3.safetensors.

Esser et al. (2024), figure 2, with the normalised queries and keys and the second self-attention of SD 3.5. Names of
weights, wiring and numbers are those of a host that opens the file; only what this size needs is here.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tests.assets.emoji.conditions import POOLED, WIDTH

FILE = Path(__file__).parent / "emoji_sd3.safetensors"
PREFIX = "model.diffusion_model."       # of every weight in the file: a checkpoint names its diffusion model so
DEPTH = 2                               # blocks, and heads; the width is 64 per head
HIDDEN = 64 * DEPTH
CHANNELS, PATCH, SIZE = 16, 2, 8        # of the latent: channels, side of a patch, side of what it was trained on
PLACES = 16                             # patches along a side that the file has positions for
WAVES = 128                             # cosines, and as many sines, of the time embedding


def linears(*sizes: int) -> nn.Sequential:
    """Linear layers with SiLU between."""
    layers = [nn.Linear(sizes[0], sizes[1])]
    for inner, outer in zip(sizes[1:], sizes[2:]):
        layers += [nn.SiLU(), nn.Linear(inner, outer)]
    return nn.Sequential(*layers)


class Embedding(nn.Module):
    """A vector -> (B, HIDDEN)."""

    def __init__(self, width: int):
        super().__init__()
        self.mlp = linears(width, HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


def waves(time: Tensor) -> Tensor:
    """Time (B,) in 0..1000 -> (B, 2 WAVES): cosines, then sines, of 1 down to 1e-4 radian per unit of time."""
    rates = torch.exp(-math.log(10000) * torch.arange(WAVES, dtype=time.dtype, device=time.device) / WAVES)
    angle = time[:, None] * rates
    return torch.cat([angle.cos(), angle.sin()], dim=1)


class Modulation(nn.Module):
    """The condition (B, HIDDEN) -> `parts` vectors (B, 1, HIDDEN) that shift, scale and gate."""

    def __init__(self, parts: int):
        super().__init__()
        self.parts = parts
        self.add_module("1", nn.Linear(HIDDEN, parts * HIDDEN))         # 0 is the SiLU

    def forward(self, condition: Tensor) -> tuple[Tensor, ...]:
        return self.get_submodule("1")(F.silu(condition))[:, None].chunk(self.parts, dim=2)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights of its own, then scale and shift."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class HeadNorm(nn.Module):
    """Root mean square norm over a head's 64 numbers."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(64))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weight, eps=1e-6)


class Attention(nn.Module):
    """Queries, keys and values of tokens (B, N, HIDDEN), and the projection of what attending gave."""

    def __init__(self, projects: bool):
        super().__init__()
        self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.ln_q, self.ln_k = HeadNorm(), HeadNorm()
        if projects:
            self.proj = nn.Linear(HIDDEN, HIDDEN)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three of (B, heads, N, 64)."""
        q, k, v = self.qkv(x).unflatten(2, (3, DEPTH, 64)).permute(2, 0, 3, 1, 4)
        return self.ln_q(q), self.ln_k(k), v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Three of (B, heads, N, 64) -> (B, N, HIDDEN)."""
    # Written out: for two dozen tokens the fused kernel's backward pass is slower on a CPU.
    weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(dim=-1)
    return (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Stream(nn.Module):
    """One side of a block, the picture's or the context's: modulation, attention, mlp.

    last: the side ends here and gives keys and values only. twice: a second attention among its own tokens.
    """

    def __init__(self, last: bool = False, twice: bool = False):
        super().__init__()
        self.last, self.twice = last, twice
        self.adaLN_modulation = Modulation(2 if last else 9 if twice else 6)
        self.attn = Attention(projects=not last)
        if twice:
            self.attn2 = Attention(projects=True)
        if not last:
            self.mlp = Mlp()

    def finish(self, x: Tensor, attended: Tensor, parts: tuple[Tensor, ...]) -> Tensor:
        """The tokens after attention and mlp; parts are those of the modulation."""
        _, _, gate, shift_mlp, scale_mlp, gate_mlp, *second = parts
        ahead = x + gate * self.attn.proj(attended)
        if self.twice:
            shift, scale, gate = second
            ahead = ahead + gate * self.attn2.proj(attend(*self.attn2.heads(modulated(x, shift, scale))))
        return ahead + gate_mlp * self.mlp(modulated(ahead, shift_mlp, scale_mlp))


class Block(nn.Module):
    """Picture and context attend to all tokens of both, each with weights of its own."""

    def __init__(self, last: bool):
        super().__init__()
        self.context_block = Stream(last=last)
        self.x_block = Stream(twice=True)

    def forward(self, context: Tensor, x: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        of_context, of_x = self.context_block.adaLN_modulation(condition), self.x_block.adaLN_modulation(condition)
        left = self.context_block.attn.heads(modulated(context, *of_context[:2]))
        right = self.x_block.attn.heads(modulated(x, *of_x[:2]))
        attended = attend(*(torch.cat(pair, dim=2) for pair in zip(left, right)))
        from_context, from_x = attended.split([context.shape[1], x.shape[1]], dim=1)
        if not self.context_block.last:
            context = self.context_block.finish(context, from_context, of_context)
        return context, self.x_block.finish(x, from_x, of_x)


class Final(nn.Module):
    """Tokens -> the numbers of a patch."""

    def __init__(self):
        super().__init__()
        self.adaLN_modulation = Modulation(2)
        self.linear = nn.Linear(HIDDEN, PATCH * PATCH * CHANNELS)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.linear(modulated(x, *self.adaLN_modulation(condition)))


class Patches(nn.Module):
    """Latent (B, 16, H, W) -> tokens (B, H W / 4, HIDDEN)."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(CHANNELS, HIDDEN, PATCH, PATCH)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class MMDiT(nn.Module):
    """(x, sigma, context, pooled) -> the velocity noise - x0 of a rectified flow x = (1 - sigma) x0 + sigma noise.

    x is (B, 16, H, W) in the scaled latent space of SD3, H and W even and at most 32; sigma is (B,) in 0..1.
    """

    def __init__(self):
        super().__init__()
        self.x_embedder = Patches()
        self.t_embedder = Embedding(2 * WAVES)
        self.y_embedder = Embedding(POOLED)
        self.context_embedder = nn.Linear(WIDTH, HIDDEN)
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, PLACES ** 2, HIDDEN))
        self.joint_blocks = nn.ModuleList(Block(last=i == DEPTH - 1) for i in range(DEPTH))
        self.final_layer = Final()

    def positions(self, high: int, wide: int) -> Tensor:
        """The middle (1, high * wide, HIDDEN) of the square of positions."""
        top, left = (PLACES - high) // 2, (PLACES - wide) // 2
        square = self.pos_embed.unflatten(1, (PLACES, PLACES))
        return square[:, top:top + high, left:left + wide].flatten(1, 2)

    def forward(self, x: Tensor, sigma: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        high, wide = x.shape[2] // PATCH, x.shape[3] // PATCH
        tokens = self.x_embedder(x) + self.positions(high, wide)
        condition = self.t_embedder(waves(1000 * sigma)) + self.y_embedder(pooled)
        context = self.context_embedder(context)
        for block in self.joint_blocks:
            context, tokens = block(context, tokens, condition)
        patches = self.final_layer(tokens, condition).unflatten(2, (PATCH, PATCH, CHANNELS)).unflatten(1, (high, wide))
        return patches.permute(0, 5, 1, 3, 2, 4).reshape(x.shape)

    def denoise(self, x: Tensor, sigma: Tensor, context: Tensor, pooled: Tensor) -> Tensor:
        """The estimate of the clean latent, as x."""
        return x - sigma[:, None, None, None] * self(x, sigma, context, pooled)


def load(path=FILE) -> MMDiT:
    """The trained network in float32, in eval mode, its weights frozen."""
    network = MMDiT()
    weights = load_file(path)
    network.load_state_dict({name.removeprefix(PREFIX): weight.float() for name, weight in weights.items()})
    return network.eval().requires_grad_(False)
