"""Tiny random pipelines of diffusers' real classes, text encoders and tokenizers included, as folders.

`folder(kind, path)` writes one in a second: sd15, sd20, sdxl, sd3, flux. The layer behind the clock's fast sines is
damped, so that the network is as smooth in its noise level as a trained one.
"""

import json
import string
from pathlib import Path

import torch

WORDS = 64                              # the text encoders' vocabulary
HOST_SIZED = {"sd15": {"context": 768, "network": {"block_out_channels": (320, 320), "attention_head_dim": 8,
                                                   "norm_num_groups": 32}},
              "sd3": {"widths": (768, 1280, 4096), "heads": 64},
              "flux": {"head": 128, "heads": 1, "axes": (16, 56, 56)}}
CLOCKS = ("time_embedding.linear_1.weight", "timestep_embedder.linear_1.weight", "guidance_embedder.linear_1.weight")


def folder(kind: str, path: Path, host_sized: bool = False, seed: int = 0) -> Path:
    """A pipeline of this kind in diffusers' layout; host_sized: as wide as a host knows its family by."""
    torch.manual_seed(seed)
    made = {"sd15": sd, "sd20": sd20, "sdxl": sdxl, "sd3": sd3, "flux": flux, "fluxschnell": schnell}[kind]
    pipeline = made(path, **(HOST_SIZED[kind] if host_sized else {}))
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if name.endswith(CLOCKS):
                weights.mul_(slow_columns(weights.shape[1]))
            elif weights.ndim == 1:                                 # norms and biases tell one network from another
                weights.add_(0.1 * torch.randn_like(weights))
    pipeline.save_pretrained(path, safe_serialization=True)
    return path


def slow_columns(width: int, cutoff: float = 0.005) -> torch.Tensor:
    """Gains for the clock's columns [cos f t..., sin f t...], f = 10000^(-k / half): fast ones fade."""
    frequency = 10000.0 ** (-torch.arange(width // 2) / (width // 2))
    gain = (cutoff / frequency).clamp(max=1.0)
    return torch.cat([gain, gain]) / gain.square().mean().sqrt()


# --- pipelines --------------------------------------------------------------------------------------------------------

def sd(path: Path, context: int = 32, network: dict | None = None, **scheduler):
    from diffusers import StableDiffusionPipeline
    return StableDiffusionPipeline(
        vae=autoencoder(4, 0.18215), text_encoder=clip(context), tokenizer=clip_tokenizer(path),
        unet=unet(context, **(network or {})), scheduler=discrete(**scheduler), safety_checker=None,
        feature_extractor=None, requires_safety_checker=False)


def sd20(path: Path):
    return sd(path, 1024, prediction_type="v_prediction")


def sdxl(path: Path):
    from diffusers import StableDiffusionXLPipeline
    network = unet(32 + 48, addition_embed_type="text_time", addition_time_embed_dim=8,
                   projection_class_embeddings_input_dim=48 + 6 * 8)
    tokenizer = clip_tokenizer(path)
    return StableDiffusionXLPipeline(
        vae=autoencoder(4, 0.13025), text_encoder=clip(32), text_encoder_2=clip(48, projected=True, act="gelu"),
        tokenizer=tokenizer, tokenizer_2=tokenizer, unet=network, scheduler=discrete())


def sd3(path: Path, widths: tuple = (32, 48, 96), heads: int = 16):
    from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel, StableDiffusion3Pipeline
    network = SD3Transformer2DModel(
        sample_size=32, patch_size=2, in_channels=16, num_layers=2, attention_head_dim=heads, num_attention_heads=2,
        joint_attention_dim=widths[2], caption_projection_dim=2 * heads, pooled_projection_dim=widths[0] + widths[1],
        out_channels=16, pos_embed_max_size=32)
    tokenizer, small = clip_tokenizer(path), clip(widths[0], projected=True)
    torch.nn.init.eye_(small.text_projection.weight)        # SD3 takes this one's pooled words as they are
    return StableDiffusion3Pipeline(
        transformer=network, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), vae=autoencoder(16, 1.5305, 0.0609),
        text_encoder=small, text_encoder_2=clip(widths[1], projected=True, act="gelu"),
        text_encoder_3=t5(widths[2]), tokenizer=tokenizer, tokenizer_2=tokenizer, tokenizer_3=t5_tokenizer(path))


def flux(path: Path, head: int = 16, heads: int = 2, axes: tuple = (4, 4, 8), guided: bool = True):
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
    network = FluxTransformer2DModel(
        patch_size=1, in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=head,
        num_attention_heads=heads, joint_attention_dim=64, pooled_projection_dim=32, guidance_embeds=guided,
        axes_dims_rope=axes)
    return FluxPipeline(
        transformer=network, vae=autoencoder(16, 0.3611, 0.1159), text_encoder=clip(32), text_encoder_2=t5(64),
        tokenizer=clip_tokenizer(path), tokenizer_2=t5_tokenizer(path),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True))


def schnell(path: Path):
    return flux(path, guided=False)


# --- parts ------------------------------------------------------------------------------------------------------------

def unet(context: int, **more):
    from diffusers import UNet2DConditionModel
    linear = "addition_embed_type" in more
    return UNet2DConditionModel(**{**dict(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=context, attention_head_dim=2, norm_num_groups=8, use_linear_projection=linear), **more})


def autoencoder(channels: int, scale: float, shift: float | None = None):
    from diffusers import AutoencoderKL
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=channels, block_out_channels=(16, 16, 16, 16), norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, scaling_factor=scale,
        shift_factor=shift, use_quant_conv=channels == 4, use_post_quant_conv=channels == 4)


def discrete(**more):
    from diffusers import DDIMScheduler
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, **more)


def clip(width: int, projected: bool = False, act: str = "quick_gelu"):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection
    config = CLIPTextConfig(hidden_size=width, intermediate_size=37, num_attention_heads=4, num_hidden_layers=3,
                            projection_dim=width, vocab_size=WORDS, hidden_act=act, bos_token_id=0, eos_token_id=1,
                            pad_token_id=1)
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5(width: int):
    from transformers import T5Config, T5EncoderModel
    return T5EncoderModel(T5Config(vocab_size=WORDS, d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=4,
                                   feed_forward_proj="gated-gelu", is_encoder_decoder=False)).eval()


def clip_tokenizer(path: Path):
    """CLIP's byte pairs with one pair: every letter is a token."""
    from transformers import CLIPTokenizer
    letters = [*string.ascii_lowercase, *(letter + "</w>" for letter in string.ascii_lowercase)]
    vocabulary = {word: i for i, word in enumerate(["<|startoftext|>", "<|endoftext|>", *letters, "ab</w>"])}
    place = path.parent / f"{path.name}-words"
    place.mkdir(parents=True, exist_ok=True)
    (place / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    (place / "merges.txt").write_text("#version: 0.2\na b</w>\n", encoding="utf-8")
    return CLIPTokenizer(str(place / "vocab.json"), str(place / "merges.txt"), model_max_length=77)


def t5_tokenizer(path: Path):
    """T5's unigrams: every letter is a token."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import T5TokenizerFast
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in string.ascii_lowercase)]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    place = path.parent / f"{path.name}-t5"
    place.mkdir(parents=True, exist_ok=True)
    made.save(str(place / "tokenizer.json"))
    return T5TokenizerFast(tokenizer_file=str(place / "tokenizer.json"), extra_ids=0)
