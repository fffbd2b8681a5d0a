"""The denoiser that is trained on is the host's own: same numbers as its guider, for every kind of model and prompt."""

import comfy.sample
import comfy.samplers
import pytest
import torch
from training_kit import SHAPES, here, latent, load, ours, prompt, sampled, trainers


@torch.inference_mode()
def inside(model, name: str, work, positives=None, cfg: float = 3.0, negative=True, more=()):
    """work(source) in the host's sampling context."""
    denoiser = ours("hosts.comfyui.denoiser")
    about = ours("hosts.comfyui.facts").of_model(model).model
    scene = denoiser.Scene(model, positives or [prompt(name)], prompt(name, 9) if negative else None, cfg,
                           latent(name), more_latents=tuple({"samples": torch.zeros(shape)} for shape in more))
    return denoiser.inside(scene, about, work)


@torch.inference_mode()
def guided(model, name: str, x, sigma: float, positive, cfg: float = 3.0):
    """The host's answer to one state and one prompt, read off the first call of its own sampling."""
    kept = []

    def first_call(denoise, start, sigmas, extra_args=None, callback=None, disable=None):
        kept.append(denoise(x, torch.full((len(x),), sigma), **extra_args))
        return start
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, prompt(name, 9))
    guider.set_cfg(cfg)
    guider.sample(torch.zeros_like(x), torch.zeros_like(x), comfy.samplers.KSAMPLER(first_call),
                  torch.tensor([sigma, 0.0]), seed=0, disable_pbar=True)
    return kept[0]


