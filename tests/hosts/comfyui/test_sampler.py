"""The sampler in the host's own guider: what every sampler must keep, measured."""

from dataclasses import replace

import nodes
import pytest
import s4s_host
import s4s_tools as t
import torch
from s4s_tools import FAMILIES, classical_preset, kind, preset_levels


@pytest.mark.parametrize("name", FAMILIES)
def test_the_same_run_twice_is_the_same_to_the_bit(models, installed, name):
    model, preset = models(name), installed(t.preset_for(models(name)))
    sigmas = t.sigmas_of(model, "s4s", 4)
    one, two = (t.sample(model, kind(name), "s4s", sigmas) for _ in range(2))
    assert torch.equal(one, two) and torch.isfinite(one).all()
    assert torch.equal(one, t.sample(model, kind(name), t.with_preset(preset), sigmas))


@pytest.mark.parametrize("name", FAMILIES)
def test_an_item_of_a_batch_is_the_item_alone(models, name, figure):
    model, preset = models(name), t.preset_for(models(name))
    sigmas, shape = t.sigmas_of(model, "s4s", 4), (3, *t.KINDS[kind(name)].shape)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(7))
    together = t.sample(model, kind(name), t.with_preset(preset), preset_levels(preset, 4), t.empty(kind(name), 3),
                        noise=noise)
    assert sigmas.shape == (5,)
    for i in range(3):
        alone = t.sample(model, kind(name), t.with_preset(preset), preset_levels(preset, 4), noise=noise[i:i + 1])
        # the matrix products of another batch size round otherwise
        assert figure("difference / deviation", t.off(together[i:i + 1], alone)) < 1e-4


CORE = [("euler", "euler"), ("dpmpp_2m", "dpmpp_2m"), ("ipndm", "ipndm_4"), ("deis", "deis_3")]


@pytest.mark.parametrize("name", ["sd15", "sd3", "wan"])
@pytest.mark.parametrize("theirs, ours", CORE)
def test_a_classical_table_is_the_hosts_own_sampler(models, name, theirs, ours, figure):
    """flow=False: the host's dpmpp_2m steps in -log sigma on every model."""
    model = models(name)
    sigmas = t.sigmas_of(model, "normal", 8)
    a = t.sample(model, name, t.with_preset(classical_preset(model, ours, sigmas)), sigmas)
    b = t.sample(model, name, theirs, sigmas)
    assert figure("difference / deviation", t.off(a, b)) < 2e-4


@pytest.mark.parametrize("name", ["sd15", "v"])
def test_a_unipc_table_is_the_hosts_own_unipc(models, name, figure):
    """The host ends UniPC at sigma 0.001; there the table ends too."""
    model = models(name)
    sigmas = t.sigmas_of(model, "normal", 8)
    b = t.sample(model, "sd15", "uni_pc_bh2", sigmas)
    ending = torch.cat([sigmas[:-1], torch.tensor([0.001])])
    a = t.sample(model, "sd15", t.with_preset(classical_preset(model, "unipc_bh2_3", ending)), ending)
    assert figure("difference / deviation", t.off(a, b)) < 1e-3


def counted(model):
    """(the model, a list that grows by one with each network call)."""
    calls, copy = [], model.clone()
    copy.set_model_unet_function_wrapper(
        lambda network, given: (calls.append(float(given["timestep"][0])), network(given["input"], given["timestep"],
                                                                                  **given["c"]))[1])
    return copy, calls


def ksampled(model, name, steps, sampler="s4s", scheduler="s4s", cfg=1.0, latent=None, **options):
    with torch.inference_mode():
        latent = {"samples": t.picture(kind(name)) if latent is None else latent}
        return nodes.common_ksampler(model, 1, steps, cfg, sampler, scheduler, t.conditioning(kind(name)),
                                     t.conditioning(kind(name), 1), latent, **options)[0]["samples"]


