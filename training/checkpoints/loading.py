"""A checkpoint as a diffusers pipeline, from what is on this machine: nothing is ever fetched.

Raises ValueError if diffusers is not installed, a part of the model is nowhere to be found, or the
configuration that belongs to a single file is not on this machine.
"""

import contextlib
import importlib
import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..source import out_of_memory
from . import files

PIPELINES = {"sd15": "StableDiffusionPipeline", "sd20": "StableDiffusionPipeline",
             "sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline",
             "fluxschnell": "FluxPipeline"}
REPOSITORIES = {"sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd20": "stabilityai/stable-diffusion-2-1",
                "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
                "sd3": "stabilityai/stable-diffusion-3-medium-diffusers", "flux": "black-forest-labs/FLUX.1-dev",
                "fluxschnell": "black-forest-labs/FLUX.1-schnell"}
SD35 = {38: "stabilityai/stable-diffusion-3.5-large", 24: "stabilityai/stable-diffusion-3.5-medium"}    # by its blocks
UNNEEDED = ("safety_checker", "feature_extractor", "image_encoder")
UNCHECKED = {"StableDiffusionPipeline": {"requires_safety_checker": False}}


@dataclass
class Checkpoint:
    """A checkpoint in memory: a diffusers pipeline and what is known of it. contents: of a single file, else None."""

    pipeline: Any
    family: str
    path: Path
    contents: files.Contents | None

    @property
    def network(self) -> torch.nn.Module:
        return self.pipeline.unet if hasattr(self.pipeline, "unet") else self.pipeline.transformer


