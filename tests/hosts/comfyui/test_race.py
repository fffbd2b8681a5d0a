"""The Race node in the real host: equal calls, unseen seeds, scores that reach the file."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from training_kit import latent, load, ours, prompt, same_state, sampled, state_of, train

NAME = "tiny_sd3"


@pytest.fixture(scope="module")
def sd3():
    return load(NAME)


@pytest.fixture(scope="module")
def preset(sd3):
    return train(sd3, NAME, calls="3,4", budget=3000, race_seeds=2, teacher_calls=12, name="raced")[0]


@torch.inference_mode()
def race(model, preset, **settings):
    """(preset, report, sheet) of the Race node with small settings."""
    settings = {"positive": prompt(NAME), "negative": prompt(NAME, 9), "latent": latent(NAME), "cfg": 3.0, "calls": "4",
                "seeds": 4, "seed": 0, "opponents": 6, "budget": 0, "teacher_calls": 16, "write_scores": False,
                **settings}
    return ours("hosts.comfyui.race").S4SRace.execute(model=model, preset=preset, **settings).args


def test_equal_calls_unseen_seeds_and_the_model_stays_as_it_was(sd3, preset):
    before, picture = state_of(sd3), sampled(sd3, NAME)
    raced, report, sheet = race(sd3, preset)
    scores = raced.scores["calls4"]
    assert scores["seeds"] == 4 and scores["pairs_raced"] == 6 and scores["cfg"] == 3.0
    assert raced.short_hash == preset.short_hash and raced.scores["calls3"] == preset.scores["calls3"]
    assert "of 6 classical pairs that took part" in report and "4 unseen seeds" in report
    assert sheet.ndim == 4 and float(sheet.std()) > 0
    assert same_state(before, state_of(sd3)) and torch.equal(picture, sampled(sd3, NAME))


def test_the_same_seeds_give_the_same_scores_and_others_do_not(sd3, preset):
    first, again, other = (race(sd3, preset, seed=seed)[0].scores["calls4"] for seed in (0, 0, 50))
    assert first == again and first["rmse"] != other["rmse"]


def test_scores_are_written_into_the_presets_file_and_nothing_else_is(sd3, preset):
    load_preset, path = ours("core.preset_file").load, ours("hosts.comfyui.folder").home() / "raced.safetensors"
    race(sd3, preset, seeds=5)
    assert load_preset(path).scores["calls4"]["seeds"] == 2
    _, report, _ = race(sd3, preset, seeds=5, write_scores=True)
    assert load_preset(path).scores["calls4"]["seeds"] == 5 and f"scores written into {path}" in report
    assert load_preset(path).short_hash == preset.short_hash
    assert not list(path.parent.glob("*.tmp*"))


def test_a_joined_preset_keeps_scores_of_the_raced_cfg_alone(sd3, preset):
    both = [dataclasses.replace(preset, name=f"at {cfg}", training={"cfg": cfg}, scores={}) for cfg in (3, 5)]
    joined = ours("select.cfg").joined(both, "joined race")
    path = ours("hosts.comfyui.folder").home() / "joined race.safetensors"
    between, report, _ = race(sd3, joined, cfg=4.0, write_scores=True)
    assert between.scores == {} and not path.exists()
    assert "calls4 was learned at this cfg: no score is kept" in report and "written" not in report
    at_three, report, _ = race(sd3, joined, cfg=3.0, write_scores=True)
    assert list(at_three.scores) == ["calls4_cfg3"] and "no score is kept" not in report
    assert list(ours("core.preset_file").load(path).scores) == ["calls4_cfg3"]


def test_a_losing_preset_is_marked(sd3, preset):
    bad = preset.tables["calls4"]
    worse = dataclasses.replace(bad, query=bad.query * [1.0, 0.5, 0.5, 0.5])
    raced, report, _ = race(sd3, dataclasses.replace(preset, name="worse", tables={"calls4": worse}, scores={}))
    assert not raced.recommended and "not recommended" in report


def test_a_budget_leaves_opponents_out_and_too_small_a_one_says_what_would_do(sd3, preset):
    raced, *_ = race(sd3, preset, opponents=0, budget=500)
    assert 3 <= raced.scores["calls4"]["pairs_raced"] < 40
    with pytest.raises(ValueError, match="too small for this race: at least"):
        race(sd3, preset, budget=100)


def test_what_cannot_be_raced_is_refused_in_words(sd3, preset):
    with pytest.raises(ValueError, match="it is for flow prediction, the model's is eps"):
        race(load("tiny_sd15"), preset)
    with pytest.raises(ValueError, match="has tables for 3, 4 calls, none for 7"):
        race(sd3, preset, calls="7")


def test_an_interruption_ends_the_race_and_writes_nothing(sd3, preset):
    import comfy.model_management as host
    path = ours("hosts.comfyui.folder").home() / "raced.safetensors"
    before = path.read_bytes()
    host.interrupt_current_processing(True)
    with pytest.raises(host.InterruptProcessingException):
        race(sd3, preset, write_scores=True)
    assert path.read_bytes() == before


def test_a_vae_decodes_the_sheet(sd3, preset):
    class HalfSize:
        """Stands in for a VAE: takes latents as the host's VAE does, gives pictures of half of 0..1."""
        def decode(self, latents):
            assert latents.shape[1:] == (16, 8, 8)
            return torch.full((len(latents), 64, 64, 3), 0.5)
    _, _, sheet = race(sd3, preset, vae=HalfSize())
    assert float((sheet - 0.5).abs().lt(0.01).float().mean()) > 0.5
