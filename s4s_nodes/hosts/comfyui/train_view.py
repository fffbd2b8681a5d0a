"""Latents as pictures, and pictures as labelled sheets."""

from __future__ import annotations

from collections.abc import Callable

import comfy.utils
import latent_preview
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from . import parts

CELL = 512                  # pixels: the widest cell of a sheet
PREVIEW = 192               # and of a live preview
INK = "#222222"


# --- latents as pictures --------------------------------------------------------------------------------------------

def painter(base_model, device) -> Callable:
    """latents (n, ...) as the model sees them -> pictures (n, H, W, 3) in 0..1, quickly: through the previewer the user
    has switched on, else the format's linear colours, else grey."""
    latent_format = base_model.latent_format
    previewer = latent_preview.get_previewer(device, latent_format)

    def paint(latents: Tensor) -> Tensor:
        latents = unpack(base_model, latents)
        if previewer is None:
            return coarse(latent_format, latents)
        pictures = [previewer.decode_latent_to_preview(latents[i:i + 1]) for i in range(len(latents))]
        return torch.stack([torch.from_numpy(np.asarray(p.convert("RGB"), np.float32) / 255) for p in pictures])
    return paint


def unpack(base_model, latents: Tensor) -> Tensor:
    """The pictures of a packed latent: of a model with sound, the video alone."""
    shapes = getattr(base_model, "latent_shapes", None) or []
    return comfy.utils.unpack_latents(latents, shapes)[0] if len(shapes) > 1 else latents


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


# --- sheets ---------------------------------------------------------------------------------------------------------

def sheet(rows: dict[str, Tensor], cell: int = CELL) -> Image.Image:
    """Pictures side by side, one labelled row per entry: name -> (n, H, W, 3), the same seeds in a column."""
    first = next(iter(rows.values()))
    zoom = min(16, cell / max(first.shape[1:3]))
    width, height = max(1, int(first.shape[2] * zoom)), max(1, int(first.shape[1] * zoom))
    wide, longest = len(first) * (width + 4), max(map(len, rows))
    font = ImageFont.load_default(size=max(11, min(height // 8, 2 * wide // longest)))       # read on a small node too
    line = int(font.size) + 8
    wide = max(wide, *(int(font.getlength(name)) + 8 for name in rows))
    page = Image.new("RGB", (wide, len(rows) * (height + line)), "white")
    draw = ImageDraw.Draw(page)
    for r, (name, pictures) in enumerate(rows.items()):
        draw.text((4, r * (height + line) + 2), name, fill=INK, font=font)
        for c, picture in enumerate(pictures):
            page.paste(as_pil(picture, (width, height)), (c * (width + 4), r * (height + line) + line))
    return page


def as_pil(picture: Tensor, size: tuple | None = None) -> Image.Image:
    """(H, W, 3) in 0..1 as a PIL picture of this size; enlarged without smoothing, so that latents stay honest."""
    pixels = Image.fromarray((picture.numpy() * 255).round().astype(np.uint8))
    if size is None:
        return pixels
    return pixels.resize(size, Image.NEAREST if size[0] > pixels.width else Image.LANCZOS)


def drawn_sheet(shown: dict, latents: dict, vae) -> Tensor:
    """The sheet of a training or race as the host's IMAGE (1, H, W, 3): decoded, or of quick pictures without a VAE."""
    if vae is None:
        return parts.image(sheet(shown))
    return parts.image(sheet({name: as_pictures(vae, some) for name, some in latents.items()}))
