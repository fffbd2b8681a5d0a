"""How a checkpoint's network is asked at a noise level: the levels, the input's scale, the timestep, the answer.

The same numbers as in the hosts (ComfyUI's model_sampling: ModelSamplingDiscrete, ModelSamplingDiscreteFlow and
ModelSamplingFlux, with EPS, V_PREDICTION and CONST; Forge has the same), as tests/checkpoints/test_clocks.py shows.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ...s4s_nodes.core import schedules

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
