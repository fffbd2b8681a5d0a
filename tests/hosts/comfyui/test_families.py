"""Every family that the newest host can build tiny, through its real KSampler."""

import comfy.sample
import comfy.samplers
import comfy.supported_models
import families_page
import pytest
import s4s_host
import tiny_families as t
import torch

facts, denoiser, work = (s4s_host.pack(f"s4s_nodes.hosts.comfyui.{name}") for name in ("facts", "denoiser", "work"))
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
    generator, cfg = torch.Generator().manual_seed(1), t.FAMILIES[name].cfg
    latent, noise = t.latent(name), t.latent(name, lambda shape: torch.randn(shape, generator=generator))
    prompts = t.conditioning(name), t.conditioning(name, 1)
    if sampler is None:
        return flat(comfy.sample.sample(model, noise, 3, cfg, "s4s", "s4s", *prompts, latent, disable_pbar=True,
                                        seed=1))
    sampler = comfy.samplers.sampler_object(sampler)
    return flat(comfy.sample.sample_custom(model, noise, cfg, sampler, levels, *prompts, latent, disable_pbar=True,
                                           seed=1))


def flat(latent):
    """All numbers of a latent, of a video's and its sound's too."""
    return torch.cat([part.flatten() for part in (latent.unbind() if latent.is_nested else [latent])])


@pytest.mark.parametrize("name", t.FAMILIES)
def test_a_family_runs_and_its_official_setting_is_the_hosts(models, name):
    model = models(name)
    seen, found = facts.of_model(model), sampled(model, name)
    assert torch.isfinite(found).all()
    levels = torch.tensor(levels_for(None, seen, 3), dtype=torch.float32)
    assert abs(float(levels[0]) - seen.sigma_max) < 1e-3 * seen.sigma_max and levels[-1] == 0
    solver = official(seen.family)[0] if seen.flow else ""
    if solver or seen.unfit:
        theirs = sampled(model, name, HOSTS[solver or "euler"], levels)
        torch.testing.assert_close(found, theirs, rtol=0, atol=5e-3 * float(theirs.std()))    # uni_pc ends at 0.001


@pytest.mark.parametrize("name", ["flux", "sd3", "zimage", "wan21", "wan14b", "chroma"])
@pytest.mark.parametrize("steps", [4, 8, 20])
def test_the_official_schedule_is_the_hosts_to_a_hundredth(models, name, steps):
    model = models(name)
    solver, schedule = official(facts.of_model(model).family)
    whose = comfy.samplers.KSampler(model, steps, "cpu", HOSTS[solver], schedule.removesuffix(", open"), 1.0)
    theirs, ours = whose.sigmas, levels_for(None, facts.of_model(model), steps)
    torch.testing.assert_close(torch.tensor(ours, dtype=torch.float32), theirs, rtol=0.01, atol=0.01)


@pytest.mark.parametrize("name, solver, holds", [
    ("ltxav", "Euler", "video and sound"), ("minimaxh3", "RES multistep", "video and sound"),
    ("triposplat", "Euler", "a shape and a camera")])
def test_a_model_of_several_latents_in_one_runs_a_classical_solver_and_says_why(models, name, solver, holds, caplog):
    sampled(models(name), name)
    [said] = [each.getMessage() for each in caplog.records if "S4S fallback" in each.getMessage()]
    assert f"this model's latent holds {holds}, and tables are " in said
    assert said.endswith(f"{solver} on the model's own levels ran.")


@pytest.mark.parametrize("name", ["ltxav", "minimaxh3", "triposplat", "flowrvs"])
def test_no_table_is_learned_for_a_model_that_none_suits(models, name):
    scene = scene_of(models(name), name)
    with pytest.raises(ValueError, match="(video and sound|and a camera|denoises nothing).*connect another MODEL"):
        work.model_of(scene)


def test_a_flow_between_images_starts_at_its_own_highest_level(models):
    model = models("flowrvs")
    levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "s4s", 3)
    assert float(levels[0]) == pytest.approx(14.6146, abs=1e-3) and levels[-1] == 0 and len(levels) == 4


@torch.inference_mode()
def test_training_starts_from_noise_as_strong_as_the_hosts(models):
    """HiDream O1's is eight times unit noise."""
    model, shape = models("hidreamo1"), (1, *t.FAMILIES["hidreamo1"].shape)
    scene = scene_of(model, "hidreamo1")
    noise = denoiser.inside(scene, work.model_of(scene), lambda source: source.noise([0, 1]))
    drawn = torch.randn(shape[1:], generator=torch.Generator().manual_seed(0))
    theirs = model.get_model_object("model_sampling").noise_scaling(torch.ones(1), drawn[None], torch.zeros(shape))
    torch.testing.assert_close(noise[:1], theirs, rtol=0, atol=0)
    assert 7.5 < float(noise.std()) < 8.5


def scene_of(model, name: str):
    return denoiser.Scene(model, [t.conditioning(name)], t.conditioning(name, 1), 3.0, {"samples": t.latent(name)})


def test_the_page_says_what_the_host_says():
    """If this fails, run tests/hosts/comfyui/families_page.py with the newest host's Python."""
    assert families_page.PAGE.read_text(encoding="utf-8") == families_page.page()
