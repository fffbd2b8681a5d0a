"""What must pass through the sampler untouched: masks, precision, ControlNet, areas, hooks, latents of any rank."""

import importlib
from types import SimpleNamespace

import pytest
import s4s_host
import s4s_tools as t
import torch
from s4s_tools import FAMILIES, classical_preset, kind, preset_levels

MASKS = {"hard": lambda m: m.__setitem__((..., slice(4, None)), 0.0),
         "soft": lambda m: m.copy_(torch.linspace(0, 1, 8).expand_as(m))}


def masked(name: str, which: str) -> torch.Tensor:
    mask = torch.ones(1, 1, *t.KINDS[kind(name)].shape[-2:])
    MASKS[which](mask)
    return mask


@pytest.mark.parametrize("name", FAMILIES)
def test_inpainting_leaves_the_known_region_as_it_was(models, installed, name, figure):
    installed(t.preset_for(models(name)))
    model, picture, mask = models(name), t.picture(kind(name)), masked(name, "hard")
    result = t.sample(model, kind(name), "s4s", t.sigmas_of(model, "s4s", 4), picture, mask=mask)
    known = (mask == 0).expand_as(result[..., :1, :, :] if result.ndim == 5 else result[:, :1])
    known = known.expand_as(result)
    # the way through the latent's own units and back rounds; the sampler itself adds nothing
    assert figure("error / deviation", t.off(result[known], picture[known])) < 2e-6
    assert t.off(result[~known], picture[~known]) > 0.1


@pytest.mark.parametrize("keeps_constants", [True, False])
@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_a_soft_mask_keeps_as_much_as_it_says(models, name, keeps_constants, figure):
    """With a network that answers a constant c, the end is m c + (1 - m) picture, whatever the table."""
    model, preset = models(name).clone(), t.preset_for(models(name))
    if not keeps_constants:
        preset = broken_law(preset)
    answer = 0.7
    model.set_model_sampler_cfg_function(lambda given: given["input"] - answer, disable_cfg1_optimization=True)
    picture, mask = t.picture(name), masked(name, "soft")
    result = t.sample(model, name, t.with_preset(preset), preset_levels(preset, 4), picture, mask=mask)
    latent = model.model.process_latent_in(picture)
    free = t.sample(model, name, t.with_preset(preset), preset_levels(preset, 4), picture)
    wanted = model.model.process_latent_out(mask * model.model.process_latent_in(free) + (1 - mask) * latent)
    assert figure("error / deviation", t.off(result, wanted)) < 1e-5


