"""What a training shows: latents as pictures, student above teacher while it learns, a labelled sheet at the end."""

from __future__ import annotations

import sys
import time
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
EVERY = 4.0                 # seconds between live previews: each costs a few network calls
INK = "#222222"


# --- latents as pictures --------------------------------------------------------------------------------------------

def painter(base_model, device) -> Callable:
    """latents (n, ...) as the model sees them -> pictures (n, H, W, 3) in 0..1, quickly: through the previewer the user
    has switched on, else the format's linear colours, else grey."""
    latent_format = base_model.latent_format
    previewer = latent_preview.get_previewer(device, latent_format)

    def paint(latents: Tensor) -> Tensor:
        latents = unpacked(base_model, latents)
        if previewer is None:
            return coarse(latent_format, latents)
        pictures = [previewer.decode_latent_to_preview(latents[i:i + 1]) for i in range(len(latents))]
        return torch.stack([torch.from_numpy(np.asarray(p.convert("RGB"), np.float32) / 255) for p in pictures])
    return paint


def unpacked(base_model, latents: Tensor) -> Tensor:
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
    font = ImageFont.load_default(size=max(11, min(18, height // 8), height // 13))
    line = font.size + 8
    wide = max(len(first) * (width + 4), *(int(font.getlength(name)) + 8 for name in rows))
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


def drawn_sheet(found, vae) -> Tensor:
    """The sheet of a training or race as the host's IMAGE (1, H, W, 3): decoded, or of quick pictures without a VAE."""
    if vae is None:
        return parts.image(sheet(found.shown))
    return parts.image(sheet({name: as_pictures(vae, latents) for name, latents in found.latents.items()}))


# --- while it runs --------------------------------------------------------------------------------------------------

class Show:
    """on_progress of a training: the node's bar in network calls, its words, and a live student above its teacher."""

    def __init__(self, node_id):
        self.bar, self.node_id, self.paint = comfy.utils.ProgressBar(1), node_id, None
        self._shown = self._drawn = 0.0

    def __call__(self, progress) -> None:
        now, picture = time.monotonic(), None
        if progress.preview is not None and self.paint is not None and now - self._drawn > EVERY:
            picture = ("JPEG", self._picture(progress), 2 * CELL)
            self._drawn = time.monotonic()
        self.bar.update_absolute(progress.done, max(progress.total, 1), picture)
        if now - self._shown > 1:
            self._shown = now
            self.say(words(progress))

    def _picture(self, progress) -> Image.Image:
        student, teacher = progress.preview()
        return sheet({"learned so far": self.paint(student), "teacher": self.paint(teacher)}, PREVIEW)

    def counted(self, done: int, total: int) -> None:
        """on_progress of a race: the bar alone."""
        self.bar.update_absolute(done, max(done, total))

    def end(self, report: str, drawn: Tensor) -> None:
        """What the node's face keeps: browsers go on showing the last live picture and words, not the node's output."""
        self.bar.update_absolute(self.bar.total, self.bar.total, ("JPEG", as_pil(drawn[0].cpu()), 2 * CELL))
        self.say(report)

    def say(self, text: str) -> None:
        """Words on the node's face."""
        server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
        if server is not None and self.node_id is not None:
            server.send_progress_text(text, self.node_id)


def words(progress) -> str:
    """Where the training stands, in a line."""
    parts = [f"{progress.phase} {progress.table}".strip(), f"{progress.done:,} of {progress.total:,} calls"]
    if np.isfinite(progress.held_out):
        parts.append(f"error {progress.held_out:.4g}")
    if np.isfinite(progress.classical):
        parts.append(f"best classical {progress.classical:.4g}")
    if np.isfinite(progress.seconds_left):
        minutes, seconds = divmod(int(progress.seconds_left), 60)
        parts.append(f"{minutes}:{seconds:02d} left")
    return " · ".join(parts)
