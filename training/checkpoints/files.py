"""What a checkpoint file is, read from its header: its family, parts and prediction, and the hashes it is known by.

Nothing here loads the weights or needs diffusers.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch

from ...s4s_nodes.core import sketch

NETWORK = "model.diffusion_model."
# family -> {diffusers' name of a part: how its tensors begin in the file}
PARTS: dict[str, dict[str, tuple[str, ...]]] = {
    "sd15": {"text_encoder": ("cond_stage_model.transformer.",), "vae": ("first_stage_model.",)},
    "sd20": {"text_encoder": ("cond_stage_model.model.",), "vae": ("first_stage_model.",)},
    "sdxl": {"text_encoder": ("conditioner.embedders.0.transformer.",),
             "text_encoder_2": ("conditioner.embedders.1.model.",), "vae": ("first_stage_model.",)},
    "sd3": {"text_encoder": ("text_encoders.clip_l.",), "text_encoder_2": ("text_encoders.clip_g.",),
            "text_encoder_3": ("text_encoders.t5xxl.",), "vae": ("first_stage_model.", "vae.")},
    "flux": {"text_encoder": ("text_encoders.clip_l.",), "text_encoder_2": ("text_encoders.t5xxl.",),
             "vae": ("first_stage_model.", "vae.")},
}
PARTS["fluxschnell"] = PARTS["flux"]
_QUANTIZED = ("scale_weight", "weight_scale", "scaled_fp8", "comfy_quant", "quant_state", "qweight", "input_scale")
_UNQUANTIZED = ("the command line loads fp32, fp16, bf16 or plain fp8 checkpoints; train this one in ComfyUI with the "
                "S4S Train Preset node")
_TEXT_TO_IMAGE = "use a text-to-image checkpoint"
_HASHED_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Contents:
    """A file's tensors by name and shape, what family they make, and which of its parts are there.

    family: as ComfyUI calls it in lower case (sd15, sd20, sdxl, sd3, flux, fluxschnell).
    """

    path: Path
    shapes: dict
    family: str
    parts: frozenset

    @property
    def missing(self) -> list[str]:
        """The parts the family has and the file has not; of XL's text encoders diffusers finds both or neither."""
        lost = {part for part in PARTS[self.family] if part not in self.parts}
        if self.family == "sdxl" and lost & {"text_encoder", "text_encoder_2"}:
            lost |= {"text_encoder", "text_encoder_2"}
        return [part for part in PARTS[self.family] if part in lost]


