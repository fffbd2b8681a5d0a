"""Text encoders that are not in the checkpoint's file: found beside it, opened as transformers has them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

HOST_FILES = {"sd15": ("clip_l",), "sd20": ("clip_h",), "sdxl": ("clip_l", "clip_g"),
              "sd3": ("clip_l", "clip_g", "t5xxl"), "flux": ("clip_l", "t5xxl"), "fluxschnell": ("clip_l", "t5xxl")}
_SURPLUS = ("position_ids", "logit_scale", "text_projection.weight", "encoder.embed_tokens.weight", "lm_head.weight")


def find_encoder(folder: str, family: str, part: str) -> Path | None:
    """The file or subfolder with this part's weights in the given folder; None without a folder, or without it.

    family: whose files of a host's will do; "": only the subfolder.
    """
    if not folder:
        return None
    if not Path(folder).is_dir():
        raise ValueError(f"--text-encoders {folder} is not a folder: name the one that holds the text encoders")
    if any(Path(folder, part).glob("*.safetensors")):
        return Path(folder, part)
    number = int(part.rpartition("_")[2]) if part[-1].isdigit() else 1
    name = HOST_FILES[family][number - 1] if family else part
    files = [path for path in sorted(Path(folder).glob(f"{name}*.safetensors")) if "scaled" not in path.name]
    return max(files, key=lambda path: path.stat().st_size, default=None)           # full precision before fp8


def load_encoder(class_name: str, place: Path, config: Path, dtype: torch.dtype):
    """The text encoder from a file as hosts have it, or from a folder; config: where its configuration is.

    Raises ValueError where the tensors do not fit.
    """
    import transformers
    from accelerate import init_empty_weights
    kind = getattr(transformers, class_name)
    if place.is_dir():
        return kind.from_pretrained(place, torch_dtype=dtype, local_files_only=True)
    with init_empty_weights():
        encoder = kind(kind.config_class.from_pretrained(config, local_files_only=True))
    tensors = _fitting_names(encoder, load_file(place), dtype)
    missing, unexpected = encoder.load_state_dict(tensors, strict=False, assign=True)
    lost = [name for name in (*missing, *unexpected) if not name.endswith(_SURPLUS)]
    if lost:
        raise ValueError(f"{place} does not fit a {class_name} of {config} ({len(lost)} tensors too many or too few, "
                         f"such as {lost[0]}): is it the text encoder of another model?")
    encoder.tie_weights()
    return encoder.to(dtype).eval()


def _fitting_names(encoder, tensors: dict, dtype: torch.dtype) -> dict:
    """The tensors under the names this version of transformers uses; a projection that a host leaves out is 1."""
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    wanted = encoder.state_dict()
    if not hasattr(encoder, "text_model"):                          # newer: without this layer in the names
        tensors = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    projection = "text_projection.weight"
    if projection in wanted and projection not in tensors:
        tensors[projection] = torch.eye(*wanted[projection].shape, dtype=dtype)
    return tensors
