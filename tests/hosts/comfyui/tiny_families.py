"""Tiny random models of the families people run, built by the newest ComfyUI's own classes of model and sampling.

The loaders read most architectures at their full width, so these are built from the family's configuration class with a
small network, and go through the real KSampler. What a family's sampling is does not depend on the network's size.
"""

from dataclasses import dataclass, field

import torch
from tiny_models import seeded

UNET = {"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
        "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [0, 0],
        "transformer_depth_middle": -2, "context_dim": 32, "num_heads": 2, "num_head_channels": -1,
        "use_spatial_transformer": True, "use_linear_in_transformer": True, "legacy": False}
WIDER = {**UNET, "model_channels": 64}          # 64 numbers a head
SDXL = {**WIDER, "adm_in_channels": 2816, "num_classes": "sequential"}
FLUX = {"image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32, "context_in_dim": 32,
        "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 1, "depth_single_blocks": 1,
        "axes_dim": [16, 56, 56], "theta": 10000, "patch_size": 2, "qkv_bias": True, "guidance_embed": True,
        "txt_ids_dims": []}
LUMINA = {"patch_size": 2, "in_channels": 16, "dim": 96, "cap_feat_dim": 32, "n_layers": 1, "n_refiner_layers": 1,
          "qk_norm": True, "n_heads": 1, "n_kv_heads": 1, "axes_dims": [32, 32, 32], "axes_lens": [300, 512, 512]}
HUNYUAN = {"image_model": "hunyuan_video", "in_channels": 16, "out_channels": 16, "vec_in_dim": 32,
           "context_in_dim": 32, "hidden_size": 128, "mlp_ratio": 4.0, "num_heads": 1, "depth": 1,
           "depth_single_blocks": 1, "axes_dim": [16, 56, 56], "theta": 256, "patch_size": [1, 2, 2],
           "qkv_bias": True, "guidance_embed": False, "byt5": False, "meanflow": False,
           "use_cond_type_embedding": False, "vision_in_dim": None, "meanflow_sum": False}
WAN = {"model_type": "t2v", "patch_size": (1, 2, 2), "in_dim": 16, "dim": 128, "ffn_dim": 256, "text_dim": 32,
       "out_dim": 16, "num_heads": 1, "num_layers": 1}
LTX = {"in_channels": 128, "cross_attention_dim": 64, "attention_head_dim": 32, "num_attention_heads": 2,
       "caption_channels": 32, "num_layers": 1}


@dataclass(frozen=True)
class Tiny:
    """A family: what people call it, its configuration class, a small network's settings, one latent's shape (or those
    of a video and its sound), and the width of its conditioning and of what is pooled. state: what its file says
    besides. told: what its configuration says of the network as people run it, by which a family is known.
    cfg: of LTX 1, as the host's attention on the CPU takes its mask for one image only."""

    title: str
    config: str
    network: dict
    shape: tuple
    width: int = 32
    pooled: int = 0
    state: tuple = ()
    extra: dict = field(default_factory=dict)
    told: dict = field(default_factory=dict)
    cfg: float = 3.0