def read(path) -> Contents:
    """The contents of a checkpoint. Raises ValueError for a file that cannot be loaded."""
    path = Path(path)
    if path.suffix.lower() in (".ckpt", ".pt", ".pth", ".bin"):
        raise ValueError(f"{path} may execute code when it is opened: convert it to .safetensors first (the hosts and "
                         "diffusers can), and name that file")
    if path.suffix.lower() == ".gguf":
        raise ValueError(f"{path} is quantized (GGUF): {_UNQUANTIZED}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f"{path} cannot be read as .safetensors ({error}): was the download complete?") from None
    family = _family(path, shapes)
    parts = {part for part, starts in PARTS[family].items() if any(name.startswith(starts) for name in shapes)}
    return Contents(path, shapes, family, frozenset(parts))


def _family(path: Path, shapes: dict) -> str:
    """Raises ValueError for tensors that are no checkpoint, or one of a kind that cannot be loaded."""
    inner = {name.removeprefix(NETWORK): shape for name, shape in shapes.items()}
    if quantized := next((name for name in shapes if name.endswith(_QUANTIZED)), None):
        raise ValueError(f"{path} is quantized ({quantized}): {_UNQUANTIZED}")
    if "input_blocks.0.0.weight" in inner:
        return _unet_family(path, inner)
    if any(name.startswith("distilled_guidance_layer.") for name in inner):
        raise ValueError(f"{path} is Chroma: of the Flux models, the command line loads dev and schnell")
    if "double_blocks.0.img_attn.norm.key_norm.scale" in inner:
        if (width := inner.get("img_in.weight", (0, 64))[1]) != 64:
            raise ValueError(f"{path} is a Flux for filling or control ({width} channels, not 64): {_TEXT_TO_IMAGE}")
        return "flux" if "guidance_in.in_layer.weight" in inner else "fluxschnell"
    if any(name.startswith("joint_blocks.0.") for name in inner):
        return "sd3"
    raise ValueError(f"{path} is {_what_else(shapes)}: use a checkpoint of Stable Diffusion 1, 2, XL, 3 or Flux in its "
                     "original layout, or a folder in diffusers' layout")


def _unet_family(path: Path, inner: dict) -> str:
    channels = inner["input_blocks.0.0.weight"][1]
    if channels != 4:
        raise ValueError(f"{path} is for inpainting or editing ({channels} channels, not 4): {_TEXT_TO_IMAGE}")
    if any(name.startswith("embedder.model.visual.") for name in inner):
        raise ValueError(f"{path} is an unCLIP model, which is conditioned on images: {_TEXT_TO_IMAGE}")
    if any(name.startswith("conditioner.embedders.0.model.") for name in inner):
        raise ValueError(f"{path} is the XL refiner, which refines another model's images: use the base model")
    if {"edm_mean", "edm_vpred.sigma_max"} & set(inner):
        raise ValueError(f"{path} was trained on EDM's noise levels (Playground 2.5, CosXL), which S4S lacks")
    if "label_emb.0.0.weight" in inner:
        return "sdxl"
    context = next((shape[1] for name, shape in inner.items() if name.endswith("attn2.to_k.weight")), 0)
    return "sd20" if context == 1024 or any(n.startswith("cond_stage_model.model.") for n in inner) else "sd15"


def _what_else(shapes: dict) -> str:
    """What a file is that is no checkpoint, as far as its tensors' names tell."""
    names = list(shapes)
    if any("lora_" in name or ".lora" in name for name in names):
        return "a LoRA"
    if any(name.startswith(("down_blocks.", "transformer_blocks.")) for name in names):
        return "one part of a model in diffusers' layout"
    if any(name.startswith(("decoder.", "encoder.")) for name in names):
        return "an autoencoder or a text encoder"
    return f"of an unknown kind ({len(names)} tensors, {', '.join(sorted(names)[:3])}, ...)"


def prediction(contents: Contents | None, asked: str, scheduler: dict) -> tuple[bool, bool]:
    """(v prediction, zero terminal SNR): as asked for, else as the hosts read it off a single file, else as a diffusers
    scheduler's configuration has it. Raises ValueError for a prediction of the image itself."""
    if asked != "auto":
        return asked != "eps", asked == "v_zsnr"
    if contents is not None and contents.family == "sdxl" and "v_pred" in contents.shapes:
        return True, "ztsnr" in contents.shapes
    marker = NETWORK + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
    if contents is not None and contents.family == "sd20" and marker in contents.shapes:
        with safetensors.safe_open(contents.path, framework="pt") as file:
            return bool(file.get_tensor(marker).float().std(unbiased=False) > 0.09), False      # ComfyUI's rule
    kind = scheduler.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        raise ValueError(f"the checkpoint predicts {kind!r}: epsilon and v_prediction are known")
    return kind == "v_prediction", bool(scheduler.get("rescale_betas_zero_snr"))


def hashes(contents: Contents) -> dict:
    """What the hosts know this file by: its norms and biases, the whole file, its name."""
    return {sketch.KIND: weights_sketch(contents), "sha256_10": digest(contents.path)[:10], "file": contents.path.stem}


def weights_sketch(contents: Contents) -> str:
    """The sketch of the network's norms and biases, by the names a host gives them."""
    bare = not any(name.startswith(NETWORK) for name in contents.shapes)
    others = tuple(start for starts in PARTS[contents.family].values() for start in starts)
    names = [name for name, shape in contents.shapes.items() if len(shape) == 1
             and (name.startswith(NETWORK) or bare and not name.startswith(others))]
    with safetensors.safe_open(contents.path, framework="pt") as file:
        return sketch.sketch({f"diffusion_model.{name.removeprefix(NETWORK)}": file.get_tensor(name).to(torch.float32)
                              for name in names})


def digest(path: Path) -> str:
    whole = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(_HASHED_AT_ONCE):
            whole.update(block)
    return whole.hexdigest()
