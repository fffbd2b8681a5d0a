"""A random checkpoint that WebUI hosts open as Stable Diffusion 1.5: its tensors, by name and shape.

The U-Net has two levels of one residual block (320 channels and a context of 768, which loaders know it by); text
encoder and autoencoder have their full size, because Forge builds both from fixed configurations. 500 MB, seconds.
A1111 reads the smaller U-Net from a .yaml beside the file, and the tokenizer from a folder made here.
"""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors.torch import save_file

CHANNELS, CONTEXT, CLOCK = 320, 768, 1280


def write(folder: Path) -> Path:
    """tiny.safetensors, tiny.yaml and the tokenizer's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(), folder / "tiny.safetensors")
    tokenizer = folder.parent / "tiny-tokenizer"
    write_tokenizer(tokenizer)
    (folder / "tiny.yaml").write_text(YAML.replace("TOKENIZER", json.dumps(str(tokenizer))), encoding="utf-8")
    return folder / "tiny.safetensors"


def tensors() -> dict:
    """name -> fp16 tensor: matrices normal / sqrt(fan in), norms one, biases zero; the U-Net's answer of size one."""
    generator, made = torch.Generator().manual_seed(0), {}
    for name, shape in shapes().items():
        if len(shape) == 1:
            made[name] = torch.ones(shape) if name.endswith(".weight") else torch.zeros(shape)
        else:
            fan_in = 768 if "embedding" in name else torch.Size(shape[1:]).numel()
            gain = 1.7 if "out.2" in name else 0.7
            made[name] = torch.randn(shape, generator=generator) * gain / fan_in ** 0.5
    made["cond_stage_model.transformer.text_model.final_layer_norm.bias"] += 0.1    # hosts divide by the mean
    made["model.diffusion_model.time_embed.0.weight"] *= slow_columns(CHANNELS)     # smooth in sigma, as if trained
    return {name: tensor.half() for name, tensor in made.items()}