def broken_law(preset):
    """The preset with tables whose predictions weigh 3 % too much."""
    c = t.core()
    tables = {name: c.Table(s.sigmas, s.query, s.scale, s.carry, s.weights * 1.03, keeps_constants=False)
              for name, s in preset.tables.items()}
    return c.Preset(preset.name, tables, preset.model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_sample_and_are_recognised(models, base, dtype, figure):
    model = t.load(base, "sd3", dtype=dtype)
    assert model.model_dtype() == dtype
    preset = t.preset_for(models("sd3"))
    levels = preset_levels(preset, 4)
    half, full = (t.sample(m, "sd3", t.with_preset(preset), levels) for m in (model, models("sd3")))
    assert half.dtype == torch.float32 and torch.isfinite(half).all()
    assert figure("difference / deviation", t.off(half, full)) < 0.05
    counts = [sketch_of(m) for m in (model, models("sd3"))]
    assert figure("sketch counts apart", max(abs(a - b) for a, b in zip(*counts))) <= 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_that_computes_in_half_precision_ends_near_the_full_one(models, dtype, figure):
    preset = t.preset_for(models("sd3"))
    model = models("sd3").clone()
    model.set_model_compute_dtype(dtype)
    levels = t.preset_levels(preset, 4)
    half, again, full = (t.sample(m, "sd3", t.with_preset(preset), levels) for m in (model, model, models("sd3")))
    assert torch.equal(half, again) and half.dtype == torch.float32
    # a coefficient enters in float32; what is left is the network's own rounding
    assert 0 < figure("difference / deviation", t.off(half, full)) < 0.1


def sketch_of(model) -> list[int]:
    digits = t.facts(model).fingerprint()["weights_1d"]
    return [int.from_bytes(bytes.fromhex(digits[i:i + 4]), "big", signed=True) for i in range(0, len(digits), 4)]


def test_another_training_gives_another_sketch(base):
    import tiny_models
    from safetensors.torch import save_file
    path = base / "models" / "checkpoints" / "tiny_sd3_other.safetensors"
    save_file(tiny_models.sd3(seed=9), path)
    import comfy.sd
    other = comfy.sd.load_checkpoint_guess_config(str(path))[0]
    a, b = sketch_of(other), sketch_of(t.load(base, "sd3"))
    assert max(abs(x - y) for x, y in zip(a, b)) > 30
    path.unlink()


NAME = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"


def lora(models, *strengths, seed: int = 0):
    """The tiny SD3 with LoRAs one after the other, each with numbers of its own."""
    from comfy.weight_adapter.lora import LoRAAdapter
    model = models("sd3").clone()
    out, into = dict(model.model.named_parameters())[NAME].shape
    for i, strength in enumerate(strengths):
        chance = torch.Generator().manual_seed(seed + i)
        up, down = (torch.randn(shape, generator=chance) / 10 for shape in ((out, 2), (2, into)))
        model.add_patches({NAME: LoRAAdapter(set(), (up, down, 1.0, None, None, None))}, strength)
    return model


def known(model) -> dict:
    return t.facts(model).fingerprint()


def test_a_lora_leaves_the_sketch_and_is_known_beside_it(models):
    model, plain = lora(models, 0.8), known(models("sd3"))
    t.sample(model, "sd3", "euler", t.sigmas_of(model, "normal", 2))
    s4s_host.pack("s4s_nodes.hosts.comfyui.fingerprint")._sketches.clear()
    assert set(plain) == {"weights_1d"} and known(model) == {**plain, "patches": known(lora(models, 0.8))["patches"]}


def test_a_merged_lora_is_another_run_and_one_that_is_patched_in_leaves_the_weights(models):
    fingerprint, digest = (s4s_host.pack(name) for name in ("s4s_nodes.hosts.comfyui.fingerprint", "training.weights"))

    def weights(model) -> str:
        return digest.digest(fingerprint.weights(model.model, model).values())
    model, sd3 = lora(models, 0.8), models("sd3")
    plain, sketch = weights(sd3), known(sd3)
    t.sample(model, "sd3", "euler", t.sigmas_of(model, "normal", 2))
    assert weights(model) == plain
    t.sample(sd3, "sd3", "euler", t.sigmas_of(sd3, "normal", 2))            # the host takes the LoRA out again
    matrix = dict(sd3.model.named_parameters())[NAME]
    before = matrix.detach().clone()
    try:
        with torch.inference_mode():
            matrix.add_(0.01)
        assert weights(sd3) != plain and known(sd3) == sketch
    finally:
        with torch.inference_mode():
            matrix.copy_(before)


def test_every_lora_strength_and_set_of_them_is_another_model(models):
    both, swapped = lora(models, 0.8, 0.5), models("sd3").clone()
    for patch in reversed(both.patches[NAME]):                      # the same two, loaded in the other order
        swapped.add_patches({NAME: patch[1]}, patch[0])
    others = [lora(models, 0.8), lora(models, 0.81), lora(models, 0.8, seed=5), both, lora(models, 0.5, 0.8)]
    digests = [known(each)["patches"] for each in others]
    assert len(set(digests)) == len(digests) and known(swapped)["patches"] == digests[3]


def test_patched_objects_are_known_where_they_change_weights(models):
    plain = known(models("sd3"))
    model = models("sd3").clone()
    model.add_object_patch("model_sampling", model.get_model_object("model_sampling"))
    model.add_object_patch("diffusion_model", SimpleNamespace(_orig_mod=None))
    assert known(model) == plain
    model.add_object_patch(NAME, torch.nn.Parameter(torch.zeros(4)))
    assert "patches" in known(model)


def test_a_lora_in_the_forward_pass_is_known_too(models):
    bypass = pytest.importorskip("comfy.weight_adapter.bypass")
    digests = []
    for strength in (0.8, 0.5):
        model, manager = models("sd3").clone(), bypass.BypassInjectionManager()
        manager.add_adapter(NAME, lora(models, 1.0).patches[NAME][0][1], strength=strength)
        model.set_injections("bypass_lora", manager.create_injections(model.model))
        digests.append(known(model)["patches"])
    assert digests[0] != digests[1]


# --- what the host's nodes hang into a model -------------------------------------------------------------------------

STEERED = {"FreeU_V2": ("comfy_extras.nodes_freelunch", {"b1": 1.3, "b2": 1.4, "s1": 0.9}, "s2", 0.2, 0.3),
           "RescaleCFG": ("comfy_extras.nodes_model_advanced", {}, "multiplier", 0.7, 0.5),
           "PerturbedAttentionGuidance": ("comfy_extras.nodes_pag", {}, "scale", 3.0, 2.0),
           "APG": ("comfy_extras.nodes_apg", {"norm_threshold": 5.0, "momentum": 0.5}, "eta", 1.0, 0.5),   # keeps state
           "TomePatchModel": ("comfy_extras.nodes_tomesd", {}, "ratio", 0.3, 0.5),
           "HyperTile": ("comfy_extras.nodes_hypertile", {"tile_size": 32, "swap_size": 2, "scale_depth": False},
                         "max_depth", 0, 1),
           "EpsilonScaling": ("comfy_extras.nodes_eps", {}, "scaling_factor", 1.005, 1.01),
           "TemporalScoreRescaling": ("comfy_extras.nodes_eps", {"tsr_sigma": 1.0}, "tsr_k", 0.95, 0.9),
           "CFGNorm": ("comfy_extras.nodes_cfg", {}, "strength", 1.0, 0.8),
           "FreSca": ("comfy_extras.nodes_fresca", {"scale_low": 1.0, "freq_cutoff": 20}, "scale_high", 1.25, 1.5),
           "EasyCacheNode": ("comfy_extras.nodes_easycache", {"start_percent": 0.15, "end_percent": 0.95,
                                                              "verbose": False}, "reuse_threshold", 0.2, 0.4),
           "LazyCacheNode": ("comfy_extras.nodes_easycache", {"start_percent": 0.15, "end_percent": 0.95,
                                                              "verbose": False}, "reuse_threshold", 0.2, 0.4)}


@pytest.mark.parametrize("name", STEERED)
def test_a_guidance_or_a_block_that_is_changed_makes_another_model(models, name):
    module, others, key, one, two = STEERED[name]
    if not hasattr(importlib.import_module(module), name):
        pytest.skip(f"this ComfyUI has no {name}")

    def changed(value):
        return t.through(models("sd15"), module, name, **others, **{key: value})
    model = changed(one)
    digest = known(model)["patches"]
    t.sample(model, "sd15", "euler", t.sigmas_of(model, "normal", 2))
    assert known(model) == {**known(models("sd15")), "patches": digest} == known(changed(one)) != known(changed(two))


def test_what_leaves_the_answer_as_it_is_makes_no_other_model(models):
    from comfy.patcher_extension import WrappersMP
    model = models("sd3").clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = lambda *_: None
    model.model_options["denoise_mask_function"] = lambda *_: None          # differential diffusion: masks alone
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "torch.compile", lambda *_: None)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "a preview", lambda *_: None)
    model.set_model_compute_dtype(torch.float16)
    model = s4s_host.pack("s4s_nodes.hosts.comfyui.sampler").pin(model, t.preset_for(model), False)
    assert known(model) == known(models("sd3"))


