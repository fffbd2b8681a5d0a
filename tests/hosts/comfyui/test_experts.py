"""Two models that take turns, as in Wan 2.2: one training for both, used in two KSamplerAdvanced of the real host."""

import logging

import pytest
import torch
from training_kit import latent, load, ours, prompt, same_state, state_of, train

BOUNDARY, CALLS, CFG = 0.7, 5, (3.0, 2.0)


@pytest.fixture(scope="module")
def both():
    return load("tiny_wan"), load("tiny_wan_low")


@pytest.fixture(scope="module")
def learned(both):
    """(states of both before, what the Train node put out)."""
    before = [state_of(model) for model in both]
    return before, train(both[0], "tiny_wan", calls=str(CALLS), budget=6000, name="two", cfg=CFG[0],
                         low_noise_model=both[1], boundary=BOUNDARY, low_noise_cfg=CFG[1])


def turn(preset) -> int:
    return preset.experts[0].tables[f"calls{CALLS}"].calls


@torch.inference_mode()
def advanced(models, at: int, steps: int = CALLS, sampler: str = "s4s", scheduler: str = "s4s", seed: int = 1, cfg=CFG):
    """Two KSamplerAdvanced in a row, which change at a step, as the host runs them from a prompt."""
    import nodes
    from comfy_execution.utils import CurrentNodeContext
    asked, made = {"sampler_name": sampler, "scheduler": scheduler, "noise_seed": seed}, latent("tiny_wan")
    graph = {"first": {"class_type": "KSamplerAdvanced", "inputs": asked},
             "second": {"class_type": "KSamplerAdvanced", "inputs": {**asked, "latent_image": ["first", 0]}}}
    queued = ours("hosts.comfyui.record").on_prompt({"prompt": graph, "prompt_id": "two"})
    for node, model, scale, more in (
            ("first", models[0], cfg[0], {"start_step": 0, "last_step": at}),
            ("second", models[1], cfg[1], {"start_step": at, "last_step": 10000, "disable_noise": True,
                                           "force_full_denoise": True})):
        with CurrentNodeContext(queued["prompt_id"], node):
            made = nodes.common_ksampler(model, seed, steps, scale, sampler, scheduler, prompt("tiny_wan"),
                                         prompt("tiny_wan", 9), made, **more)[0]
    return made["samples"]


def told(caplog, *given, **more) -> list[str]:
    """What the log said of the two samplers."""
    caplog.clear()
    with caplog.at_level(logging.INFO):
        assert torch.isfinite(advanced(*given, **more)).all()
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith("S4S ")]


def test_one_training_makes_one_preset_for_both_and_says_so(learned):
    preset, report, *_ = learned[1]
    high, low = preset.experts
    assert preset.boundary == BOUNDARY and high.tables[f"calls{CALLS}"].sigmas[-1] == BOUNDARY
    assert high.model.hashes["weights_1d"] != low.model.hashes["weights_1d"]
    assert (high.training["cfg"], low.training["cfg"]) == ([CFG[0]] * 2, CFG[1])
    assert f"two models, which change at step {turn(preset)} of {CALLS} (level 0.7); cfg 2" in report
    assert preset.score(f"calls{CALLS}")["ratio"] > 1.1, report


def test_both_models_are_bit_for_bit_what_they_were(both, learned):
    assert all(same_state(before, state_of(model)) for before, model in zip(learned[0], both))


def test_two_samplers_run_its_two_halves_as_learned(both, learned, caplog):
    preset = learned[1][0]
    at, name = turn(preset), f"S4S two ({preset.short_hash}), calls{CALLS}, exact: "
    assert told(caplog, both, at) == [f"{name}the first {at} of its {CALLS} calls, of the high-noise model",
                                      f"{name}the last {CALLS - at} of its {CALLS} calls, of the low-noise model"]


def test_two_samplers_end_where_the_training_saw_the_table_end(both, learned):
    preset = learned[1][0]
    denoiser, sample = ours("hosts.comfyui.denoiser"), ours("core").sample
    import comfy.sample
    noise = comfy.sample.prepare_noise(latent("tiny_wan")["samples"], 1)

    def work(source):
        assert source.boundary == BOUNDARY
        return sample(source.denoiser, noise, preset.tables[f"calls{CALLS}"], source.extra([0]))
    second = denoiser.Scene(both[1], [prompt("tiny_wan")], prompt("tiny_wan", 9), CFG[1], latent("tiny_wan"))
    scene = denoiser.Scene(both[0], [prompt("tiny_wan")], prompt("tiny_wan", 9), CFG[0], latent("tiny_wan"),
                           low_noise=second, boundary=BOUNDARY)
    with torch.inference_mode():
        whole = both[0].model.process_latent_out(denoiser.inside(scene, preset.model, work))
    found = advanced(both, turn(preset))
    assert float((found - whole).abs().max() / whole.std()) < 1e-3


def test_it_is_closer_than_the_hosts_samplers_that_change_at_the_boundary(both, learned):
    """To 60 steps of the host's own, on seeds of the host's own."""
    import comfy.samplers
    sampling = both[0].get_model_object("model_sampling")

    def at(scheduler, steps):
        levels = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
        return int((levels > BOUNDARY).sum())

    def apart(step, *names):
        return sum(float((advanced(both, step, CALLS, *names, seed=seed) - target).square().mean().sqrt())
                   for seed, target in targets.items())
    targets = {seed: advanced(both, at("simple", 60), 60, "dpmpp_2m", "simple", seed) for seed in (41, 42)}
    mine = apart(turn(learned[1][0]), "s4s", "s4s")
    assert all(mine < apart(at("simple", CALLS), sampler, "simple") for sampler in ("euler", "uni_pc", "dpmpp_2m"))