def slow_columns(width: int, cutoff: float = 0.005) -> torch.Tensor:
    """Gains for the clock's columns [cos f t..., sin f t...], f = 10000^(-k / half): fast ones fade."""
    frequency = 10000.0 ** (-torch.arange(width // 2) / (width // 2))
    gain = (cutoff / frequency).clamp(max=1.0)
    return torch.cat([gain, gain]) / gain.square().mean().sqrt()


def shapes() -> dict:
    parts = {"model.diffusion_model.": unet(), "first_stage_model.": autoencoder(),
             "cond_stage_model.transformer.text_model.": text_encoder()}
    return {prefix + name: shape for prefix, part in parts.items() for name, shape in part.items()}


def unet() -> dict:
    """Latent diffusion's U-Net, channel_mult 1, 1, one residual block and one transformer a level."""
    c, made = CHANNELS, {**linear("time_embed.0", CLOCK, CHANNELS), **linear("time_embed.2", CLOCK, CLOCK)}
    made |= conv("input_blocks.0.0", c, 4) | conv("input_blocks.2.0.op", c, c)
    for block in ("input_blocks.1", "input_blocks.3"):
        made |= residual(f"{block}.0", c, c) | transformer(f"{block}.1", c)
    made |= residual("middle_block.0", c, c) | transformer("middle_block.1", c) | residual("middle_block.2", c, c)
    for i in range(4):
        made |= residual(f"output_blocks.{i}.0", c, 2 * c) | transformer(f"output_blocks.{i}.1", c)
    return made | conv("output_blocks.1.2.conv", c, c) | norm("out.0", c) | conv("out.2", 4, c)


def residual(name: str, out: int, into: int) -> dict:
    made = norm(f"{name}.in_layers.0", into) | conv(f"{name}.in_layers.2", out, into)
    made |= linear(f"{name}.emb_layers.1", out, CLOCK) | norm(f"{name}.out_layers.0", out)
    made |= conv(f"{name}.out_layers.3", out, out)
    return made if out == into else made | conv(f"{name}.skip_connection", out, into, 1)


def transformer(name: str, c: int) -> dict:
    block = f"{name}.transformer_blocks.0"
    made = norm(f"{name}.norm", c) | conv(f"{name}.proj_in", c, c, 1) | conv(f"{name}.proj_out", c, c, 1)
    for attention, context in (("attn1", c), ("attn2", CONTEXT)):
        made |= {f"{block}.{attention}.to_q.weight": (c, c), f"{block}.{attention}.to_k.weight": (c, context),
                 f"{block}.{attention}.to_v.weight": (c, context)} | linear(f"{block}.{attention}.to_out.0", c, c)
    made |= linear(f"{block}.ff.net.0.proj", 8 * c, c) | linear(f"{block}.ff.net.2", c, 4 * c)
    return made | norm(f"{block}.norm1", c) | norm(f"{block}.norm2", c) | norm(f"{block}.norm3", c)


def autoencoder() -> dict:
    """Latent diffusion's autoencoder, 128 channels times 1, 2, 4, 4, two residual blocks a level."""
    widths = (128, 256, 512, 512)
    made = conv("encoder.conv_in", 128, 3) | conv("encoder.conv_out", 8, 512) | norm("encoder.norm_out", 512)
    made |= conv("decoder.conv_in", 512, 4) | conv("decoder.conv_out", 3, 128) | norm("decoder.norm_out", 128)
    for side in ("encoder", "decoder"):
        made |= convolved(f"{side}.mid.block_1", 512, 512) | convolved(f"{side}.mid.block_2", 512, 512)
        made |= norm(f"{side}.mid.attn_1.norm", 512)
        for part in ("q", "k", "v", "proj_out"):
            made |= conv(f"{side}.mid.attn_1.{part}", 512, 512, 1)
    for i, width in enumerate(widths):
        below, above = widths[max(i - 1, 0)], widths[min(i + 1, 3)]
        for j in range(2):
            made |= convolved(f"encoder.down.{i}.block.{j}", width, width if j else below)
        for j in range(3):
            made |= convolved(f"decoder.up.{i}.block.{j}", width, width if j else above)
        made |= conv(f"encoder.down.{i}.downsample.conv", width, width) if i < 3 else {}
        made |= conv(f"decoder.up.{i}.upsample.conv", width, width) if i else {}
    return made | conv("quant_conv", 8, 8, 1) | conv("post_quant_conv", 4, 4, 1)


def convolved(name: str, out: int, into: int) -> dict:
    made = norm(f"{name}.norm1", into) | conv(f"{name}.conv1", out, into) | norm(f"{name}.norm2", out)
    made |= conv(f"{name}.conv2", out, out)
    return made if out == into else made | conv(f"{name}.nin_shortcut", out, into, 1)


def text_encoder() -> dict:
    """CLIP ViT-L/14's text tower."""
    made = {"embeddings.token_embedding.weight": (49408, 768), "embeddings.position_embedding.weight": (77, 768)}
    for i in range(12):
        layer = f"encoder.layers.{i}"
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made |= linear(f"{layer}.self_attn.{part}", 768, 768)
        made |= linear(f"{layer}.mlp.fc1", 3072, 768) | linear(f"{layer}.mlp.fc2", 768, 3072)
        made |= norm(f"{layer}.layer_norm1", 768) | norm(f"{layer}.layer_norm2", 768)
    return made | norm("final_layer_norm", 768)


def conv(name: str, out: int, into: int, size: int = 3) -> dict:
    return {f"{name}.weight": (out, into, size, size), f"{name}.bias": (out,)}


def linear(name: str, out: int, into: int) -> dict:
    return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}


def norm(name: str, width: int) -> dict:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def write_tokenizer(folder: Path) -> None:
    """CLIP's byte-pair vocabulary, from the list that open_clip carries, as transformers reads it."""
    packed = Path(find_spec("open_clip").origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    merges = gzip.decompress(packed.read_bytes()).decode("utf-8").split("\n")[1:49152 - 256 - 2 + 1]
    letters = byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(pair.split()) for pair in merges)]
    vocabulary = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n", encoding="utf-8")
    (folder / "config.json").write_text(json.dumps({
        "model_type": "clip_text_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "max_position_embeddings": 77, "vocab_size": 49408}), encoding="utf-8")


def byte_letters() -> list[str]:
    """A printable letter for each byte, printable bytes first (Radford et al. 2019's byte-level pairs)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return [*map(chr, plain), *(chr(256 + i) for i in range(len(others)))]


YAML = """model:
  target: ldm.models.diffusion.ddpm.LatentDiffusion
  params:
    linear_start: 0.00085
    linear_end: 0.0120
    timesteps: 1000
    image_size: 64
    channels: 4
    conditioning_key: crossattn
    scale_factor: 0.18215
    use_ema: False
    first_stage_key: jpg
    cond_stage_key: txt
    cond_stage_trainable: False
    num_timesteps_cond: 1
    unet_config:
      target: ldm.modules.diffusionmodules.openaimodel.UNetModel
      params: {image_size: 32, in_channels: 4, out_channels: 4, model_channels: 320, attention_resolutions: [2, 1],
               num_res_blocks: 1, channel_mult: [1, 1], num_heads: 8, use_spatial_transformer: True,
               transformer_depth: 1, context_dim: 768, use_checkpoint: False, legacy: False}
    first_stage_config:
      target: ldm.models.autoencoder.AutoencoderKL
      params:
        embed_dim: 4
        ddconfig: {double_z: True, z_channels: 4, resolution: 256, in_channels: 3, out_ch: 3, ch: 128,
                   ch_mult: [1, 2, 4, 4], num_res_blocks: 2, attn_resolutions: [], dropout: 0.0}
        lossconfig: {target: torch.nn.Identity}
    cond_stage_config:
      target: ldm.modules.encoders.modules.FrozenCLIPEmbedder
      params: {version: TOKENIZER}
"""


if __name__ == "__main__":
    import sys
    print(write(Path(sys.argv[1])))