@pytest.mark.parametrize("name", ["sd15", "sd3"])
@pytest.mark.parametrize("options, calls", [
    ({}, 6), ({"denoise": 0.5}, 6), ({"denoise": 0.31}, 6), ({"start_step": 2}, 4), ({"last_step": 3}, 3),
    ({"start_step": 1, "last_step": 4}, 3), ({"last_step": 3, "force_full_denoise": True}, 3),
    ({"start_step": 2, "last_step": 10000, "disable_noise": True, "force_full_denoise": True}, 4)])
def test_a_ksampler_makes_as_many_calls_as_steps(models, installed, name, options, calls):
    installed(t.preset_for(models(name), calls=(3, 4, 6)))
    model, made = counted(models(name))
    result = ksampled(model, name, 6, **options)
    assert len(made) == calls and torch.isfinite(result).all()


def test_a_scheduler_that_is_off_by_one_gets_as_many_calls_as_it_made_levels(models, installed):
    """The host's ddim_uniform gives 8 steps where 7 were asked for."""
    installed(t.preset_for(models("sd15"), calls=(7, 8)))
    model, made = counted(models("sd15"))
    levels = t.sigmas_of(model, "ddim_uniform", 7)
    ksampled(model, "sd15", 7, scheduler="ddim_uniform")
    assert len(made) == len(levels) - 1 == 8


def test_endless_noise(models, installed):
    """Zero terminal SNR: the levels start at 4500."""
    model = t.v_prediction(models("sd15"), zsnr=True)
    installed(t.preset_for(model))
    sigmas = t.sigmas_of(model, "s4s", 4)
    assert sigmas[0] > 4000 and torch.isfinite(t.sample(model, "sd15", "s4s", sigmas)).all()
    assert torch.isfinite(t.sample(model, "sd15", "s4s", t.sigmas_of(model, "normal", 5))).all()


def test_an_unreadable_preset_is_named_where_none_was_found(models, installed, base):
    (base / "models" / "s4s_presets" / "mine.safetensors").write_bytes(b"half of a file")
    assert "mine.safetensors" in chosen(models("sd3"), t.sigmas_of(models("sd3"), "s4s", 4)).message()


def test_leftover_noise_goes_on_where_it_was(models, installed, figure):
    """Two KSamplerAdvanced in a row, both on the scheduler s4s: every call of both is made, on a falling schedule."""
    installed(t.preset_for(models("sd3"), calls=(3, 6)))
    model, made = counted(models("sd3"))
    first = ksampled(model, "sd3", 6, latent=t.empty("sd3"), last_step=3, start_step=0)
    ksampled(model, "sd3", 6, latent=first, start_step=3, disable_noise=True, force_full_denoise=True)
    assert len(made) == 6 and made == sorted(made, reverse=True)


def test_odd_levels(models, installed):
    model, name = models("sd3"), "sd3"
    installed(t.preset_for(model))
    sigmas = t.sigmas_of(model, "normal", 4)
    latent = t.picture(name)
    assert torch.equal(t.sample(model, name, "s4s", torch.zeros(0), latent), latent)
    with pytest.raises(ValueError, match="must fall"):
        t.sample(model, name, "s4s", sigmas.flip(0))
    repeated = t.sample(model, name, "s4s", sigmas[[0, 1, 1, 2, 4]])
    assert torch.isfinite(repeated).all()
    assert torch.equal(t.sample(model, name, "s4s", sigmas.double()), t.sample(model, name, "s4s", sigmas))
    one = t.sample(models("sd15"), "sd15", "s4s", t.sigmas_of(models("sd15"), "normal", 4)[:1], t.picture("sd15"))
    assert torch.isfinite(one).all()


def test_strict_refuses_what_it_has_no_table_for(models):
    model, preset = models("sd3"), t.preset_for(models("sd3"))
    with pytest.raises(ValueError, match="strict"):
        t.sample(model, "sd3", t.with_preset(preset, strict=True), t.sigmas_of(model, "normal", 5))


def test_callers_tensors_stay_as_they_are(models, installed):
    installed(t.preset_for(models("sd3")))
    sigmas, latent, mask = t.sigmas_of(models("sd3"), "s4s", 4), t.picture("sd3"), torch.ones(1, 1, 8, 8)
    mask[..., 4:] = 0
    copies = [each.clone() for each in (sigmas, latent, mask)]
    t.sample(models("sd3"), "sd3", "s4s", sigmas, latent, mask=mask)
    assert all(torch.equal(a, b) for a, b in zip(copies, (sigmas, latent, mask)))


