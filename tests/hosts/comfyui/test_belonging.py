"""Beside its weights: what else a preset is for, of the prompts, the guider and the size of one sampling."""

from dataclasses import replace

import comfy.hooks
import comfy.samplers
import comfy_extras.nodes_custom_sampler as custom
import pytest
import s4s_host
import s4s_tools as t
import torch
from test_sampler import ksampled
from test_train_denoiser import inside

facts = s4s_host.pack("s4s_nodes.hosts.comfyui.facts")
record = s4s_host.pack("s4s_nodes.hosts.comfyui.record")
NAME = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"


@pytest.fixture
def ran(monkeypatch):
    """ran(work): the selections that the sampler took meanwhile."""
    def listen(work):
        heard = []
        monkeypatch.setattr(record, "tell", lambda found, _, **more: None if more else heard.append(found))
        with torch.inference_mode():
            work()
        return heard[-1]
    return listen


def hooked(prompts, *strengths):
    """The prompts with LoRAs that hang on them."""
    group = comfy.hooks.HookGroup()
    for i, strength in enumerate(strengths):
        hook = comfy.hooks.WeightHook(strength_model=strength)
        hook.weights, hook.need_weight_init = {NAME: ("diff", (torch.full((384, 128), 0.01 * (i + 1)),))}, False
        group.add(hook)
    return [[tokens, {**extra, "hooks": group}] for tokens, extra in prompts]


def under(model, name: str, guider, steps: int = 4):
    """One custom sampling under a guider."""
    guider.sample(torch.randn(t.empty(name).shape), t.empty(name), comfy.samplers.sampler_object("s4s"),
                  t.sigmas_of(model, "s4s", steps), seed=0, disable_pbar=True)


def test_a_guider_whose_cfg_cannot_be_read_is_a_fallback(models, installed, ran):
    model = models("sd15")
    installed(t.preset_at(model, 1.0, "one"))
    usual, alone, dual = comfy.samplers.CFGGuider(model), custom.Guider_Basic(model), custom.Guider_DualCFG(model)
    first, second, third = (t.conditioning("sd15", seed) for seed in range(3))
    usual.set_conds(first, second)
    usual.set_cfg(1.0)
    alone.set_conds(first)
    dual.set_conds(first, second, third)
    dual.set_cfg(7.0, 7.0)
    for guider in (usual, alone):
        assert ran(lambda guider=guider: under(model, "sd15", guider)).preset.name == "one"
    found = ran(lambda: under(model, "sd15", dual))
    assert found.fallback and found.warns and ("one was learned with cfg alone, this sampling has the guidance of "
                                               "Guider_DualCFG") in found.message()


def test_a_guider_that_answers_in_its_own_way_is_a_fallback_whatever_it_overrides(models, installed, ran):
    """In a class, in one that it derives from, or on the object; what only takes its settings otherwise is usual."""
    model, usual = models("sd15"), comfy.samplers.CFGGuider
    installed(t.preset_at(model, 3.0, "one"))

    def found(own):
        own.set_conds(t.conditioning("sd15", 0), t.conditioning("sd15", 1))
        own.set_cfg(3.0)
        return ran(lambda: under(model, "sd15", own))

    def other(self, *given, **more):
        return getattr(usual, name)(self, *given, **more)
    for name in facts.ANSWERING[usual]:
        parent = type("Own", (usual,), {name: other})
        assert "this sampling has the guidance of Own" in found(parent(model)).message()
        assert "has the guidance of Derived" in found(type("Derived", (parent,), {})(model)).message()
    hung = usual(model)
    hung.predict_noise = hung.predict_noise
    assert "has the guidance of CFGGuider" in found(hung).message()
    name = "set_cfg"
    assert found(type("Taking", (usual,), {name: other})(model)).preset.name == "one"


def test_a_function_of_another_pack_around_the_model_is_a_fallback(models, installed, ran):
    """As Detail Daemon does, which tells the network other levels than those of the state."""
    model, rows = models("sd15"), comfy.samplers.sampler_object("s4s")
    installed(t.preset_at(model, 3.0, "one"))

    def passed_on(denoiser, *given, **more):
        return rows.sampler_function(denoiser, *given, **more)

    def daemon(denoiser, *given, **more):
        def told_less(x, sigma, **extra):
            return denoiser(x, sigma * 0.95, **extra)
        told_less.inner_model = denoiser.inner_model
        return rows.sampler_function(told_less, *given, **more)
    for function, words in ((passed_on, "S4S one ("), (daemon, "this sampling has told_less around the model")):
        own = comfy.samplers.KSAMPLER(function)
        assert words in ran(lambda own=own: t.sample(model, "sd15", own, t.sigmas_of(model, "s4s", 4))).message()