def test_lcms_answer_is_another_models(models):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
    assert "patches" in known(ModelSamplingDiscrete().patch(models("sd15"), "lcm", False)[0])
    assert "patches" not in known(models("v"))


def test_functions_are_known_by_their_name_and_what_they_hold(models):
    def wrapped(*held):
        class Held:
            def __init__(self):
                self.strength, self.image, self.model = held[0], torch.zeros(held[1]), model

            def __call__(self, apply, given):
                return apply(given["input"], given["timestep"], **given["c"])
        model = models("sd3").clone()
        model.set_model_unet_function_wrapper(Held())
        return known(model)["patches"]
    assert wrapped(0.5, 1) == wrapped(0.5, 2) != wrapped(0.6, 1)    # another image is another prompt, no other model


def test_a_patch_that_holds_a_part_of_the_network_is_known_with_its_loras_loaded_or_not(models):
    model = lora(models, 0.8)
    part = model.model.diffusion_model.joint_blocks[0].x_block.attn
    model.set_model_unet_function_wrapper(lambda apply, given: part and apply(given["input"], given["timestep"],
                                                                              **given["c"]))
    before = known(model)
    t.sample(model, "sd3", "euler", t.sigmas_of(model, "normal", 2))
    assert known(model) == before


def test_a_preset_runs_for_what_is_hung_into_the_model_it_was_learned_on(models, installed, caplog):
    plain, model = models("sd15"), t.through(models("sd15"), "comfy_extras.nodes_freelunch", "FreeU_V2", b1=1.3, b2=1.4,
                                             s1=0.9, s2=0.2)
    installed(t.preset_for(plain, name="plain"))
    ran = []
    for name in ("plain", "steered"):
        installed(t.preset_for(plain if name == "plain" else model, name=name))
        for each in (plain, model):
            caplog.clear()
            with caplog.at_level("INFO"):
                t.sample(each, "sd15", "s4s", t.sigmas_of(each, "s4s", 4))
            ran.append([line for line in caplog.messages if line.startswith("S4S")][-1])
    assert ran[0].startswith("S4S plain") and "plain was learned on this model without LoRAs and patches" in ran[1]
    assert ran[2].startswith("S4S plain") and ran[3].startswith("S4S steered")