def test_each_call_is_told_once_with_its_level(models, installed):
    installed(t.preset_for(models("sd3")))
    told = []
    t.sample(models("sd3"), "sd3", "s4s", t.sigmas_of(models("sd3"), "s4s", 6),
             callback=lambda step, x0, x, total: told.append((step, total, x0.requires_grad, x0.shape)))
    assert [(step, total) for step, total, _, _ in told] == [(i, 6) for i in range(6)]
    assert not any(grad for _, _, grad, _ in told) and {shape for *_, shape in told} == {(1, 16, 8, 8)}


def test_an_interrupt_stops_within_one_call(models, installed):
    from comfy.model_management import InterruptProcessingException
    installed(t.preset_for(models("sd3")))
    model, made = counted(models("sd3"))

    def stop(step, *_):
        if step == 1:
            raise InterruptProcessingException
    with pytest.raises(InterruptProcessingException):
        t.sample(model, "sd3", "s4s", t.sigmas_of(model, "s4s", 6), cfg=1.0, callback=stop)
    assert len(made) == 2


def test_the_choice_is_logged(models, installed, caplog):
    preset = installed(t.preset_for(models("sd3"), name="heard"))
    with caplog.at_level("INFO"):
        t.sample(models("sd3"), "sd3", "s4s", t.sigmas_of(models("sd3"), "s4s", 4))
        assert f"S4S heard ({preset.short_hash}), calls4" in caplog.text
        caplog.clear()
        t.sample(models("sd3"), "sd3", "s4s", t.sigmas_of(models("sd3"), "normal", 5))
        assert [r.levelname for r in caplog.records if "S4S fallback" in r.getMessage()] == ["WARNING"]


def chosen(model, sigmas, cfg: float = 3.0):
    """The library's selection as the running sampler asks for it."""
    class Guider:
        inner_model, model_patcher = model.model, model
    Guider.cfg = cfg
    denoiser = type("Denoiser", (), {"inner_model": Guider()})()
    sampler = s4s_host.pack("s4s_nodes.hosts.comfyui.sampler")
    return sampler.selection_of(sampler.request_of(denoiser, sigmas))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_preset_of_another_model_changes_no_level_and_no_image(models, installed, name):
    """Neither beside the model's own preset nor alone; today's Wan and Flux have the latents of SD3."""
    model = models(name)
    levels, end = t.sigmas_of(model, "s4s", 6), ksampled(model, name, 6, cfg=3.0)
    for family in FAMILIES:
        other = t.preset_for(models(family), calls=(3, 4, 5, 6, 12), name=f"of-{family}", family="other")
        installed(replace(other, model=replace(other.model, hashes={"weights_1d": "0" * 64})))
    assert torch.equal(levels, t.sigmas_of(model, "s4s", 6))
    assert torch.equal(end, ksampled(model, name, 6, cfg=3.0))
    choice = chosen(model, levels)
    assert choice.fallback and "no preset was trained for this model" in choice.message()


@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_a_preset_for_another_cfg_changes_no_image(models, installed, denoise):
    """A KSampler's scheduler knows the cfg: its caller has it."""
    model = models("sd3")
    installed(t.preset_at(model, 3.0, "three", calls=(4, 8), starts=((4, 0.7),)))
    before = ksampled(model, "sd3", 4, cfg=3.0, denoise=denoise), ksampled(model, "sd3", 4, cfg=6.0, denoise=denoise)
    installed(t.preset_at(model, 6.0, "six", calls=(4, 8), starts=((4, 0.7),)))
    assert torch.equal(before[0], ksampled(model, "sd3", 4, cfg=3.0, denoise=denoise))
    assert not torch.equal(before[1], ksampled(model, "sd3", 4, cfg=6.0, denoise=denoise))