FAMILIES = {
    "sd15": Tiny("SD 1.x", "SD15", UNET, (4, 8, 8)),
    "sd20": Tiny("SD 2.x, v prediction", "SD20", WIDER, (4, 8, 8),
                 state=("output_blocks.11.1.transformer_blocks.0.norm1.bias",)),
    "sdxl": Tiny("SDXL", "SDXL", SDXL, (4, 8, 8), pooled=1280),
    "sdxl_v": Tiny("SDXL, v prediction, zero terminal SNR (NoobAI, Illustrious)", "SDXL", SDXL, (4, 8, 8), pooled=1280,
                   state=("v_pred", "ztsnr")),
    "sd3": Tiny("SD3, SD3.5", "SD3", {
        "in_channels": 16, "patch_size": 2, "depth": 2, "adm_in_channels": 2048, "pos_embed_max_size": 32,
        "num_patches": 1024, "pos_embed_scaling_factor": None, "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 32, "out_features": 128}}}, (16, 8, 8), pooled=2048),
    "flux": Tiny("Flux.1 dev", "Flux", FLUX, (16, 8, 8), pooled=32),
    "fluxschnell": Tiny("Flux.1 schnell", "FluxSchnell", {**FLUX, "guidance_embed": False}, (16, 8, 8), pooled=32),
    "flux2": Tiny("Flux.2", "Flux2", {
        **FLUX, "image_model": "flux2", "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "patch_size": 1,
        "axes_dim": [32, 32, 32, 32], "theta": 2000, "mlp_ratio": 3.0, "global_modulation": True, "mlp_silu_act": True,
        "qkv_bias": False, "ops_bias": False, "txt_ids_dims": [3]}, (128, 4, 4)),
    "chroma": Tiny("Chroma", "Chroma", {
        **{key: value for key, value in FLUX.items() if key != "guidance_embed"}, "image_model": "chroma",
        "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 128, "hidden_dim": 64, "n_layers": 1},
        (16, 8, 8)),
    "qwenimage": Tiny("Qwen-Image, 2512 too", "QwenImage", {
        "image_model": "qwen_image", "in_channels": 64, "num_layers": 1, "attention_head_dim": 128,
        "num_attention_heads": 1, "joint_attention_dim": 32}, (16, 1, 8, 8)),
    "zimage": Tiny("Z-Image, Z-Image-Turbo", "ZImage", {
        "image_model": "lumina2", **LUMINA, "dim": 288, "n_heads": 3, "n_kv_heads": 3, "ffn_dim_multiplier": 8 / 3,
        "rope_theta": 256.0, "z_image_modulation": True, "time_scale": 1000.0}, (16, 8, 8)),
    "lumina2": Tiny("Lumina Image 2", "Lumina2", {"image_model": "lumina2", **LUMINA}, (16, 8, 8)),
    "anima": Tiny("Anima", "Anima", {
        "image_model": "anima", "max_img_h": 32, "max_img_w": 32, "max_frames": 8, "in_channels": 16,
        "out_channels": 16, "patch_spatial": 2, "patch_temporal": 1, "concat_padding_mask": True,
        "model_channels": 128, "num_blocks": 1, "num_heads": 1, "crossattn_emb_channels": 1024,
        "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True, "adaln_lora_dim": 16},
        (16, 1, 8, 8), 1024),
    "hunyuanvideo15": Tiny("HunyuanVideo 1.5", "HunyuanVideo15", {
        **HUNYUAN, "in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None,
        "use_cond_type_embedding": True}, (32, 2, 4, 4), pooled=32),
    "hunyuanimage21": Tiny("HunyuanImage 2.1", "HunyuanImage21", {
        **HUNYUAN, "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "axes_dim": [64, 64],
        "patch_size": [1, 1]}, (64, 4, 4)),
    "wan21": Tiny("Wan 2.1", "WAN21_T2V", {"image_model": "wan2.1", **WAN}, (16, 2, 8, 8)),
    "wan14b": Tiny("Wan 2.2 14B, both experts, and Wan 2.1 14B text to video", "WAN21_T2V", {
        "image_model": "wan2.1", **WAN}, (16, 2, 8, 8), told={"dim": 5120}),
    "wan22": Tiny("Wan 2.2 5B", "WAN22_T2V", {"image_model": "wan2.1", **WAN, "in_dim": 48, "out_dim": 48},
                  (48, 2, 4, 4)),
    "ltxv": Tiny("LTX Video", "LTXV", {"image_model": "ltxv", **LTX}, (128, 2, 4, 4), cfg=1.0,
                 extra={"attention_mask": (1, 8)}),
    "hidream": Tiny("HiDream I1", "HiDream", {
        "image_model": "hidream", "attention_head_dim": 128, "axes_dims_rope": [64, 32, 32],
        "caption_channels": [32, 32], "max_resolution": [128, 128], "in_channels": 16, "llama_layers": [0, 0],
        "num_attention_heads": 1, "num_routed_experts": 2, "num_activated_experts": 1, "num_layers": 1,
        "num_single_layers": 1, "out_channels": 16, "patch_size": 2, "text_emb_dim": 32}, (16, 8, 8), pooled=32,
        extra={"conditioning_llama3": (1, 1, 8, 32)}),
    "krea2": Tiny("Krea 2", "Krea2", {
        "image_model": "krea2", "features": 128, "tdim": 32, "txtdim": 32, "heads": 1, "kvheads": 1, "multiplier": 2,
        "layers": 1, "patch": 2, "channels": 16, "txtlayers": 1, "txtheads": 1, "txtkvheads": 1}, (16, 1, 8, 8)),
    "hidreamo1": Tiny("HiDream O1", "HiDreamO1", {
        "image_model": "hidream_o1", "text_config_overrides": {
            "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
            "num_key_value_heads": 1, "rope_dims": [24, 20, 20]},
        "vision_config_overrides": {"hidden_size": 32, "num_heads": 2, "intermediate_size": 64, "depth": 1,
                                    "deepstack_visual_indexes": ()}}, (3, 64, 64),
        extra={"text_input_ids": (1, 8)}),
    "ltxav": Tiny("LTX 2", "LTXAV", {
        "image_model": "ltxav", **LTX, "audio_cross_attention_dim": 32, "audio_attention_head_dim": 16,
        "audio_num_attention_heads": 2, "connector_attention_head_dim": 32, "connector_num_attention_heads": 1,
        "connector_num_layers": 1}, ((128, 2, 4, 4), (8, 4, 16)), 64),
    "minimaxh3": Tiny("MiniMax H3", "MiniMaxH3", {
        "image_model": "minimax_h3", "hidden_size": 128, "num_layers": 1, "token_refiner_num_layers": 1,
        "num_attention_heads": 1, "attention_head_dim": 128, "ffn_hidden_size": 128, "text_dim": 32,
        "timestep_input_dim": 32, "time_embed_hidden_size": 64, "time_embed_dim": 64},
        ((24, 2, 4, 4), (32, 2, 8))),
    "triposplat": Tiny("TripoSplat", "TripoSplat", {
        "image_model": "triposplat", "q_token_length": 16, "model_channels": 128, "cond_channels": 32,
        "cond2_channels": None, "num_blocks": 1, "num_refiner_blocks": 1}, ((16, 16), (1, 5))),
    "flowrvs": Tiny("FlowRVS", "WAN21_FlowRVS", {"image_model": "wan2.1", **WAN}, (16, 2, 8, 8)),
}
NO_DENOISERS = {"RT_DETR_v4", "SAM3", "SAM31", "DepthAnything3"}        # of the host's models
OF_THE_TEXT = {"text_input_ids": lambda shape, _: torch.tensor([[*range(shape[1] - 1), 151673]]),   # its last one's
               "attention_mask": lambda shape, _: torch.ones(shape)}


def build(name: str):
    """A MODEL of this family."""
    tiny = FAMILIES[name]
    model = _patcher(tiny.config, tiny.network, tiny.state)
    model.model.model_config.unet_config.update(tiny.told)
    return model


def build_others() -> dict:
    """{name of a configuration class that no tiny one is built of: a MODEL without a network, None where the host
    needs the weights for it}."""
    import comfy.supported_models
    built = {tiny.config for tiny in FAMILIES.values()} | NO_DENOISERS
    made: dict = {}
    for config in comfy.supported_models.models:
        if config.__name__ not in built:
            try:
                made[config.__name__] = _patcher(config.__name__, {
                    **config.unet_config, "disable_unet_model_creation": True})
            except (KeyError, RuntimeError):
                made[config.__name__] = None
    return made


def _patcher(config: str, network: dict, state: tuple = ()):
    import comfy.model_patcher
    import comfy.supported_models
    config, cpu = getattr(comfy.supported_models, config)(dict(network)), torch.device("cpu")
    config.sampling_settings = dict(config.sampling_settings)           # of a class, which SDXL writes to
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({key: torch.linspace(-1, 1, 8) for key in state}, "", device=cpu)
    if hasattr(model, "diffusion_model"):
        seeded(model.diffusion_model, 1)
    return comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu)


def latent(name: str, fill=torch.zeros):
    """A latent of one image, (1, *shape), or of a video and its sound, nested as the host has them."""
    shape = FAMILIES[name].shape
    if not isinstance(shape[0], tuple):
        return fill((1, *shape))
    from comfy.nested_tensor import NestedTensor
    return NestedTensor([fill((1, *part)) for part in shape])


def conditioning(name: str, seed: int = 0, tokens: int = 8) -> list:
    """CONDITIONING of random tokens for this family."""
    tiny, generator = FAMILIES[name], torch.Generator().manual_seed(seed)
    extra = {key: OF_THE_TEXT.get(key, lambda shape, drawn: torch.randn(shape, generator=drawn))(shape, generator)
             for key, shape in tiny.extra.items()}
    if tiny.pooled:
        extra["pooled_output"] = torch.randn(1, tiny.pooled, generator=generator)
    return [[torch.randn(1, tokens, tiny.width, generator=generator), extra]]
