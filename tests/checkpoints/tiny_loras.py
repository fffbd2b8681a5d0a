"""Small random LoRAs for the tiny pipelines, in the two common namings, and the same weights added by hand.

`Made.of(folder, parts)` draws the pairs; `kohya(made, path)` and `peft(made, path)` write them; `by_hand(made, ...)`
writes the pipeline's folder with weight * alpha / rank * up @ down added.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.tiny_originals import unet, weights

NETWORK = (".to_q", ".to_k", ".to_out.0", ".ff.net.0.proj", ".proj_in", ".conv1")
TEXT = (".q_proj", ".v_proj", ".fc1")
CHANGED = {"unet": NETWORK, "transformer": NETWORK, "text_encoder": TEXT, "text_encoder_2": TEXT}


@dataclass(frozen=True)
class Made:
    """(part, layer) -> (down, up, alpha) of a folder's parts, layers as its files name them."""

    folder: Path
    pairs: dict

    @classmethod
    def of(cls, folder: Path, parts: tuple, seed: int = 0) -> Made:
        """Ranks and alphas differ from layer to layer, as no loader may overlook."""
        generator, pairs = torch.Generator().manual_seed(seed), {}
        for part in parts:
            known = {name.removesuffix(".weight"): tensor for name, tensor in weights(folder / part).items()}
            for i, layer in enumerate(sorted(name for name in known if name.endswith(CHANGED[part]))):
                weight, rank = known[layer], 2 + 2 * (i % 2)
                down = 0.2 * torch.randn(rank, *weight.shape[1:], generator=generator)
                up = 0.2 * torch.randn(weight.shape[0], rank, *[1] * (weight.ndim - 2), generator=generator)
                pairs[part, layer] = (down, up, (1.0, 4.0, 3.0)[i % 3])
        return cls(folder, pairs)


def kohya(made: Made, path: Path, xl: bool = False) -> Path:
    """As kohya's scripts name them: sgm's layers for the network of XL, else diffusers'."""
    tensors, network = {}, weights(made.folder / "unet")
    sgm = dict(zip(network, unet(network)))
    for (part, layer), (down, up, alpha) in made.pairs.items():
        if part == "unet":
            name = sgm[f"{layer}.weight"].removesuffix(".weight") if xl else layer
            flat = f"lora_unet_{name}".replace(".", "_")
        else:
            which = {"text_encoder": "1" if xl else "", "text_encoder_2": "2"}[part]
            flat = f"lora_te{which}_" + whole(layer).replace(".", "_")
        tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up,
                    f"{flat}.alpha": torch.tensor(alpha)}
    return saved(tensors, path)


def peft(made: Made, path: Path) -> Path:
    """As diffusers saves them, which has no alpha: it is in the upper half."""
    tensors = {}
    for (part, layer), (down, up, alpha) in made.pairs.items():
        name = f"{part}.{layer if part in ('unet', 'transformer') else whole(layer)}"
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up * alpha / len(down)}
    return saved(tensors, path)


def by_hand(made: Made, weight: float, path: Path) -> Path:
    """The pipeline's folder with the LoRA in its weights."""
    shutil.copytree(made.folder, path)
    for part in {part for part, _ in made.pairs}:
        for file in (path / part).glob("*.safetensors"):
            tensors = load_file(file)
            for (where, layer), (down, up, alpha) in made.pairs.items():
                if where == part:
                    change = (up.flatten(1) @ down.flatten(1)) * (weight * alpha / len(down))
                    tensors[f"{layer}.weight"] += change.reshape(up.shape[0], *down.shape[1:])
            save_file(tensors, file, metadata={"format": "pt"})
    return path


def whole(layer: str) -> str:
    """A text encoder's layer as transformers named it when LoRAs were, whatever it does now."""
    return layer if layer.startswith("text_model.") else f"text_model.{layer}"


def saved(tensors: dict, path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return path