def open_checkpoint(path, dtype: torch.dtype, config: str, say) -> Checkpoint:
    """The checkpoint at the path, a .safetensors file or a folder, on the CPU. say(text) is told of what it lacks.

    config: a folder in diffusers' layout that describes a single file, and has what that lacks; "": diffusers' cache.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no checkpoint at {path}: name a .safetensors file, or a folder in diffusers' layout")
    diffusers = _diffusers()
    with _offline(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)              # torch_dtype, which older versions know alone
        return _folder(diffusers, path, dtype) if path.is_dir() else _file(diffusers, path, dtype, config, say)


def _diffusers():
    try:
        import accelerate  # noqa: F401  diffusers loads single files without it, but slowly and twice as large
        import diffusers
        import transformers  # noqa: F401  the text encoders
        diffusers.StableDiffusionPipeline  # noqa: B018  only now is it imported
    except ImportError as error:
        raise ValueError(f"opening a checkpoint needs diffusers, transformers and accelerate ({error}): pip install "
                         '"s4s-sampler[checkpoints]"') from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"diffusers is installed, but does not work ({reason}): most often a torchvision is made for "
                         "another torch; install the two together, or remove torchvision") from error
    return diffusers


@contextlib.contextmanager
def _offline():
    """No library asks the hub for anything meanwhile."""
    from huggingface_hub import constants
    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def _opening(path):
    """Turn what diffusers and transformers raise for a file or folder that does not fit into one ValueError."""
    try:
        yield
    except Exception as error:                          # they raise many kinds of errors
        if out_of_memory(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        raise ValueError(f"{path} could not be opened by diffusers ({reason}): is it whole, and is the folder given "
                         "with --config one for this very architecture?") from error


def _folder(diffusers, path: Path, dtype: torch.dtype) -> Checkpoint:
    index = path / "model_index.json"
    if not index.exists():
        raise ValueError(f"{path} holds no model_index.json: use a folder in diffusers' layout, or a .safetensors file")
    content = json.loads(index.read_text(encoding="utf-8"))
    name = content.get("_class_name")
    if name not in PIPELINES.values():
        raise ValueError(f"{path} is a {name}: expected one of {', '.join(sorted(set(PIPELINES.values())))}")
    without = {part: None for part in UNNEEDED if part in content}
    with _opening(path):
        pipeline = getattr(diffusers, name).from_pretrained(path, torch_dtype=dtype, local_files_only=True,
                                                            **without, **UNCHECKED.get(name, {}))
    return Checkpoint(pipeline, _folder_family(name, pipeline), path, None)


def _folder_family(name: str, pipeline) -> str:
    if name == "FluxPipeline":
        return "flux" if pipeline.transformer.config.guidance_embeds else "fluxschnell"
    if name == "StableDiffusionPipeline":
        return "sd20" if pipeline.unet.config.cross_attention_dim == 1024 else "sd15"
    return next(family for family, pipeline_name in PIPELINES.items() if pipeline_name == name)


def _file(diffusers, path: Path, dtype: torch.dtype, given: str, say) -> Checkpoint:
    contents = files.read(path)
    config = config_folder(contents, given)
    index = json.loads((config / "model_index.json").read_text(encoding="utf-8"))
    wanted = PIPELINES[contents.family]
    if index.get("_class_name") != wanted:
        raise ValueError(f"{path} is {contents.family}, but {config} is the configuration of a "
                         f"{index.get('_class_name')}: expected a folder of a {wanted}")
    parts = {part: None for part in UNNEEDED if part in index}
    for part in contents.missing:
        parts |= _found_part(diffusers, contents, part, config, index, dtype, say)
    with _opening(path):
        pipeline = getattr(diffusers, wanted).from_single_file(
            str(path), config=str(config), torch_dtype=dtype, local_files_only=True, **parts,
            **UNCHECKED.get(wanted, {}))
    _check_whole(pipeline, path, config)
    return Checkpoint(pipeline, contents.family, path, contents)


def _check_whole(pipeline, path: Path, config: Path) -> None:
    """Raises ValueError if the file left numbers of the model empty."""
    for part, module in pipeline.components.items():
        if part.startswith("text_encoder") and module is not None:
            module.tie_weights()                        # T5's words are in the file once, in the model twice
        empty = [name for name, p in getattr(module, "named_parameters", tuple)() if p.is_meta]
        if empty:
            raise ValueError(f"{path} lacks {len(empty)} tensors of the {part} that {config} describes (such as "
                             f"{empty[0]}): is that folder for this very architecture, and the download complete?")


def config_folder(contents: files.Contents, given: str) -> Path:
    """The folder that says how the file's model is built: the given one, else the one in diffusers' cache here."""
    if given:
        if not (Path(given) / "model_index.json").exists():
            raise ValueError(f"--config {given} holds no model_index.json: expected a folder in diffusers' layout "
                             "(weights are needed only for what the file lacks)")
        return Path(given)
    name = repository(contents)
    from huggingface_hub import snapshot_download
    with contextlib.suppress(OSError, ValueError):
        if (index := Path(snapshot_download(name, local_files_only=True)) / "model_index.json").exists():
            return index.parent
    raise ValueError(
        f"this machine has no description of how the model in {contents.path.name} ({contents.family}) is built, and "
        f"S4S downloads nothing. Either get the small files of {name}, once:\n"
        f"  hf download {name} --include \"*.json\" \"*.txt\" \"*.model\" --local-dir {contents.family}-config\n"
        f"and add --config {contents.family}-config; or name a folder that has them, in diffusers' layout or in "
        "Forge's backend/huggingface")


def repository(contents: files.Contents) -> str:
    """Where the configuration of the file's architecture is published."""
    blocks = {name.split("joint_blocks.")[1].split(".")[0] for name in contents.shapes if "joint_blocks." in name}
    normed = any(name.endswith("attn.ln_q.weight") for name in contents.shapes)         # 3.5 has them, 3 has not
    return SD35.get(len(blocks) * normed, REPOSITORIES[contents.family])


def _found_part(diffusers, contents, part: str, config: Path, index: dict, dtype, say) -> dict:
    """{part: module} from the folder of the configuration, if its weights are there.

    Raises ValueError for a part the model cannot be asked without.
    """
    if any((config / part).glob("*.safetensors")):
        library = diffusers if part == "vae" else importlib.import_module("transformers")
        with _opening(config):
            return {part: getattr(library, index[part][1]).from_pretrained(
                config, subfolder=part, torch_dtype=dtype, local_files_only=True)}
    if part == "vae":
        say(f"{contents.path.name} holds no autoencoder: training needs none, but there will be no pictures "
            "(unless the folder of --config has its weights)")
        return {"vae": None}
    if contents.family == "sd3" and part == "text_encoder_3":
        say("the checkpoint has no T5: only its two CLIPs read the prompts, as in a host without a T5 "
            "(unless the folder of --config has its weights)")
        return {part: None, "tokenizer_3": None}
    raise ValueError(f"{contents.path.name} does not hold its {part} ({index[part][1]}): use --config with a folder "
                     "in diffusers' layout that has its weights, or train in a host")