def states(name: str, count: int = 3):
    return torch.randn((count, *SHAPES[name][2][1:]), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("name", ["tiny_sd15", "tiny_sd3", "tiny_wan", "tiny_flux"])
def test_each_image_is_asked_for_its_own_prompt_as_if_it_were_alone(name):
    if not here(name):
        pytest.skip("this host opens no tiny Flux")
    model, positives, x = load(name), [prompt(name), prompt(name, 5)], states(name)
    which = torch.tensor([1, 0, 1])

    def work(source):
        assert source.conditions([3, 4, 5])["which"].tolist() == which.tolist()
        assert source.shape == SHAPES[name][2][1:]
        return source.denoiser(x, torch.full((3,), 0.6), which=which)
    found = inside(model, name, work, positives)
    for i in range(3):
        alone = guided(model, name, x[i:i + 1], 0.6, positives[which[i]])
        torch.testing.assert_close(found[i:i + 1], alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


def test_an_area_of_one_prompt_does_not_reach_the_others():
    """The host gives every prompt beside it the same areas; so each prompt is prepared alone."""
    model, name, x = load("tiny_sd3"), "tiny_sd3", states("tiny_sd3", 1)
    with torch.inference_mode():
        cornered = [[prompt(name, 5)[0][0], {**prompt(name, 5)[0][1], "area": (4, 4, 0, 0), "strength": 1.0}]]
        both = [*prompt(name), *cornered]
    found = inside(model, name, lambda s: s.denoiser(x, torch.full((1,), 0.6), which=torch.tensor([0])),
                   [prompt(name), both])
    assert torch.equal(found, guided(model, name, x, 0.6, prompt(name)))
    found = inside(model, name, lambda s: s.denoiser(x, torch.full((1,), 0.6), which=torch.tensor([1])),
                   [prompt(name), both])
    assert torch.equal(found, guided(model, name, x, 0.6, both))


def test_every_size_is_asked_as_if_the_host_sampled_at_it_alone():
    """A prompt for a share of the picture stands elsewhere at every size."""
    model, name = load("tiny_sd3"), "tiny_sd3"
    with torch.inference_mode():
        half = [[prompt(name, 5)[0][0], {**prompt(name, 5)[0][1], "area": ("percentage", 0.5, 1, 0, 0)}]]
        positives = [prompt(name), [*prompt(name), *half]]
    seeds = range(12)

    def work(source):
        assert source.shapes == [(16, 8, 12), (16, 8, 8), (16, 4, 6)] and source.shape == (16 * 8 * 12,)
        x, extra = source.noise(seeds), source.extra(seeds)
        ends = source.denoiser(x, torch.full((len(x),), 0.6), **extra)
        parts = [{key: value[i:i + 1] for key, value in extra.items()} for i in seeds]
        return [(source.images(x[i:i + 1], part), source.images(ends[i:i + 1], part), int(part["which"][0]))
                for i, part in zip(seeds, parts)]
    found = inside(model, name, work, positives, more=[(1, 16, 4, 6), (1, 16, 8, 12)])
    assert len({(x.shape, which) for x, _, which in found}) == 6
    for x, end, which in found:
        alone = guided(model, name, x, 0.6, positives[which])
        torch.testing.assert_close(end, alone, rtol=1e-4, atol=1e-4 * float(alone.abs().max()))


def test_without_guidance_no_negative_is_needed():
    model, name, x = load("tiny_sd3"), "tiny_sd3", states("tiny_sd3", 1)
    found = inside(model, name, lambda s: s.denoiser(x, torch.full((1,), 0.6), which=torch.tensor([0])), cfg=1.0,
                   negative=False)
    assert torch.equal(found, guided(model, name, x, 0.6, prompt(name), cfg=1.0))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_a_model_in_few_bits_answers_as_it_does_in_the_host(dtype):
    model, name, x = load("tiny_wan", dtype=dtype), "tiny_wan", states("tiny_wan", 1)
    assert model.model_dtype() == dtype
    found = inside(model, name, lambda s: s.denoiser(x, torch.full((1,), 0.6), which=torch.tensor([0])))
    assert torch.equal(found, guided(model, name, x, 0.6, prompt(name)))
    assert found.dtype == torch.float32 and bool(found.isfinite().all())


def test_the_trainers_sampling_is_the_hosts_sampling():
    """The same noise by seed, the same levels: the core's table for Euler ends where the host's Euler does."""
    model, name = load("tiny_sd3"), "tiny_sd3"
    levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", 4)

    def work(source):
        core, pairs = ours("core"), trainers("teacher.pairs")
        table = core.classical.SOLVERS["euler"](levels.double().numpy(), flow=True)
        end = pairs.ends(source, table, pairs.known_pairs(source, [7], None))
        return source.network.guider.inner_model.process_latent_out(end)
    host = sampled(model, name, "euler", "normal", 4, seed=7)
    torch.testing.assert_close(inside(model, name, work), host, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "heun", "euler_cfg_pp", "uni_pc", "deis", "dpm_fast"])
def test_a_sampler_of_the_host_teaches_what_it_makes_in_the_host(sampler):
    """Three images for two prompts at once, each as the host makes it alone."""
    model, name = load("tiny_sd3"), "tiny_sd3"
    sampler = comfy.samplers.sampler_object(sampler)
    levels = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "sgm_uniform", 6)
    positives, seeds = [prompt(name), prompt(name, 5)], [7, 8, 9]

    def work(source):
        function, sigmas = ours("hosts.comfyui.denoiser").teacher_of(source, sampler, levels.clone())
        end = function(source.denoiser, source.noise(seeds), sigmas, extra_args=source.conditions(seeds))
        return source.network.guider.inner_model.process_latent_out(end)
    found = inside(model, name, work, positives)
    for i, seed in enumerate(seeds):
        with torch.inference_mode():
            guider = comfy.samplers.CFGGuider(model)
            guider.set_conds(positives[seed % 2], prompt(name, 9))
            guider.set_cfg(3.0)
            empty = latent(name)["samples"]
            host = guider.sample(comfy.sample.prepare_noise(empty, seed), empty, sampler, levels.clone(), seed=seed,
                                 disable_pbar=True)
        ended = 1 - 0.001 if sampler.sampler_function.__name__ == "sample_unipc" else 1.0    # it moves the last level
        torch.testing.assert_close(found[i:i + 1], host * ended, rtol=1e-3, atol=1e-3 * float(host.std()))


def test_an_interruption_raises_before_the_next_call():
    import comfy.model_management as host
    model, name, x = load("tiny_sd3"), "tiny_sd3", states("tiny_sd3", 1)

    def work(source):
        host.interrupt_current_processing(True)
        with pytest.raises(host.InterruptProcessingException):
            source.denoiser(x, torch.full((1,), 0.6), which=torch.tensor([0]))
        return "went on"
    assert inside(model, name, work) == "went on"