def test_two_presets_of_one_model_do_not_mix(models, installed):
    """The scheduler's levels are those of the table that the sampler takes, whichever that is."""
    model = models("sd3")
    for cfg, name in ((3.0, "one"), (3.1, "two")):
        installed(t.preset_at(model, cfg, name, calls=(4,)))
    for cfg, name in ((3.0, "one"), (3.1, "two")):
        preset = t.preset_at(model, cfg, name, calls=(4,))
        end = t.sample(model, "sd3", t.with_preset(preset), preset_levels(preset, 4), t.picture("sd3"), cfg, seed=1)
        assert torch.equal(end, ksampled(model, "sd3", 4, cfg=cfg))


def test_what_a_scheduler_can_know(models, installed):
    """Its caller holds the model, and in a KSampler also the calls, the cfg and the size."""
    import comfy_extras.nodes_custom_sampler as custom
    model, seen = models("sd3"), []
    facts, sampler = (s4s_host.pack(f"s4s_nodes.hosts.comfyui.{name}") for name in ("facts", "sampler"))
    whole = facts.of_asking
    try:
        sampler.facts.of_asking = lambda *asked: seen.append(whole(*asked)) or seen[-1]
        ksampled(model, "sd3", 4, cfg=5.5, denoise=0.5, sampler="euler")
        basic = custom.BasicScheduler
        run = basic.execute if hasattr(basic, "execute") else basic().get_sigmas
        run(model, "s4s", 4, 0.5)
        sampler.s4s_scheduler(model.get_model_object("model_sampling"), 4)
    finally:
        sampler.facts.of_asking = whole
    assert [(each.facts.family, each.calls, each.cfg, each.size) for each, *_ in seen[:2]] == [
        ("sd3", 4, 5.5, (8, 8)), ("sd3", 4, None, None)]


def test_levels_of_the_hosts_schedulers_are_not_replaced(models, installed):
    preset = installed(t.preset_for(models("sd3"), calls=(4, 6)))
    for scheduler in ("normal", "sgm_uniform", "simple", "karras", "beta"):
        sigmas = t.sigmas_of(models("sd3"), scheduler, 4)
        choice = chosen(models("sd3"), sigmas)
        assert not choice.own_levels
        assert choice.table.sigmas == pytest.approx(sigmas.double().numpy(), abs=1e-6)
    assert preset.counts == [4, 6]


def test_image_to_image_uses_the_windows_own_table(models, installed):
    """denoise 0.5 at 4 steps cuts the last four of eight; the window's table starts where that cut does."""
    model = models("sd3")
    full = t.preset_for(model, calls=(4, 8))
    start = float(full.table(8).sigmas[4])
    preset = installed(t.preset_for(model, calls=(4, 8), starts=((4, start),)))
    choice = chosen(model, t.sigmas_of(model, "s4s", 8)[-5:])
    assert choice.table_name == f"calls4_from{start:.4g}" and choice.kind == "window"
    assert choice.preset.name == preset.name


def test_guidance_outside_the_trained_range_is_a_fallback(models, installed):
    installed(t.preset_for(models("sd3")))
    sigmas = t.sigmas_of(models("sd3"), "s4s", 4)
    far = chosen(models("sd3"), sigmas, 7.5)
    assert far.fallback and "tiny was learned at cfg 3, you use 7.5" in far.message()
    assert not chosen(models("sd3"), sigmas, 3.2).fallback


def test_auto_takes_the_preset_with_a_window_for_this_denoise(models, installed):
    """Of two for one model: the other has more tables, and none that starts where this denoise does."""
    model, parts = models("sd15"), s4s_host.pack("s4s_nodes.hosts.comfyui.parts")
    full = installed(t.preset_for(model, calls=(4, 5, 6, 7), name="full"))
    start = float(s4s_host.pack("s4s_nodes.select").levels_for(full, t.facts(model), 10)[5])
    installed(t.preset_for(model, name="windowed", starts=((5, start),)))
    chosen = [parts.plan(None, t.facts(model), 5, denoise)[1] for denoise in (0.5, 1.0)]
    assert [selection.preset.name for selection in chosen] == ["windowed", "full"]


