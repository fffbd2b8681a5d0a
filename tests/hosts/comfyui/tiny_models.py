"""Tiny random models that ComfyUI's real loaders open: its own network classes at their smallest, seeded.

`python tiny_models.py COMFYUI_FOLDER MODELS_FOLDER` writes them (2 seconds, 40 MB); the tests make them on the fly.
The loaders read the architecture off the tensors' shapes, so the file is all there is. A random network's answer
would swing within a thousandth of the noise level; the layer behind its clock's fast sines is damped, so that it is
as smooth in sigma as a trained one.
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

CLOCKS = ("time_embed.0.weight", "t_embedder.mlp.0.weight", "time_embedding.0.weight", "time_in.in_layer.weight")


@torch.no_grad()
def seeded(network, seed: int, gain: float = 1.0, last: str = "-"):
    """Fill a network's parameters: matrices normal / sqrt(fan in), biases small, norms one; `last` by `gain`."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in network.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim > 1:
            fan_in = 1 if name.endswith(("pos_embed", "modulation")) else p[0].numel()
            p.copy_(noise * fan_in ** -0.5 * (gain if name.startswith(last) else 1.0))
        else:
            p.copy_(0.02 * noise + (0.0 if name.endswith("bias") else 1.0))
        if name in CLOCKS:
            p.mul_(_slow_columns(p.shape[1]))
    for _, b in network.named_buffers():
        if b.is_floating_point():
            b.copy_(0.1 * torch.randn(b.shape, generator=generator))
    return network


def _slow_columns(width: int, cutoff: float = 0.005) -> torch.Tensor:
    """Gains of the columns [cos f t..., sin f t...], f = 10000^(-k/half): frequencies above the cutoff fade."""
    frequency = 10000.0 ** (-torch.arange(width // 2) / (width // 2))
    gain = (cutoff / frequency).clamp(max=1.0)
    return torch.cat([gain, gain]) / gain.square().mean().sqrt()


def stored(network, prefix: str = "") -> dict:
    """Its tensors as a checkpoint holds them, fp16."""
    return {prefix + name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}


def sd15() -> dict:
    """SD1.x: one level, one residual block with one cross-attention, no middle; 14 million numbers at least."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
    network = UNetModel(image_size=32, in_channels=4, out_channels=4, model_channels=320, num_res_blocks=[1],
                        channel_mult=[1], transformer_depth=[1], transformer_depth_output=[0, 0],
                        transformer_depth_middle=-2, context_dim=768, num_heads=8, num_head_channels=-1,
                        use_spatial_transformer=True, use_linear_in_transformer=False, legacy=False,
                        operations=comfy.ops.disable_weight_init)
    return stored(seeded(network, 1, gain=2.0, last="out.2"), "model.diffusion_model.")


def sd3(seed: int = 2) -> dict:
    """SD3's MMDiT, depth 2 (the loader takes width 64 x depth), 16 channels, flow with shift 3."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.mmdit import OpenAISignatureMMDITWrapper
    embedder = {"target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128}}
    network = OpenAISignatureMMDITWrapper(
        input_size=None, patch_size=2, in_channels=16, depth=2, out_channels=16, adm_in_channels=2048,
        num_patches=32 * 32, pos_embed_max_size=32, pos_embed_scaling_factor=None,
        context_embedder_config=embedder, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    return stored(seeded(network, seed), "model.diffusion_model.")


def wan(seed: int = 3) -> dict:
    """Wan 2.1 text to video: one layer, 5-D latents, flow with shift 8; an expert of Wan 2.2 14B is built alike."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel
    network = WanModel(model_type="t2v", patch_size=(1, 2, 2), in_dim=16, dim=128, ffn_dim=256, out_dim=16,
                       num_heads=1, num_layers=1, window_size=(-1, -1), qk_norm=True, cross_attn_norm=True,
                       eps=1e-6, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    return stored(seeded(network, seed))


def flux() -> dict | None:
    """Flux, one block of each kind; None where the host fixes the width at 3072 (before 2026)."""
    import inspect

    import comfy.ops
    from comfy.ldm.flux import model
    from comfy.model_detection import detect_unet_config
    extra = {"txt_ids_dims": []} if "txt_ids_dims" in inspect.getsource(model) else {}
    network = model.Flux(in_channels=16, out_channels=16, vec_in_dim=32, context_in_dim=64, hidden_size=128,
                         mlp_ratio=4.0, num_heads=1, depth=1, depth_single_blocks=1, axes_dim=[16, 56, 56],
                         theta=10000, patch_size=2, qkv_bias=True, guidance_embed=True, image_model="flux",
                         operations=comfy.ops.disable_weight_init, dtype=torch.float32, **extra)
    tensors = stored(seeded(network, 5))
    return tensors if detect_unet_config(dict(tensors), "")["hidden_size"] == 128 else None


def sd15_control() -> dict:
    """A ControlNet for `sd15`, whose zero convolutions are not zero, so that it does something."""
    import comfy.ops
    from comfy.cldm.cldm import ControlNet
    network = ControlNet(image_size=32, in_channels=4, model_channels=320, hint_channels=3, num_res_blocks=[1],
                         channel_mult=[1], transformer_depth=[1], transformer_depth_middle=-2, context_dim=768,
                         num_heads=8, num_head_channels=-1, use_spatial_transformer=True,
                         use_linear_in_transformer=False, legacy=False, operations=comfy.ops.disable_weight_init)
    return stored(seeded(network, 6, gain=0.3, last="zero_convs"), "control_model.")


def taesd(channels: int) -> dict:
    """{"encoder": tensors, "decoder": tensors} of a random TAESD."""
    from comfy.taesd.taesd import TAESD
    tensors = stored(seeded(TAESD(latent_channels=channels), 4))
    return {part: {name.removeprefix(f"taesd_{part}."): tensor for name, tensor in tensors.items()
                   if name.startswith(f"taesd_{part}.")} for part in ("encoder", "decoder")}


def write_all(models: Path) -> None:
    """Write every model this host can open into its models folder."""
    files = {"checkpoints/tiny_sd15": sd15(), "checkpoints/tiny_sd3": sd3(), "diffusion_models/tiny_wan": wan(),
             "diffusion_models/tiny_wan_low": wan(8), "diffusion_models/tiny_flux": flux()}
    for name, channels in (("taesd", 4), ("taesd3", 16)):
        files |= {f"vae_approx/{name}_{part}": tensors for part, tensors in taesd(channels).items()}
    for name, tensors in files.items():
        if tensors is not None:
            path = models / f"{name}.safetensors"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, path)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    from comfy.cli_args import args
    args.cpu = True
    write_all(Path(sys.argv[2]))
