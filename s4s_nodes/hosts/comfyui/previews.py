"""Latents as pictures."""

from collections.abc import Callable

import latent_preview
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from . import parts


def painter(base_model, device) -> Callable:
    """latents (n, ...) as the model sees them -> pictures (n, H, W, 3) in 0..1, quickly: through the previewer the user
    has switched on, else the format's linear colours, else grey."""
    latent_format = base_model.latent_format
    previewer = latent_preview.get_previewer(device, latent_format)

    def paint(latents: Tensor) -> Tensor:
        if previewer is None:
            return coarse(latent_format, latents)
        return parts.image(*(previewer.decode_latent_to_preview(latents[i:i + 1]) for i in range(len(latents))))
    return paint


def coarse(latent_format, latents: Tensor) -> Tensor:
    """Pictures (n, H, W, 3) of a latent's first frame without a decoder: linear colours, or grey where unknown."""
    if (reshape := getattr(latent_format, "latent_rgb_factors_reshape", None)) is not None:
        latents = reshape(latents)
    flat = latents.float().cpu()
    flat = flat[:, :, 0] if flat.ndim == 5 else flat[:, :, None] if flat.ndim == 3 else flat
    factors = getattr(latent_format, "latent_rgb_factors", None)
    if factors is None or len(factors) != flat.shape[1]:
        grey = flat.mean(1)
        grey = (grey - grey.mean()) / (4 * grey.std().clamp(min=1e-6)) + 0.5
        return grey.clamp(0, 1)[..., None].expand(-1, -1, -1, 3)
    colours = torch.einsum("nchw,cr->nhwr", flat, torch.tensor(factors))
    bias = getattr(latent_format, "latent_rgb_factors_bias", None)
    return ((colours + (0 if bias is None else torch.tensor(bias)) + 1) / 2).clamp(0, 1)


def as_pictures(vae, latents: Tensor) -> Tensor:
    """Pictures (n, H, W, 3) of latents as a VAE takes them; of a video the first frame."""
    pictures = vae.decode(latents).float().cpu()
    return (pictures[:, 0] if pictures.ndim == 5 else pictures).clamp(0, 1)


def as_pil(pictures: Tensor) -> list[Image.Image]:
    """Pictures (n, H, W, 3) in 0..1 as PIL's."""
    return [Image.fromarray(each) for each in (pictures.numpy() * 255).round().astype(np.uint8)]
