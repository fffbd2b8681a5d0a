"""LoRAs of a checkpoint: added to the weights of network and text encoders once, so that nothing behind it knows.

Names are read and layers found by diffusers and peft, with two things done before: a layer's alpha / rank is multiplied
into its weights, and text encoders' layers are named as transformers has them. diffusers loses some of either, without
a word. What still finds no place is refused: such a network would be another than the one a host samples.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors
from torch import Tensor

from . import files
from .loading import explain

ADAPTER = "s4s"
_PAIR = re.compile(r"(?P<layer>.+?)[._]?lora(\d?[._]|_linear_layer\.)(?P<side>down|up|A|B)\.weight$")
_TEXT = re.compile(r"lora_te(?P<which>[12]?)_text_model_encoder_layers_(?P<at>\d+)_(?P<part>self_attn|mlp)_"
                   r"(?P<name>\w+)")
MENDED = ("Use a LoRA for this kind of model, with layer names that diffusers knows, or merge it into the checkpoint "
          "in a host that can use it")
_MADE_FOR = ("modelspec.architecture", "ss_base_model_version")     # what trainers write into a file's header


@dataclass(frozen=True)
class Lora:
    """A file and how strongly it counts."""

    path: Path
    weight: float = 1.0

    @classmethod
    def of(cls, text: str) -> Lora:
        """FILE or FILE:WEIGHT. Raises ValueError for a weight that is no number."""
        path, colon, weight = text.rpartition(":")
        if not colon or Path(text).exists() or weight.endswith(".safetensors"):      # a drive's colon is a path's
            return cls(Path(text))
        try:
            lora = cls(Path(path), float(weight))
        except ValueError:
            lora = cls(Path(path), math.nan)
        if not math.isfinite(lora.weight):
            raise ValueError(f"--lora {text}: {weight!r} is not a number; use FILE or FILE:WEIGHT, such as "
                             "style.safetensors:0.8")
        return lora

    @property
    def label(self) -> str:
        return f"{self.path.name}:{self.weight:g}"


def about(loras: list[Lora]) -> dict:
    """What a run and its preset remember of them."""
    return {"loras": [lora.label for lora in loras],
            "loras_sha256": [files.digests(lora.path)[0][:16] for lora in loras]} if loras else {}


def check(loras: list[Lora]) -> None:
    """Raises ValueError for a file that is no LoRA or of a kind that is not known, and where peft is not there."""
    if loras and importlib.util.find_spec("peft") is None:
        raise ValueError("--lora needs the library peft, by which diffusers loads LoRAs: pip install "
                         "\"s4s-sampler[checkpoints]\"")
    for lora in loras:
        read(lora.path)


def fuse(pipeline, family: str, loras: list[Lora], say: Callable) -> None:
    """Add the LoRAs to the weights of the pipeline's network and text encoders; say(text) is told of each.

    Raises ValueError for a LoRA that was made for another model.
    """
    for lora in loras:
        tensors, made_for = read(lora.path)
        with explain(f"{lora.path} does not fit this {family}{made_for}", f". {MENDED}"), _hushed():
            layers = in_diffusers_names(pipeline, tensors)
            pipeline.load_lora_weights(dict(layers), adapter_name=ADAPTER)
        wanted, parts = sum(_side(name) == "A" for name in layers), _parts(pipeline)
        fitting = sum(ADAPTER in getattr(module, "lora_A", ()) for part in parts.values() for module in part.modules())
        if fitting < wanted:
            raise ValueError(f"{lora.path} does not fit this {family}{made_for}: {wanted - fitting} of its {wanted} "
                             f"layers have no place there. {MENDED}")
        pipeline.fuse_lora(components=list(parts), lora_scale=lora.weight, adapter_names=[ADAPTER])
        pipeline.unload_lora_weights()
        say(f"added {lora.label}: {wanted} layers")


@contextlib.contextmanager
def _hushed():
    """The libraries keep to themselves that a LoRA for the network alone has nothing for the text encoders."""
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def read(path: Path) -> tuple[dict, str]:
    """(tensors with alpha multiplied in, words on what the file says it was made for). Raises ValueError as `check`."""
    if not path.is_file():
        raise ValueError(f"no LoRA at {path}: name a .safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as .safetensors ({error}): was the download complete?") from None
    if not any(_side(name) for name in tensors):
        raise ValueError(f"{path} is not a LoRA ({len(tensors)} tensors, such as {', '.join(sorted(tensors)[:2])})")
    alphas = {name.removesuffix(".alpha"): float(tensors.pop(name))
              for name in list(tensors) if name.endswith(".alpha")}
    if odd := [name for name in tensors if not _side(name)]:
        raise ValueError(f"{path} is more than a LoRA of plain pairs ({odd[0]}): DoRA, LoHa, LoKr and the like are not "
                         "known here. Merge it into the checkpoint in a host, or train inside one")
    made_for = next((str(about[name]) for name in _MADE_FOR if about.get(name)), "")
    return with_alphas(tensors, alphas), f" (its file says {json.dumps(made_for)})" if made_for else ""


def with_alphas(tensors: dict, alphas: dict) -> dict:
    """The pairs with alpha / rank in their upper halves, as every loader multiplies them; without an alpha, 1."""
    def layer_of(name: str) -> str:
        match = _PAIR.match(name)
        return match["layer"] if match else ""
    ranks = {layer_of(name): len(tensor) for name, tensor in tensors.items() if _side(name) == "A"}

    def weight(name: str, tensor: Tensor) -> Tensor:
        layer = layer_of(name)
        if _side(name) == "A" or layer not in alphas or layer not in ranks:
            return tensor
        return tensor.float() * (alphas[layer] / ranks[layer])
    return {name: weight(name, tensor) for name, tensor in tensors.items()}


def in_diffusers_names(pipeline, tensors: dict) -> dict:
    """The tensors under diffusers' names of parts and layers."""
    texts = {name: match for name in tensors if (match := _TEXT.match(name))}
    rest = {name: tensor for name, tensor in tensors.items() if name not in texts}
    if rest:
        options = {"unet_config": pipeline.unet.config} if hasattr(pipeline, "unet") else {}
        state = pipeline.lora_state_dict(rest, **options)
        rest = dict(state[0] if isinstance(state, tuple) else state)
    for name, at in texts.items():
        part = "text_encoder_2" if at["which"] == "2" else "text_encoder"
        layer = f"{part}.text_model.encoder.layers.{at['at']}.{at['part']}.{at['name']}"
        rest[f"{layer}.lora_{_side(name)}.weight"] = tensors[name]
    return rest


def _side(name: str) -> str:
    """A: the lower half of a pair, B: the upper; "": neither."""
    match = _PAIR.match(name)
    return "" if match is None else {"down": "A", "up": "B"}.get(match["side"], match["side"])


def _parts(pipeline) -> dict:
    """The parts that a LoRA can change, by name."""
    parts = {name: getattr(pipeline, name, None) for name in pipeline._lora_loadable_modules}
    return {name: part for name, part in parts.items() if part is not None}