def test_exchanged_models_fall_back_with_a_warning(both, learned, caplog):
    said = told(caplog, both[::-1], turn(learned[1][0]), cfg=CFG[::-1])
    assert len(said) == 2 and all(line.startswith("S4S fallback: this is the ") and
                                  "swap the two models" in line for line in said), said


def test_a_second_model_with_a_lora_falls_back_with_a_warning_on_the_levels_of_the_first(both, learned, caplog):
    first, second = told(caplog, (both[0], with_lora(both[1])), turn(learned[1][0]))
    assert "of the high-noise model" in first
    assert second.startswith("S4S fallback: two was learned on this model without LoRAs") and "given levels" in second


def with_lora(model):
    other = model.clone()
    key = next(key for key in other.model.state_dict() if key.endswith("ffn.0.weight"))
    other.add_patches({key: ("diff", (torch.full((256, 128), 0.01),))}, 1.0)
    return other


@pytest.mark.parametrize("loras, cfg", [(True, (1.0, 1.0)), (True, CFG), (False, (1.0, 1.0)), (False, (1.0, CFG[1]))])
def test_where_the_pair_does_not_belong_images_are_as_without_its_preset(both, learned, caplog, loras, cfg):
    """Both models with a LoRA (such as Lightning's), or at another cfg: at the step of the pair's change, too."""
    preset, models = learned[1][0], [with_lora(each) for each in both] if loras else both
    first, second = told(caplog, models, turn(preset), cfg=cfg)
    assert first.startswith("S4S fallback") and second.startswith("S4S fallback")
    assert all("on the model's own levels" in each for each in (first, second)), (first, second)
    assert torch.equal(advanced(models, turn(preset), cfg=cfg), without(advanced, models, turn(preset), cfg=cfg))


def test_one_model_alone_samples_as_without_the_preset(both, learned, caplog):
    """In one KSampler for all steps, at any cfg."""
    from training_kit import sampled
    for cfg in (1.0, CFG[0]):
        asked = (sampled, both[0], "tiny_wan", "s4s", "s4s", CALLS, cfg)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            assert torch.equal(asked[0](*asked[1:]), without(*asked))
        assert "on the model's own levels" in caplog.text


def without(sample, *given, **more):
    """What it gives while no preset is installed."""
    folder = ours("hosts.comfyui.folder").home()
    aside = folder.with_name("aside")
    folder.rename(aside)
    try:
        folder.mkdir()
        return sample(*given, **more)
    finally:
        folder.rmdir()
        aside.rename(folder)


@pytest.mark.parametrize("moved", [-1, 1])
def test_another_step_of_the_change_falls_back_with_a_warning(both, learned, caplog, moved):
    preset = learned[1][0]
    at = turn(preset) + moved
    if not 0 < at < CALLS:
        pytest.skip("there is no such step")            # where the first model makes one call only
    said = told(caplog, both, at)
    assert len(said) == 2 and all(line.startswith(f"S4S fallback: two changes models at step {turn(preset)} of {CALLS}"
                                                  " (level 0.7)") for line in said), said


def test_each_model_has_a_cfg_of_its_own(both, learned, caplog):
    first, second = told(caplog, both, turn(learned[1][0]), cfg=(3.0, 3.0))
    assert "of the high-noise model" in first and "learned at cfg 2, you use 3" in second


def test_one_sampler_alone_falls_back(both, learned, caplog):
    from training_kit import sampled
    with caplog.at_level(logging.INFO):
        sampled(both[0], "tiny_wan", "s4s", "s4s", steps=CALLS)
    assert "two changes models at step" in caplog.text and "two KSamplerAdvanced" in caplog.text


@pytest.mark.parametrize("more, words", [
    ({"windows": "1,0.5"}, "windows 1"), ({"calls": "1"}, "calls of at least 2"),
    ({"cfg": "2-4"}, "one cfg"), ({"boundary": 0.0}, "boundary 0"), ({"boundary": 1.0}, "boundary 1")])
def test_what_cannot_be_learned_for_two_is_refused_at_once(both, more, words):
    with pytest.raises(ValueError, match=words):
        train(both[0], "tiny_wan", low_noise_model=both[1], **more)


def test_the_same_model_twice_and_one_of_another_kind_are_refused(both):
    with pytest.raises(ValueError, match="are the same"):
        train(both[0], "tiny_wan", low_noise_model=both[0])
    with pytest.raises(ValueError, match="two experts of one model"):
        train(both[0], "tiny_wan", low_noise_model=load("tiny_sd3"))


@torch.inference_mode()
def test_the_race_node_takes_both_models_and_refuses_one(both, learned):
    scene = {"positive": prompt("tiny_wan"), "negative": prompt("tiny_wan", 9), "latent": latent("tiny_wan"),
             "cfg": CFG[0], "preset": learned[1][0], "calls": "", "seeds": 2, "seed": 0, "samplers": "", "budget": 6000,
             "teacher_calls": 12, "write_scores": False, "model": both[0]}
    node = ours("hosts.comfyui.nodes_training").S4SRace
    second = {"low_noise_model": both[1], "boundary": BOUNDARY, "low_noise_cfg": CFG[1]}
    assert f"calls{CALLS}" in node.execute(**scene, **second).args[1]
    with pytest.raises(ValueError, match="changes models at 0.7, this race at None"):
        node.execute(**scene)
    with pytest.raises(ValueError, match="leave samplers empty"):
        node.execute(**scene | {"samplers": "euler"}, **second)
