"""A checkpoint and its prompts as the trainer's Source."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from ...s4s_nodes.core import Model
from ..source import MOST_AT_ONCE, Source
from . import clocks, files, loras, network, prompts
from .loading import Opened, Places, opened

AT_ONCE = 8 * 512 * 512         # pixels per network call to begin with; halved when memory runs out
HALF = {"sd3": torch.bfloat16, "flux": torch.bfloat16, "fluxschnell": torch.bfloat16}
FLUX = ("flux", "fluxschnell")
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def checkpoint(config, device: torch.device, say: Callable = print) -> Source:
    """The checkpoint a configuration names, with its prompts. Raises ValueError in words for what cannot work.

    The text encoders run once and are freed; the network stays on the device, and the autoencoder in full precision
    beside it.
    """
    texts = prompts.read(config.prompts)
    loras.check(config.loras)                                           # before gigabytes are opened for nothing
    dtype = DTYPES.get(config.dtype) or (torch.float32 if device.type == "cpu" else torch.float16)
    if config.dtype == "auto" and device.type == "cuda":
        dtype = HALF.get(_family(config.checkpoint), torch.float16)
    found = opened(config.checkpoint, dtype, Places(config.config, config.text_encoders, config.vae), say)
    loras.fuse(found.pipeline, found.family, config.loras, say)         # before the text encoders are asked
    return source_of(found, texts, config, device, dtype, say)


def _family(path: str) -> str:
    """The family of a single file, to choose a precision by; "" of a folder."""
    return files.read(path).family if Path(path).is_file() else ""


def source_of(found: Opened, texts: list[str], config, device: torch.device, dtype: torch.dtype, say) -> Source:
    """The Source of an opened checkpoint."""
    pipeline, clock = found.pipeline, clock_of(found, config)
    width, height, shape = size_of(found, config)
    _check_guidance(found, config)
    for words in prompts.remarks(texts, pipeline):
        say(f"WARNING: {words}")
    rows = prompts.embedded(pipeline, texts, config.negative, device)
    asked = found.network.to(device).eval().requires_grad_(False)
    asked.enable_gradient_checkpointing()           # a backward pass at the memory of one block, not of all
    cfg, count = config.cfg[0], len(texts)

    def conditions(seeds):
        return {"which": torch.tensor([int(seed) % count for seed in seeds], device=device)}
    guided = network.Network(_ask(found.family, asked, config, width, height), clock, rows, cfg, dtype)
    autoencoder = getattr(pipeline, "vae", None)
    return Source(
        found.path.stem, model_of(found, clock, shape[0]), np.asarray(clock.sigmas, dtype=np.float64), shape, guided,
        conditions, cfg, device, chunk=max(1, min(MOST_AT_ONCE, AT_ONCE // (width * height))),
        any_cfg=True, about=about(found, texts, config, width, height, dtype),
        decode=None if autoencoder is None else network.decoder(
            autoencoder.to(device).float().eval().requires_grad_(False)))


def clock_of(found: Opened, config) -> clocks.Discrete | clocks.Flow:
    """Levels and timesteps as the hosts have them for this checkpoint; --shift moves a flow's."""
    if found.family == "flux":
        return clocks.flux(float(np.log(config.shift)) if config.shift else clocks.FLUX_SHIFT)
    if found.family == "fluxschnell":
        return clocks.flow(config.shift or 1.0, 1.0)
    if found.family == "sd3":
        return clocks.flow(config.shift or float(found.scheduler.get("shift", 3.0)))
    if config.shift:
        raise ValueError(f"--shift {config.shift:g} moves a flow's levels, and {found.path.name} is {found.family}, "
                         "which is none: leave it out")
    if found.contents is not None:
        return clocks.discrete(found.scheduler, *files.prediction(found.contents, config.prediction, found.scheduler))
    v, zero_terminal = files.scheduled_prediction(found.scheduler)
    if config.prediction != "auto":
        v, zero_terminal = config.prediction != "eps", config.prediction == "v_zsnr"
    return clocks.discrete(found.scheduler, v, zero_terminal)


def size_of(found: Opened, config) -> tuple[int, int, tuple]:
    """(width, height, the latent's shape); without either, the size the model was made for.

    Raises ValueError for a size that is not whole patches.
    """
    settings = found.network.config
    autoencoder = getattr(found.pipeline, "vae", None)
    factor = 8 if autoencoder is None else 2 ** (len(autoencoder.config.block_out_channels) - 1)
    native = factor * (128 if found.family in FLUX else settings.sample_size)
    width, height = config.width or config.height or native, config.height or config.width or native
    flow = found.family in (*FLUX, "sd3")
    step, channels = factor * (2 if flow else 1), settings.in_channels // (4 if found.family in FLUX else 1)
    if width % step or height % step:
        raise ValueError(f"a picture of {width} x {height} is no whole number of patches: expected multiples of "
                         f"{step}")
    return width, height, (channels, height // factor, width // factor)


def _check_guidance(found: Opened, config) -> None:
    if found.family in FLUX and max(config.cfg) > 1 and not config.negative:
        told = f" (--guidance {config.guidance:g} is told to it)" if found.family == "flux" else ""
        raise ValueError(f"{found.path.name} is distilled for guidance{told} and runs at cfg 1: add --cfg 1, or give a "
                         "--negative prompt if you do mean to guide it a second time")


def _ask(family: str, asked, config, width: int, height: int) -> Callable:
    """How this family's network is asked."""
    if family in FLUX:
        return network.transformer_flux(asked, config.guidance)
    if family == "sd3":
        return network.transformer_sd3(asked)
    return network.unet_xl(asked, width, height) if family == "sdxl" else network.unet(asked)


def model_of(found: Opened, clock, channels: int) -> Model:
    """What a preset records of the model, so that the hosts choose it for this very file."""
    return Model(found.family, clock.prediction, float(clock.sigmas[0]), float(clock.sigmas[-1]),
                 clock.zero_terminal_snr, getattr(clock, "shift", None), channels,
                 {} if found.contents is None else files.hashes(found.contents))


def about(found: Opened, texts: list[str], config, width: int, height: int, dtype: torch.dtype) -> dict:
    """What a preset records of how the checkpoint was asked; a run that goes on must find the same."""
    digest = hashlib.sha256("\n".join([*texts, config.negative]).encode()).hexdigest()
    precision = next(name for name, value in DTYPES.items() if value == dtype)
    return {"checkpoint": found.path.name, "prompts": len(texts), "prompts_sha256": digest[:16],
            "negative": bool(config.negative), "size": [width, height], "dtype": precision,
            **({"guidance": config.guidance} if found.family == "flux" else {}),
            **loras.about(config.loras)}
