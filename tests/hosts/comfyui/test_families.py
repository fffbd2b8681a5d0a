"""Every family that the newest host can build tiny, through its real KSampler."""

import comfy.model_sampling
import comfy.sample
import comfy.samplers
import comfy.supported_models
import families_page
import pytest
import s4s_host
import tiny_families as t
import torch

facts = s4s_host.pack("s4s_nodes.hosts.comfyui.facts")
levels_for = s4s_host.pack("s4s_nodes.select.dispatch").levels_for
official = s4s_host.pack("s4s_nodes.select.families").official
HOSTS = {"euler": "euler", "res_multistep": "res_multistep", "unipc_bh1_sigma": "uni_pc"}       # ours: the host's name
pytestmark = pytest.mark.skipif(not hasattr(comfy.supported_models, "Krea2"), reason="for the newest host alone")


@pytest.fixture(scope="module")
def models():
    made = {}

    def get(name: str):
        if name not in made:
            made.clear()                    # one at a time: Anima's is half a gigabyte
            made[name] = t.build(name)
        return made[name]
    return get


def sampled(model, name: str, sampler: str | None = None, levels=None):
    """By KSampler with s4s and s4s, or by another sampler on levels."""
    latent, cfg = torch.zeros(1, *t.FAMILIES[name].shape), t.FAMILIES[name].cfg
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(1))
    prompts = t.conditioning(name), t.conditioning(name, 1)
    if sampler is None:
        return comfy.sample.sample(model, noise, 3, cfg, "s4s", "s4s", *prompts, latent, disable_pbar=True, seed=1)
    sampler = comfy.samplers.sampler_object(sampler)
    return comfy.sample.sample_custom(model, noise, cfg, sampler, levels, *prompts, latent, disable_pbar=True, seed=1)


@pytest.mark.parametrize("name", t.FAMILIES)
def test_a_family_runs_and_its_official_setting_is_the_hosts(models, name):
    model = models(name)
    seen, found = facts.of_model(model), sampled(model, name)
    assert torch.isfinite(found).all()
    levels = torch.tensor(levels_for(None, seen, 3), dtype=torch.float32)
    assert abs(float(levels[0]) - seen.sigma_max) < 1e-3 * seen.sigma_max and levels[-1] == 0
    named = official(seen.family)
    if seen.flow and named is not None:
        theirs = sampled(model, name, HOSTS[named.solver], levels)
        torch.testing.assert_close(found, theirs, rtol=0, atol=5e-3 * float(theirs.std()))    # uni_pc ends at 0.001


@pytest.mark.parametrize("name", ["flux", "sd3", "zimage", "wan21", "chroma"])
@pytest.mark.parametrize("steps", [4, 8, 20])
def test_the_official_schedule_is_the_hosts_to_a_hundredth(models, name, steps):
    model = models(name)
    named = official(facts.of_model(model).family)
    schedule = named.schedule.removesuffix(", open")
    whose = comfy.samplers.KSampler(model, steps, "cpu", HOSTS[named.solver], schedule, 1.0)
    theirs, ours = whose.sigmas, levels_for(None, facts.of_model(model), steps)
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float32), theirs, rtol=0.01, atol=0.01)


def test_a_model_of_video_and_sound_says_so():
    sampling = comfy.model_sampling.ModelSamplingAV

    class Packed(sampling, comfy.model_sampling.CONST):
        pass
    assert "video and sound" in facts.of_schedule(Packed()).unfit


def test_the_page_says_what_the_host_says():
    """If this fails, run tests/hosts/comfyui/families_page.py with the newest host's Python."""
    assert families_page.PAGE.read_text(encoding="utf-8") == families_page.page()
