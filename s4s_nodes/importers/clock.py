"""Clocks of published samplers: network time t in (0, 1] to noise level sigma = std / alpha.

Authors give their grids in their own network time; tables are in sigma.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..core import schedules

Clock = Callable[[np.ndarray], np.ndarray]

LDM_BETAS = (0.0015, 0.0195)         # CompVis' latent diffusion models; Stable Diffusion's are schedules.sd_levels()


def continuous(beta_min: float = 0.1, beta_max: float = 20.0) -> Clock:
    """The linear VP process of Song et al. (2021): log alpha = -(beta_max - beta_min) t^2 / 4 - beta_min t / 2."""
    def sigma(time) -> np.ndarray:
        time = np.asarray(time, dtype=np.float64)
        return np.sqrt(np.expm1((beta_max - beta_min) * time ** 2 / 2 + beta_min * time))
    return sigma


def discrete(levels) -> Clock:
    """A trained table of levels at t = 1/N, 2/N, ..., 1, between them linear in log alpha (Lu et al. 2022, code)."""
    log_alphas = -np.log1p(np.asarray(levels, dtype=np.float64) ** 2) / 2
    known = np.arange(1, len(log_alphas) + 1) / len(log_alphas)

    def sigma(time) -> np.ndarray:
        time = np.asarray(time, dtype=np.float64)
        left = np.clip(np.searchsorted(known, time) - 1, 0, len(known) - 2)     # the end pieces go on beyond the ends
        part = (time - known[left]) / (known[left + 1] - known[left])
        return np.sqrt(np.expm1(-2 * (log_alphas[left] + part * (log_alphas[left + 1] - log_alphas[left]))))
    return sigma


stable_diffusion = discrete(schedules.sd_levels())                      # 1.x, 2.x and XL
latent_diffusion = discrete(schedules.sd_levels(*LDM_BETAS))            # CompVis', unconditional and of ImageNet


def alpha(sigma) -> np.ndarray:
    """The factor of the image in a variance-preserving state, 1 / sqrt(1 + sigma^2)."""
    return 1 / np.sqrt(1 + np.asarray(sigma, dtype=np.float64) ** 2)
