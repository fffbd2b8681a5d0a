"""The two dropdown rows: registered in place, once, beside other packs; the scheduler on every model."""

import asyncio
import importlib

import comfy.samplers
import pytest
import s4s_host
import s4s_tools as t
import torch
from comfy.k_diffusion import sampling as k_diffusion_sampling

extension = s4s_host.pack("s4s_nodes.hosts.comfyui.extension")
KSampler = comfy.samplers.KSampler


def test_both_rows_are_last_in_the_hosts_own_lists():
    assert KSampler.SAMPLERS is comfy.samplers.SAMPLER_NAMES and KSampler.SAMPLERS[-1] == "s4s"
    assert KSampler.SCHEDULERS is comfy.samplers.SCHEDULER_NAMES and KSampler.SCHEDULERS[-1] == "s4s"
    assert "s4s" in comfy.samplers.KSAMPLER_NAMES
    assert "s4s" not in KSampler.DISCARD_PENULTIMATE_SIGMA_SAMPLERS


def test_registering_again_changes_nothing():
    before = [list(names) for names in (KSampler.SAMPLERS, KSampler.SCHEDULERS, comfy.samplers.KSAMPLER_NAMES)]
    extension.register()
    asyncio.run(extension.S4SExtension().on_load())
    assert before == [KSampler.SAMPLERS, KSampler.SCHEDULERS, comfy.samplers.KSAMPLER_NAMES]


def test_nothing_else_of_the_host_was_touched():
    """Beside the rows' names and functions, the host's modules hold nothing of ours."""
    for module in (comfy.samplers, k_diffusion_sampling):
        ours = [name for name, value in vars(module).items()
                if "s4s_nodes" in str(getattr(value, "__module__", ""))]
        assert ours in ([], ["sample_s4s"])


@pytest.fixture
def restored(monkeypatch):
    """The lists as they are now, put back after the test."""
    for name in ("SAMPLER_NAMES", "KSAMPLER_NAMES", "SCHEDULER_NAMES"):
        monkeypatch.setattr(comfy.samplers, name, getattr(comfy.samplers, name))
    for name in ("SAMPLERS", "SCHEDULERS"):
        monkeypatch.setattr(KSampler, name, getattr(KSampler, name))
    contents = {name: list(getattr(comfy.samplers, name)) for name in ("SAMPLER_NAMES", "SCHEDULER_NAMES")}
    yield
    for name, kept in contents.items():
        getattr(comfy.samplers, name)[:] = kept


def test_rows_survive_a_pack_that_inserts_and_reloads(restored):
    """As RES4LYF does: insert behind uni_pc_bh2, then reload the host's sampling module."""
    KSampler.SAMPLERS.insert(KSampler.SAMPLERS.index("uni_pc_bh2") + 1, "stranger")
    importlib.reload(k_diffusion_sampling)
    assert "s4s" in KSampler.SAMPLERS
    assert comfy.samplers.sampler_object("s4s").sampler_function is extension.sample_s4s


def test_rows_survive_a_pack_that_puts_other_lists_in_place(restored):
    KSampler.SAMPLERS = comfy.samplers.SAMPLER_NAMES = [*comfy.samplers.SAMPLER_NAMES, "stranger"]
    KSampler.SCHEDULERS = [*KSampler.SCHEDULERS, "stranger"]
    assert "s4s" in KSampler.SAMPLERS and "s4s" in KSampler.SCHEDULERS


def test_a_pack_that_replaced_the_lists_before_us_gets_the_rows_too(restored):
    KSampler.SAMPLERS = [name for name in KSampler.SAMPLERS if name != "s4s"]
    KSampler.SCHEDULERS = [name for name in KSampler.SCHEDULERS if name != "s4s"]
    extension.register()
    assert KSampler.SAMPLERS.count("s4s") == 1 and KSampler.SCHEDULERS.count("s4s") == 1


@pytest.mark.parametrize("name", ["sd15", "v", "sd3", "wan", "flux"])
@pytest.mark.parametrize("with_preset", [False, True])
def test_the_scheduler_gives_one_level_more_than_steps(models, installed, name, with_preset):
    model = models(name)
    if with_preset:
        installed(t.preset_for(model, calls=(4, 7)))
    top = t.facts(model).sigma_max
    for steps in (1, 2, 3, 4, 7, 10, 25, 100):
        levels = t.sigmas_of(model, "s4s", steps)
        assert levels.dtype == torch.float32 and levels.shape == (steps + 1,) and levels[-1] == 0
        assert (levels[1:] < levels[:-1]).all() and abs(float(levels[0]) - top) < 1e-3 * top


def test_the_scheduler_gives_a_presets_own_levels(models, installed):
    preset = installed(t.preset_for(models("sd3"), calls=(4, 7)))
    torch.testing.assert_close(t.sigmas_of(models("sd3"), "s4s", 7),
                               torch.tensor(preset.table(7).sigmas, dtype=torch.float32), rtol=0, atol=0)


def test_zero_terminal_snr_is_seen(models):
    seen = t.facts(t.v_prediction(models("sd15"), zsnr=True))
    assert seen.zero_terminal_snr and seen.sigma_max > 4000 and seen.prediction == "v"