def test_a_pinned_preset_runs_in_a_plain_ksampler(models, installed):
    """S4S Use Preset: also one of another model, with a warning; strict refuses it, alone as in older prompts."""
    model, rows = models("sd3"), s4s_host.pack("s4s_nodes.hosts.comfyui.sampler")
    installed(t.preset_for(model, calls=(4,), name="own"))
    other = t.preset_at(model, 3.0, "other", calls=(4,), family="another")
    carrying = rows.pin(model, other, False)
    assert rows.pin_of(carrying.clone()).preset.name == "other" and rows.pin_of(model) is None
    wanted = t.sample(model, "sd3", t.with_preset(other), preset_levels(other, 4), t.picture("sd3"), 3.0, seed=1)
    assert torch.equal(ksampled(carrying, "sd3", 4, cfg=3.0), wanted)
    assert not torch.equal(ksampled(model, "sd3", 4, cfg=3.0), wanted)
    with pytest.raises(ValueError, match="other was not learned on this model.*strict is on"):
        ksampled(rows.pin(model, other, True), "sd3", 4, cfg=3.0)
    mine = rows.pin(model, t.preset_for(model, calls=(4,), name="own"), True)
    assert torch.equal(ksampled(mine, "sd3", 4, cfg=3.0), ksampled(model, "sd3", 4, cfg=3.0))


def test_what_happens_where_the_named_preset_does_not_run_is_the_users_choice(models, caplog):
    """Of S4S Use Preset: strict and unmatched in all combinations, the node's own default among them."""
    model, node = models("sd3"), s4s_host.pack("s4s_nodes.hosts.comfyui.nodes_sampling").S4SUsePreset
    other = t.preset_at(model, 3.0, "other", calls=(4,), family="another")
    suits_not = t.preset_at(models("sd15"), 3.0, "eps", calls=(4,))
    plain, stopped, refused = ksampled(model, "sd3", 4, cfg=3.0), "unmatched is error", "was not learned on this model"

    def asked(preset, steps, sampler="s4s", strict=False, unmatched="classical solver"):
        model_ = node.execute(model, "", strict, unmatched, preset).args[0]
        return ksampled(model_, "sd3", steps, sampler, cfg=3.0)
    runs = asked(other, 4, unmatched="error")
    assert torch.equal(runs, asked(other, 4)) and not torch.equal(runs, plain)
    assert torch.equal(asked(other, 4, strict=True), plain)                 # on the plain levels, too
    assert refused in caplog.text and caplog.records[-1].levelname == "WARNING"
    five = ksampled(model, "sd3", 5, cfg=3.0)
    assert asked(other, 5).shape == five.shape
    assert torch.equal(asked(suits_not, 5), five)
    assert "eps does not suit: it is for eps prediction" in caplog.records[-1].message
    for preset, steps, sampler, strict, words in ((other, 4, "s4s", True, f"{refused}.*{stopped}"),
                                                  (other, 5, "s4s", False, f"you asked for 5.*{stopped}"),
                                                  (other, 5, "euler", False, f"you asked for 5.*{stopped}"),
                                                  (suits_not, 4, "s4s", False, "does not suit this model")):
        with pytest.raises(ValueError, match=words):
            asked(preset, steps, sampler, strict=strict, unmatched="error")


def test_the_sampler_from_a_preset_says_which_of_its_settings_refused(models):
    node = s4s_host.pack("s4s_nodes.hosts.comfyui.nodes_sampling").S4SSampler
    model, preset = models("sd3"), t.preset_for(models("sd3"), calls=(4,))
    levels = t.sigmas_of(model, "normal", 5)
    with pytest.raises(ValueError, match="unmatched is error: .*or set that to classical solver$"):
        t.sample(model, "sd3", node.execute(preset, "error").args[0], levels)
    assert t.sample(model, "sd3", node.execute(preset, "classical solver").args[0], levels).isfinite().all()


def test_a_class_that_only_bears_a_name_of_the_hosts_is_refused():
    class EPS:
        sigma_min, sigma_max = 0.03, 14.6

    with pytest.raises(ValueError, match="S4S knows eps, v, flow and x0 predictions"):
        s4s_host.pack("s4s_nodes.hosts.comfyui.facts").of_schedule(EPS())
