"""A checkpoint's network as a k-diffusion denoiser: how it is asked at a noise level, and under guidance.

The clocks hold the levels, the input's scale, the timestep and what the answer means. They have the same numbers as in
the hosts (ComfyUI's model_sampling: ModelSamplingDiscrete, ModelSamplingDiscreteFlow and ModelSamplingFlux, with EPS,
V_PREDICTION and CONST; Forge has the same), as tests/checkpoints/test_clocks.py shows.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ...s4s_nodes.core import schedules
from ..source import guided
from .prompts import Embeddings

LAST_ALPHA = 4.8973451890853435e-08     # what the hosts put in place of a terminal alpha of 0
FLUX_SHIFT = 1.15                       # mu; the hosts take the one of 1024 x 1024 for every size
FLUX_LEVELS = 10_000


@dataclass(frozen=True)
class Discrete:
    """States x0 + sigma noise; the network is told one of its whole timesteps, the nearest in log sigma.

    sigmas, logs: float32, rising, one per timestep. prediction: eps, or v (Salimans and Ho, 2022): what it answers.
    """

    sigmas: Tensor
    logs: Tensor
    prediction: str = "eps"
    zero_terminal_snr: bool = False

    def network_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        """c_in x: unit variance for data of unit variance."""
        return x / (sigma ** 2 + 1) ** 0.5

    def timestep(self, sigma: Tensor) -> Tensor:
        levels = self.logs.to(sigma.device)
        return (sigma.log().float() - levels[:, None]).abs().argmin(dim=0).to(sigma.dtype)

    def denoised(self, x: Tensor, sigma: Tensor, answer: Tensor) -> Tensor:
        if self.prediction == "eps":
            return x - sigma * answer
        return x / (sigma ** 2 + 1) - answer * sigma / (sigma ** 2 + 1) ** 0.5


@dataclass(frozen=True)
class Flow:
    """States (1 - s) x0 + s noise, the answer noise - x0; the network is told `steps` times s, not rounded.

    sigmas: float32, rising, of the model's own shifted schedule.
    """

    sigmas: Tensor
    shift: float
    steps: float = 1000.0
    prediction: str = "flow"
    zero_terminal_snr: bool = False

    def network_input(self, x: Tensor, sigma: Tensor) -> Tensor:
        return x

    def timestep(self, sigma: Tensor) -> Tensor:
        return sigma * self.steps

    def denoised(self, x: Tensor, sigma: Tensor, answer: Tensor) -> Tensor:
        return x - sigma * answer


def discrete(scheduler: dict, v: bool, zero_terminal_snr: bool) -> Discrete:
    """The clock of Stable Diffusion 1, 2 and XL, from a diffusers scheduler's configuration.

    Raises ValueError for betas that are given one by one, or follow an unknown schedule.
    """
    kind, steps = scheduler.get("beta_schedule", "scaled_linear"), int(scheduler.get("num_train_timesteps", 1000))
    first, last = scheduler.get("beta_start", 0.00085), scheduler.get("beta_end", 0.012)
    own = "" if scheduler.get("trained_betas") is None else " with betas of its own"
    if own or kind not in ("linear", "scaled_linear"):
        raise ValueError(f"the checkpoint's noise schedule is {kind!r}{own}: linear and scaled_linear are known")
    betas = {"beta_start": first, "beta_end": last, "count": steps, "root": 2 if kind == "scaled_linear" else 1}
    sigmas = torch.from_numpy(schedules.zero_snr_levels(((1 - LAST_ALPHA) / LAST_ALPHA) ** 0.5, **betas)
                              if zero_terminal_snr else schedules.sd_levels(**betas))
    return Discrete(sigmas.float(), sigmas.log().float(), "v" if v else "eps", zero_terminal_snr)


def flow(shift: float, steps: float = 1000.0) -> Flow:
    """The clock of Stable Diffusion 3 (shift 3) and Flux schnell (shift 1, steps 1)."""
    times = torch.arange(1, 1001) / 1000 * steps / steps            # as the host has it, rounding and all
    return Flow(times if shift == 1 else schedules.shifted(times, shift), shift, steps)


def flux(mu: float = FLUX_SHIFT) -> Flow:
    """The clock of Flux dev: s = e^mu / (e^mu + 1/t - 1), told as it is."""
    times = torch.arange(1, FLUX_LEVELS + 1) / FLUX_LEVELS
    return Flow(math.exp(mu) / (math.exp(mu) + (1 / times - 1)), math.exp(mu), 1.0)


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
