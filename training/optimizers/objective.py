"""Distances (student, target) -> (B,): how far a few calls end from where the teacher ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ...s4s_nodes.core import sample

CHARBONNIER_C = 0.03        # a smaller difference counts squared, a larger one as it is; latents have deviation 1
LPIPS = "lpips"
LPIPS_SIZE = 224            # smaller images are enlarged to what VGG was trained on, as GS (arXiv 2510.17699) does


def rmse(student: Tensor, target: Tensor) -> Tensor:
    """Root mean square of each item's difference: large misses count once, not squared."""
    return mse(student, target).clamp(min=1e-12).sqrt()


def mse(student: Tensor, target: Tensor) -> Tensor:
    """Mean square of each item's difference."""
    return (student - target).flatten(1).square().mean(1)


def l1(student: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of each item."""
    return (student - target).flatten(1).abs().mean(1)


def pseudo_huber(student: Tensor, target: Tensor) -> Tensor:
    """Mean over each item of sqrt(difference^2 + c^2) - c (Charbonnier et al. 1997), c = CHARBONNIER_C."""
    squares = (student - target).flatten(1).square()
    return (squares + CHARBONNIER_C ** 2).sqrt().mean(1) - CHARBONNIER_C


OBJECTIVES = {"rmse": rmse, "mse": mse, "l1": l1, "pseudo_huber": pseudo_huber}
NAMES = (*OBJECTIVES, LPIPS)


def objective_of(name: str, source) -> Callable:
    """The distance of this name. lpips compares the images that the source's `decode` makes of latents.

    Raises ValueError if lpips lacks its packages or weights, or the source makes no images.
    """
    if name != LPIPS:
        return OBJECTIVES[name]
    decode = source.decode or (lambda latent: latent)
    as_images(decode(torch.zeros(1, *source.shape, device=source.device)))
    network = perceptual_network().to(source.device)

    def lpips(student: Tensor, target: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = as_images(decode(target))
        return network(as_images(decode(student)), wanted).flatten()
    return lpips


def distances(source, parameters, vector: Tensor, pairs, objective: Callable) -> Tensor:
    """Each pair's objective (B,) under these free numbers, differentiable in them and in the pairs' noise."""
    start = pairs.start(float(parameters.start[0]), source.flow)
    return objective(sample(source.denoiser, start, parameters.table(vector), pairs.extra), pairs.target)


def as_images(decoded: Tensor) -> Tensor:
    """Images in -1..1 as LPIPS takes them: (B, 3, H, W), clipped, the shorter side at least LPIPS_SIZE."""
    if decoded.ndim != 4 or decoded.shape[1] not in (1, 3):
        raise ValueError(f"objective lpips was given images of shape {tuple(decoded.shape)}, (B, 1 or 3, H, W) is "
                         "wanted: give the Source a `decode` that makes images of its latents, or use pseudo_huber")
    images = decoded.float().clamp(-1, 1).expand(-1, 3, -1, -1)
    enlarged = LPIPS_SIZE / min(images.shape[2:])
    if enlarged <= 1:
        return images
    size = [round(side * enlarged) for side in images.shape[2:]]
    return interpolate(images, size, mode="bilinear", align_corners=False)


@lru_cache(maxsize=1)
def perceptual_network():
    """LPIPS (Zhang et al. 2018) on VGG-16, frozen: (images, images) -> (B, 1, 1, 1), of the library torchmetrics."""
    try:
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        return LearnedPerceptualImagePatchSimilarity(net_type="vgg").net
    except OSError as error:                                # torchvision fetches the weights of VGG once
        folder = f"{torch.hub.get_dir()}/checkpoints"
        raise ValueError(f"objective lpips needs VGG-16's weights, which could not be fetched ({error}): put "
                         f"torchvision's vgg16-397923af.pth into {folder}, or use pseudo_huber") from None
    except (ImportError, RuntimeError) as error:            # RuntimeError: a torchvision for another torch
        raise ValueError(f"objective lpips needs torchmetrics and torchvision ({error}): pip install torchmetrics "
                         "torchvision, or use pseudo_huber") from None
