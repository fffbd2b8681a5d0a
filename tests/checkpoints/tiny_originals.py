"""The tiny pipelines as single files in the layout they were published in: diffusers' names turned back.

`single_file(kind, folder, path)`: of a folder that tests/tiny_checkpoints.py wrote. diffusers does not read a tiny flux
back: in its conversion the width of the blocks is fixed at 3072.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RESIDUAL = {"norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
            "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection"}
UNET = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
        "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2"}
SD3 = {"pos_embed.proj": "x_embedder.proj", "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
       "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2", "context_embedder": "context_embedder",
       "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0", "proj_out": "final_layer.linear",
       "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
       "norm_out.linear": "final_layer.adaLN_modulation.1"}
SD3_BLOCK = {"attn.to_out.0": "x_block.attn.proj", "attn.to_add_out": "context_block.attn.proj",
             "norm1.linear": "x_block.adaLN_modulation.1", "norm1_context.linear": "context_block.adaLN_modulation.1",
             "ff.net.0.proj": "x_block.mlp.fc1", "ff.net.2": "x_block.mlp.fc2",
             "ff_context.net.0.proj": "context_block.mlp.fc1", "ff_context.net.2": "context_block.mlp.fc2"}

FLUX = {"time_text_embed.timestep_embedder.linear_1": "time_in.in_layer", "context_embedder": "txt_in",
        "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer", "x_embedder": "img_in",
        "time_text_embed.text_embedder.linear_1": "vector_in.in_layer", "proj_out": "final_layer.linear",
        "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
        "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
        "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
        "norm_out.linear": "final_layer.adaLN_modulation.1"}
FLUX_DOUBLE = {"norm1.linear": "img_mod.lin", "norm1_context.linear": "txt_mod.lin", "attn.to_out.0": "img_attn.proj",
               "attn.to_add_out": "txt_attn.proj", "ff.net.0.proj": "img_mlp.0", "ff.net.2": "img_mlp.2",
               "ff_context.net.0.proj": "txt_mlp.0", "ff_context.net.2": "txt_mlp.2"}
FLUX_NORMS = {"attn.norm_q.weight": "img_attn.norm.query_norm.scale",
              "attn.norm_k.weight": "img_attn.norm.key_norm.scale",
              "attn.norm_added_q.weight": "txt_attn.norm.query_norm.scale",
              "attn.norm_added_k.weight": "txt_attn.norm.key_norm.scale"}
FLUX_JOINED = {"attn.to_q": ("img_attn.qkv", ("attn.to_q", "attn.to_k", "attn.to_v")),
               "attn.add_q_proj": ("txt_attn.qkv", ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"))}
FLUX_LINEAR1 = ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")


def single_file(kind: str, folder: Path, path: Path, without: tuple = ()) -> Path:
    """The pipeline in one file, its parts under their original names; without: parts to leave out."""
    parts = {part.name: weights(part) for part in sorted(folder.iterdir()) if any(part.glob("*.safetensors"))}
    return of_parts(kind, {name: tensors for name, tensors in parts.items() if name not in without}, path)


def of_parts(kind: str, parts: dict, path: Path) -> Path:
    """One file of {part: its tensors under diffusers' names}."""
    made = {"sd3": sd3, "flux": flux}.get(kind, unet)(parts.pop("transformer" if "transformer" in parts else "unet"))
    made = {f"model.diffusion_model.{name}": tensor for name, tensor in made.items()}
    for part, tensors in parts.items():
        made |= ORIGINAL[kind][part](tensors)
    save_file({name: tensor.contiguous().clone() for name, tensor in made.items()}, path)
    return path


def weights(part: Path) -> dict:
    return {name: tensor for file in part.glob("*.safetensors") for name, tensor in load_file(file).items()}


def _split(name: str, names: dict) -> str | None:
    """The name under another prefix, where one of the names fits."""
    stem, _, leaf = name.rpartition(".")
    return f"{names[stem]}.{leaf}" if stem in names else None


def unet(tensors: dict) -> dict:
    """Latent diffusion's names."""
    blocks = len({name.split(".")[3] for name in tensors if name.startswith("down_blocks.0.resnets.")}) + 1
    asked = {name.split(".attentions")[0] for name in tensors if name.startswith("up_") and ".attentions" in name}
    return {_split(name, UNET) or _unet_block(name, blocks, asked): tensor for name, tensor in tensors.items()}


def _unet_block(name: str, blocks: int, asked: set) -> str:
    """blocks: of a level, the one that changes the size counted; asked: the upper levels that have attention."""
    side, level, kind, number, rest = re.match(
        r"(down|up|mid)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name).groups()
    number, level = int(number), int(level or 0)
    rest = (_split(rest, RESIDUAL) or rest) if kind == "resnets" else rest
    if side == "mid":
        return f"middle_block.{2 * number if kind == 'resnets' else 1}.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{blocks * level + blocks}.0.op.{rest.removeprefix('conv.')}"
    if kind == "upsamplers":
        return f"output_blocks.{blocks * level + blocks - 1}.{2 if f'up_blocks.{level}' in asked else 1}.{rest}"
    place = blocks * level + number
    block = f"input_blocks.{place + 1}" if side == "down" else f"output_blocks.{place}"
    return f"{block}.{0 if kind == 'resnets' else 1}.{rest}"


def autoencoder(tensors: dict) -> dict:
    """Latent diffusion's names, four levels."""
    made = {}
    for name, tensor in tensors.items():
        name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{3 - int(m[1])}.block.{m[2]}", name)
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample", name)
        name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
        if "mid_block.attentions.0" in name:
            name = name.replace("mid_block.attentions.0", "mid.attn_1").replace("group_norm", "norm")
            name = re.sub(r"to_([qkv])", r"\1", name).replace("to_out.0", "proj_out")
            tensor = tensor[:, :, None, None] if tensor.ndim == 2 else tensor
        made[f"first_stage_model.{name}"] = tensor
    return made


def clip(prefix: str):
    """transformers' own names behind a prefix."""
    def named(tensors):
        return {f"{prefix}{name if name.startswith(('text_', 'logit')) else 'text_model.' + name}": tensor
                for name, tensor in tensors.items()}
    return named


def open_clip(prefix: str):
    """open_clip's names: query, key and value in one, the projection on its side."""
    def named(tensors):
        made, tensors = {}, {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
        for name, tensor in tensors.items():
            name = name.replace("encoder.layers.", "transformer.resblocks.").replace("layer_norm1", "ln_1")
            name = name.replace("layer_norm2", "ln_2").replace("mlp.fc1", "mlp.c_fc").replace("mlp.fc2", "mlp.c_proj")
            name = name.replace("self_attn.out_proj", "attn.out_proj").replace("final_layer_norm", "ln_final")
            name = name.replace("embeddings.token_embedding", "token_embedding")
            name = name.replace("embeddings.position_embedding.weight", "positional_embedding")
            if name == "text_projection.weight":
                name, tensor = "text_projection", tensor.T
            if "self_attn.q_proj" in name:
                key = [tensors[f"encoder.layers.{name.split('.')[2]}.self_attn.{x}_proj.{name.split('.')[-1]}"]
                       for x in "qkv"]
                name = name.replace("self_attn.q_proj.", "attn.in_proj_")
                tensor = torch.cat(key)
            if "self_attn." not in name:
                made[prefix + name] = tensor
        return made
    return named


def t5(tensors: dict) -> dict:
    return {f"text_encoders.t5xxl.transformer.{name}": tensor for name, tensor in tensors.items()}


def sd3(tensors: dict) -> dict:
    """The names of SD3's own code: query, key and value in one, shift before scale in the last norms."""
    last, made = max(int(name.split(".")[1]) for name in tensors if name.startswith("transformer_blocks.")), {}
    for name, tensor in tensors.items():
        if name == "pos_embed.pos_embed":
            made["pos_embed"] = tensor
        elif not name.startswith("transformer_blocks."):
            made[_split(name, SD3)] = _swapped(tensor) if name.startswith("norm_out") else tensor
        else:
            _, block, rest = name.split(".", 2)
            if (other := _split(rest, SD3_BLOCK)) is not None:
                swap = int(block) == last and rest.startswith("norm1_context")
                made[f"joint_blocks.{block}.{other}"] = _swapped(tensor) if swap else tensor
            for side, first, names in (("x", "to_q", ("to_q", "to_k", "to_v")),
                                       ("context", "add_q_proj", ("add_q_proj", "add_k_proj", "add_v_proj"))):
                if rest.startswith(f"attn.{first}."):
                    leaf = rest.rpartition(".")[2]
                    made[f"joint_blocks.{block}.{side}_block.attn.qkv.{leaf}"] = torch.cat(
                        [tensors[f"transformer_blocks.{block}.attn.{each}.{leaf}"] for each in names])
    return made


def flux(tensors: dict) -> dict:
    """The names of Flux' own code: query, key and value in one, in a single block with the first layer, too."""
    made = {}
    for name, tensor in tensors.items():
        if (other := _split(name, FLUX)) is not None:
            made[other] = _swapped(tensor) if name.startswith("norm_out") else tensor
            continue
        kind, block, rest = name.split(".", 2)
        stem, _, leaf = rest.rpartition(".")
        if kind == "transformer_blocks":
            there, joined = f"double_blocks.{block}.", FLUX_JOINED
            other = _split(rest, FLUX_DOUBLE) or FLUX_NORMS.get(rest)
        else:
            there, joined = f"single_blocks.{block}.", {"attn.to_q": ("linear1", FLUX_LINEAR1)}
            other = _split(rest, {"norm.linear": "modulation.lin", "proj_out": "linear2"}) or (
                FLUX_NORMS[rest].removeprefix("img_attn.") if rest in FLUX_NORMS else None)
        if other is not None:
            made[there + other] = tensor
        if stem in joined:
            into, names = joined[stem]
            made[f"{there}{into}.{leaf}"] = torch.cat([tensors[f"{kind}.{block}.{each}.{leaf}"] for each in names])
    return made


def _swapped(tensor: torch.Tensor) -> torch.Tensor:
    return torch.cat(tensor.chunk(2)[::-1])


ORIGINAL = {
    "sd15": {"vae": autoencoder, "text_encoder": clip("cond_stage_model.transformer.")},
    "sd20": {"vae": autoencoder, "text_encoder": open_clip("cond_stage_model.model.")},
    "sdxl": {"vae": autoencoder, "text_encoder": clip("conditioner.embedders.0.transformer."),
             "text_encoder_2": open_clip("conditioner.embedders.1.model.")},
    "sd3": {"vae": autoencoder, "text_encoder": clip("text_encoders.clip_l.transformer."),
            "text_encoder_2": clip("text_encoders.clip_g.transformer."), "text_encoder_3": t5},
    "flux": {"vae": autoencoder, "text_encoder": clip("text_encoders.clip_l.transformer."), "text_encoder_2": t5},
}