def test_packed_latents_of_any_rank(models, figure):
    """Audio and video models hand over (B, 1, N); the sampler sees only numbers."""
    model, preset = models("wan"), t.preset_for(models("wan"))

    class Guider:
        inner_model, model_patcher, cfg = model.model, model, 1.0

    class Denoiser:
        inner_model = Guider

        def __call__(self, x, sigma, **_):
            return x / (1 + sigma.view(-1, *[1] * (x.ndim - 1)))

    sample = s4s_host.pack("s4s_nodes.hosts.comfyui.sampler").sample_s4s
    x, levels = torch.randn(2, 16, 2, 4, 4), preset_levels(preset, 4)
    whole = sample(Denoiser(), x, levels, {}, disable=True, preset=preset)
    packed = sample(Denoiser(), x.reshape(2, 1, -1), levels, {}, disable=True, preset=preset)
    assert figure("difference / deviation", t.off(packed.reshape(x.shape), whole)) < 1e-6


def through_euler(model, name, **conditions) -> float:
    """How far an Euler table and the host's own Euler are apart under these conditions."""
    sigmas = t.sigmas_of(model, "normal", 4)
    ours = t.sample(model, name, t.with_preset(classical_preset(model, "euler", sigmas)), sigmas, **conditions)
    plain = t.sample(model, name, "euler", sigmas)
    theirs = t.sample(model, name, "euler", sigmas, **conditions)
    assert t.off(theirs, plain) > 1e-3          # the condition does something
    return t.off(ours, theirs)


def test_area_conditions_are_untouched(models, figure):
    left = [[c, {**extra, "area": (8, 4, 0, 0), "strength": 1.0}] for c, extra in t.conditioning("sd15", 3)]
    assert figure("difference / deviation",
                  through_euler(models("sd15"), "sd15", positive=[*t.conditioning("sd15"), *left])) < 1e-4


def test_a_controlnet_is_untouched(models, base, figure):
    import comfy.controlnet
    import tiny_models
    from nodes import ControlNetApplyAdvanced
    from safetensors.torch import save_file
    path = base / "models" / "controlnet" / "tiny.safetensors"
    path.parent.mkdir(exist_ok=True)
    save_file(tiny_models.sd15_control(), path)
    net = comfy.controlnet.load_controlnet(str(path))
    hint = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    positive, negative = ControlNetApplyAdvanced().apply_controlnet(
        t.conditioning("sd15"), t.conditioning("sd15", 1), net, hint, 1.0, 0.0, 1.0)
    assert figure("difference / deviation",
                  through_euler(models("sd15"), "sd15", positive=positive, negative=negative)) < 1e-4


def test_hooks_are_untouched(models, figure):
    """A LoRA that hangs on one conditioning only."""
    import comfy.hooks
    name = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    shape = dict(models("sd3").model.named_parameters())[name].shape
    group = comfy.hooks.HookGroup()
    hook = comfy.hooks.WeightHook(strength_model=1.0)
    hook.weights = {name: ("diff", (0.05 * torch.randn(shape, generator=torch.Generator().manual_seed(0)),))}
    hook.need_weight_init = False
    group.add(hook)
    positive = [[c, {**extra, "hooks": group}] for c, extra in t.conditioning("sd3")]
    assert figure("difference / deviation", through_euler(models("sd3"), "sd3", positive=positive)) < 1e-4


def test_differential_diffusion_is_untouched(models, figure):
    """The host's node thresholds a soft mask anew at every level."""
    from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion
    node = DifferentialDiffusion
    model = (node.execute(models("sd3"), 1.0).args[0] if hasattr(node, "define_schema")
             else node().apply(models("sd3"), 1.0)[0])
    picture, mask = t.picture("sd3"), masked("sd3", "soft")
    assert figure("difference / deviation", through_euler(model, "sd3", latent=picture, mask=mask)) < 1e-4
