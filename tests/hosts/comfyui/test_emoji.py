"""The whole way on a real model over HTTP: train with the node, sample in a plain KSampler, beat core's samplers."""

import emoji_race
import pytest
import torch

pytestmark = pytest.mark.server
STRONG = ("euler", "dpmpp_2m", "res_multistep", "gradient_estimation", "ipndm", "deis", "uni_pc_bh2", "lms", "heun")
WORDS, CALLS = ("heart", "moon", "zodiac", "cat"), 5                # the cat was not trained on


def test_a_preset_of_the_train_node_beats_cores_samplers_in_a_plain_ksampler(comfy, base, figure):
    """By the median image, on unseen seeds; emoji_race.py prints the whole race."""
    run = comfy.run(emoji_race.training("normal", str(CALLS), name="emoji-test"), timeout=600)
    assert run.error is None, run.error
    baselines = [pair for pair in emoji_race.baselines(comfy, CALLS) if pair[0] in STRONG and pair[1] != "ddim_uniform"]
    errors = emoji_race.measured(comfy, [*baselines, ("s4s", "s4s", CALLS)], WORDS, [5005], 4)
    mine = errors.pop(("s4s", "s4s"))
    best = min(errors, key=lambda pair: float(errors[pair].nan_to_num(torch.inf).median()))
    figure("best of core", ", ".join(best))
    ratio = figure("times closer by the median image", float(errors[best].median() / mine.median()))
    assert ratio > 1.25, (best, errors[best].median(), mine.median())
    (base / "models" / "s4s_presets" / "emoji-test.safetensors").unlink()