def test_a_lora_in_a_prompts_hooks_is_no_part_of_the_model_without(models, installed, ran):
    model = models("sd3")
    prompts, of_hooks = t.conditioning("sd3"), s4s_host.pack("s4s_nodes.hosts.comfyui.fingerprint").of_hooks

    def words(*strengths):
        return of_hooks({"positive": [each for _, each in hooked(prompts, *strengths)]})
    assert words(0.5) == words(0.5) and len({words(0.5), words(0.6), words(0.5, 0.5)}) == 3 and words(0.0) == ""
    source = inside(model, "tiny_sd3", lambda source: source, [hooked(prompts, 0.5)])
    assert source.about == {"hooks": source.about["hooks"]}
    installed(t.preset_at(model, 3.0, "plain", calls=(4,)))
    with_hooks = t.preset_at(model, 3.0, "hooked", calls=(4,))
    asked = {"positive": hooked(prompts, 0.5), "cfg": 3.0}
    found = ran(lambda: t.sample(model, "sd3", "s4s", t.sigmas_of(model, "s4s", 4), **asked))
    assert found.fallback and "plain was learned with cfg alone, this sampling has hooks" in found.message()
    installed(replace(with_hooks, training={**with_hooks.training, **source.about}))
    sigmas = t.sigmas_of(model, "s4s", 4)
    assert ran(lambda: t.sample(model, "sd3", "s4s", sigmas, **asked)).preset.name == "hooked"
    assert ran(lambda: t.sample(model, "sd3", "s4s", sigmas, cfg=3.0)).preset.name == "plain"
    assert ran(lambda: ksampled(model, "sd3", 4, cfg=3.0)).preset.name == "plain"


def test_distilled_guidance_is_recorded_and_compared(models, installed, ran):
    model = models("flux")

    def told(*guidance):
        """The tiny prompt as FluxGuidance leaves it."""
        return [[tokens, {**extra, **dict.fromkeys(["guidance"][:len(guidance)], *guidance)}]
                for tokens, extra in t.conditioning("flux")]
    source = inside(model, "tiny_flux", lambda source: source, [told(4.0)], cfg=1.0)
    assert source.about == {"guidance": 4.0}
    assert inside(model, "tiny_flux", lambda source: source, [told()], cfg=1.0).about == {"guidance": 3.5}
    assert inside(model, "tiny_flux", lambda source: source, [told(4.0), told(5.0)], cfg=1.0).about == {
        "guidance": [4.0, 5.0]}
    made = t.preset_at(model, 1.0, "four", calls=(4,))
    installed(made)                                         # an old one does not say: it runs as before
    sigmas = t.sigmas_of(model, "s4s", 4)
    assert not ran(lambda: t.sample(model, "flux", "s4s", sigmas, cfg=1.0, positive=told(9.0))).fallback
    installed(replace(made, training={**made.training, **source.about}))
    for guidance, runs in ((4.0, True), (4.3, True), (9.0, False)):
        found = ran(lambda: t.sample(model, "flux", "s4s", sigmas, cfg=1.0, positive=told(guidance)))
        assert found.fallback is not runs and found.warns is not runs
    assert "four was learned at distilled guidance 4, you use 9" in found.message()


def test_another_number_of_frames_is_said_and_no_fallback(models, installed, ran):
    model, made = models("wan"), t.preset_at(models("wan"), 3.0, "clip", calls=(4,))
    installed(replace(made, training={**made.training, "resolution": [2, 8, 8]}))
    for frames, words in ((2, ""), (5, " (learned on 2 latent frames, you have 5)")):
        latent = torch.zeros(1, 16, frames, 8, 8)
        found = ran(lambda: t.sample(model, "wan", "s4s", t.sigmas_of(model, "s4s", 4), latent))
        assert not (found.fallback or found.warns)
        assert found.message().endswith(f"clip ({made.short_hash}), calls4, exact: these are its levels{words}")
