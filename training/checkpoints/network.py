"""(x, sigma, which) -> denoised: a checkpoint's network under guidance, as a k-diffusion denoiser."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..source import guided
from .clocks import Discrete, Flow
from .prompts import Embeddings


@dataclass
class Network:
    """The guided denoiser over prompts known by number.

    ask(x, timestep (B,), context, pooled) -> the network's answer, in its own dtype. cfg counts where a call does not
    bring its own; at 1 the negative prompt is not asked.
    """

    ask: Callable
    clock: Discrete | Flow
    prompts: Embeddings
    cfg: float
    dtype: torch.dtype

    def __call__(self, x: Tensor, sigma: Tensor, which: Tensor, cfg: Tensor | None = None) -> Tensor:
        return guided(self._denoised, self.cfg, null=len(self.prompts.context) - 1)(x, sigma, which.cpu(), cfg)

    def _denoised(self, x: Tensor, sigma: Tensor, rows: Tensor) -> Tensor:
        level = sigma.to(x.dtype).reshape(-1, 1, 1, 1)
        pooled = None if self.prompts.pooled is None else self._to_network(self.prompts.pooled[rows], x)
        answer = self.ask(self.clock.network_input(x, level).to(self.dtype), self.clock.timestep(sigma.float()),
                          self._to_network(self.prompts.context[rows], x), pooled)
        return self.clock.denoised(x, level, answer.to(x.dtype))

    def _to_network(self, rows: Tensor, x: Tensor) -> Tensor:
        return rows.to(x.device, self.dtype, non_blocking=True)


def unet(network, factor: int = 0) -> Callable:
    """Asks the U-Net of Stable Diffusion; factor: pixels of a latent's, for XL, which is told the picture's size."""
    def ask(x, timestep, context, pooled):
        size = [factor * side for side in x.shape[2:]]
        ids = torch.tensor([[*size, 0, 0, *size]], dtype=torch.float32, device=x.device)
        added = {"text_embeds": pooled, "time_ids": ids.expand(len(x), -1)} if factor else None
        return network(x, timestep, encoder_hidden_states=context, added_cond_kwargs=added, return_dict=False)[0]
    return ask


def transformer_flux(network, guidance: float) -> Callable:
    """Asks the transformer of Flux: 2 x 2 patches in, 2 x 2 patches out, states as they are.

    guidance: what a guidance-distilled model is told; None for one that is not. Its clock is told exactly, as hosts
    do: in bf16 diffusers would round 1000 levels to 256.
    """
    exact = {}

    def with_exact_level(module, arguments):
        _, *guided, pooled = arguments
        level = 1000 * exact["timestep"]
        return (level, *(torch.full_like(level, 1000 * guidance) for _ in guided), pooled)
    network.time_text_embed.register_forward_pre_hook(with_exact_level)

    def ask(x, timestep, context, pooled):
        exact["timestep"] = timestep
        h, w = x.shape[2] // 2, x.shape[3] // 2
        patches = rearrange(x, "n c (h p) (w q) -> n (h w) (c p q)", p=2, q=2)
        told_guidance = torch.full((len(x),), guidance, device=x.device) if network.config.guidance_embeds else None
        positions = torch.cartesian_prod(torch.arange(1), torch.arange(h), torch.arange(w))     # 0, row, column
        answer = network(patches, context, pooled, timestep, positions.to(x), x.new_zeros(context.shape[1], 3),
                         told_guidance, return_dict=False)[0]
        return rearrange(answer, "n (h w) (c p q) -> n c (h p) (w q)", h=h, p=2, q=2)
    return ask


def decoder(autoencoder) -> Callable:
    """latents (n, c, h, w) -> images (n, 3, H, W), about -1..1; one image at a time."""
    scale, shift = autoencoder.config.scaling_factor, getattr(autoencoder.config, "shift_factor", None) or 0.0

    def decode(latents: Tensor) -> Tensor:
        states = latents.to(autoencoder.dtype) / scale + shift
        return torch.cat([autoencoder.decode(state[None], return_dict=False)[0] for state in states])
    return decode
