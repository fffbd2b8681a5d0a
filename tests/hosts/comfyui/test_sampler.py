"""The sampler in the host's own guider: what every sampler must keep, measured."""

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
    assert "mine.safetensors" in chosen(models("sd3"), t.sigmas_of(models("sd3"), "s4s", 4)).words()


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
    with pytest.raises(ValueError, match="rise"):
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
    """The library's choice as the running sampler makes it."""
    class Guider:
        inner_model, model_patcher = model.model, model
    Guider.cfg = cfg
    denoiser = type("Denoiser", (), {"inner_model": Guider})
    return s4s_host.pack("s4s_nodes.hosts.comfyui.sampler").choose_table(denoiser, sigmas)


def test_a_schedule_of_another_preset_gives_way_to_the_models_own(models, installed):
    """The scheduler cannot see the family; the sampler can, and takes its preset's inner levels."""
    model = models("sd3")
    stranger = t.preset_for(model, calls=(3, 4, 5, 6), name="stranger", family="other")
    tables = {key: t.moved(t.core().classical.SOLVERS["euler"](t.core().schedules.linear_flow(table.calls, 5.0), True))
              for key, table in stranger.tables.items()}
    installed(t.core().Preset("stranger", tables, stranger.model))
    own = installed(t.preset_for(model, calls=(4,), name="own", family="sd3"))
    sigmas = t.sigmas_of(model, "s4s", 4)
    assert float(sigmas[1]) == pytest.approx(float(tables["calls4"].sigmas[1]), rel=1e-4)
    choice = chosen(model, sigmas)
    assert choice.preset.name == "own" and choice.kind == "exact" and choice.own_levels
    assert list(choice.table.sigmas) == list(own.table(4).sigmas)


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


def test_guidance_outside_the_trained_range_is_said(models, installed):
    installed(t.preset_for(models("sd3")))
    sigmas = t.sigmas_of(models("sd3"), "s4s", 4)
    assert "not at 7.5" in chosen(models("sd3"), sigmas, 7.5).words()
    assert "not at" not in chosen(models("sd3"), sigmas, 3.0).words()


def test_auto_takes_the_preset_with_a_window_for_this_denoise(models, installed):
    """Of two for one model: the other has more tables, and none that starts where this denoise does."""
    model, parts = models("sd15"), s4s_host.pack("s4s_nodes.hosts.comfyui.parts")
    full = installed(t.preset_for(model, calls=(4, 5, 6, 7), name="full"))
    start = float(s4s_host.pack("s4s_nodes.select").levels_for(full, t.facts(model), 10)[5])
    installed(t.preset_for(model, name="windowed", starts=((5, start),)))
    assert [parts.pick("auto", model, 5, denoise)[0].name for denoise in (0.5, 1.0)] == ["windowed", "full"]
