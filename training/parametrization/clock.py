"""The paper's clock: a network told another time than its state's sees the state as it is; the arithmetic stays.

A host's denoiser scales what the network sees for the level it is told. The paper's does not: eps(x, t + offset) is
asked for x's own input, and D = x - sigma eps uses x's own sigma (S4S, LD3 section 3.3, GS). Both come out of a host's
denoiser: `scale` undoes the scaling, and the D meant is u x + v D, linear in what the host answers.
"""

from __future__ import annotations

import torch
from torch import Tensor


def shown_scale(prediction: str, sigmas: Tensor, query: Tensor) -> Tensor:
    """Factor (N,) on the state with which a network told `query` sees the input of `sigmas`; for a flow 1."""
    return torch.ones_like(query) if prediction == "flow" else torch.sqrt((1 + query ** 2) / (1 + sigmas ** 2))


def meant(prediction: str, sigmas: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    """(u, v), (N,) each: the paper's prediction is u x + v D where a host's denoiser, so shown, answers D."""
    ratio, scale = sigmas / query, shown_scale(prediction, sigmas, query)
    if prediction == "x0":
        return torch.zeros_like(query), torch.ones_like(query)
    if prediction == "v":
        return (1 - ratio) / (1 + sigmas ** 2), ratio * scale
    return 1 - ratio * scale, ratio
