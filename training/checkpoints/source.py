"""A checkpoint and its prompts as the trainer's Source."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...s4s_nodes.core import Model
from ...s4s_nodes.core.lists import sizes
from ..config import ModelSettings
from ..sizes import of_sizes
from ..source import MOST_AT_ONCE, Source, by_turns
from . import files, network, prompts
from .loading import Checkpoint, open_checkpoint

AT_ONCE = 8 * 512 * 512         # pixels per network call to begin with; halved when memory runs out
HALF = {"sd3": torch.bfloat16, "flux": torch.bfloat16, "fluxschnell": torch.bfloat16}
FLUX = ("flux", "fluxschnell")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def checkpoint(settings: ModelSettings, cfgs: tuple, device: torch.device, say: Callable = print) -> Source:
    """The checkpoint that these settings name, with its prompts, guided at these cfg scales.

    The text encoders run once and are freed; the network stays on the device, and the autoencoder in full precision.
    Raises ValueError for what cannot work.
    """
    texts = prompts.read(settings.prompts)
    dtype = DTYPES.get(settings.dtype) or (torch.float32 if device.type == "cpu" else torch.float16)
    if settings.dtype == "auto" and device.type == "cuda" and Path(settings.checkpoint).is_file():
        dtype = HALF.get(files.read(settings.checkpoint).family, torch.float16)
    opened = open_checkpoint(settings.checkpoint, dtype, settings.config, say)
    pipeline, clock = opened.pipeline, clock_of(opened, settings)
    (width, height, shape), *_ = several = sizes_of(opened, settings)
    if opened.family in FLUX and max(cfgs) > 1 and not settings.negative:
        own = f" (it gets --guidance {settings.guidance:g})" if opened.family == "flux" else ""
        raise ValueError(f"{opened.path.name} is distilled for guidance{own} and runs at cfg 1: add --cfg 1, or "
                         "--negative prompt if you want to guide it a second time")
    for remark in prompts.remarks(texts, pipeline):
        say(f"WARNING: {remark}")
    rows = prompts.embed(pipeline, texts, settings.negative, device)
    ask = _ask(opened.family, opened.network.to(device).eval().requires_grad_(False), settings, width // shape[-1])
    autoencoder = getattr(pipeline, "vae", None)
    model = Model(opened.family, clock.prediction, float(clock.sigmas[0]), float(clock.sigmas[-1]),
                  clock.zero_terminal_snr, getattr(clock, "shift", None), shape[0],
                  {} if opened.contents is None else files.hashes(opened.contents))
    source = Source(
        opened.path.stem, model, np.asarray(clock.sigmas, dtype=np.float64), shape,
        network.Network(ask, clock, rows, cfgs[0], dtype), by_turns(len(texts), device), cfgs[0], device,
        any_cfg=True, about=about(opened, texts, settings, width, height, dtype),
        decode=None if autoencoder is None else network.decoder(
            autoencoder.to(device).float().eval().requires_grad_(False)))
    return of_sizes([replace(source, shape=shape, chunk=max(1, min(MOST_AT_ONCE, AT_ONCE // (width * height))))
                     for width, height, shape in several], len(texts))


def clock_of(checkpoint: Checkpoint, settings: ModelSettings) -> network.Discrete | network.Flow:
    """Levels and timesteps as the hosts have them for this checkpoint; --shift moves a flow's."""
    scheduler = checkpoint.pipeline.scheduler.config            # of the one that came with it
    if checkpoint.family == "flux":
        return network.flux(float(np.log(settings.shift)) if settings.shift else network.FLUX_SHIFT)
    if checkpoint.family == "fluxschnell":
        return network.flow(settings.shift or 1.0, 1.0)
    if checkpoint.family == "sd3":
        return network.flow(settings.shift or float(scheduler.get("shift", 3.0)))
    if settings.shift:
        raise ValueError(f"--shift {settings.shift:g} is for flows, and {checkpoint.path.name} "
                         f"({checkpoint.family}) is not one: leave it out")
    return network.discrete(scheduler, *files.prediction(checkpoint.contents, settings.prediction, scheduler))


def sizes_of(checkpoint: Checkpoint, settings: ModelSettings) -> list[tuple[int, int, tuple]]:
    """(width, height, the latent's shape) of each size; without either, the first is what the model was made for.

    Raises ValueError for a size that is not whole patches.
    """
    asked = checkpoint.network.config
    autoencoder = getattr(checkpoint.pipeline, "vae", None)
    factor = 8 if autoencoder is None else 2 ** (len(autoencoder.config.block_out_channels) - 1)
    native = factor * (128 if checkpoint.family in FLUX else asked.sample_size)
    first = settings.width or settings.height or native, settings.height or settings.width or native
    several = [first, *sizes(settings.more_sizes, "more_sizes")]
    flow = checkpoint.family in (*FLUX, "sd3")
    step, channels = factor * (2 if flow else 1), asked.in_channels // (4 if checkpoint.family in FLUX else 1)
    for width, height in several:
        if width % step or height % step:
            raise ValueError(f"{width} x {height} is not a whole number of patches: use multiples of {step}")
    return [(width, height, (channels, height // factor, width // factor)) for width, height in several]


def _ask(family: str, asked, settings: ModelSettings, factor: int) -> Callable:
    if family in FLUX:
        return network.transformer_flux(asked, settings.guidance)
    if family == "sd3":
        return lambda x, timestep, context, pooled: asked(x, context, pooled, timestep, return_dict=False)[0]
    return network.unet(asked, factor if family == "sdxl" else 0)


def about(checkpoint: Checkpoint, texts: list[str], settings: ModelSettings, width: int, height: int,
          dtype: torch.dtype) -> dict:
    """What a preset records of how the checkpoint was asked; a resumed run must find the same."""
    digest = hashlib.sha256("\n".join([*texts, settings.negative]).encode()).hexdigest()
    precision = next(name for name, value in DTYPES.items() if value == dtype)
    return {"checkpoint": checkpoint.path.name, "prompts": len(texts), "prompts_sha256": digest[:16],
            "negative": bool(settings.negative), "size": [width, height], "dtype": precision,
            **({"more_sizes": settings.more_sizes} if settings.more_sizes else {}),
            **({"guidance": settings.guidance} if checkpoint.family == "flux" else {})}
