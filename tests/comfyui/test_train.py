"""The Train node in the real host, on tiny models."""

from __future__ import annotations

import pytest
import torch
from training_kit import load, sampled, same_state, state_of, train


@pytest.fixture(scope="module")
def sd3():
    return load("tiny_sd3")


def test_a_few_thousand_calls_beat_the_classical_samplers_on_unseen_seeds(sd3):
    before, picture = state_of(sd3), sampled(sd3, "tiny_sd3")
    preset, report, tables, sheet = train(sd3, "tiny_sd3")
    assert preset.scores["calls4"]["ratio"] > 1.2, report
    assert same_state(before, state_of(sd3))
    assert torch.equal(picture, sampled(sd3, "tiny_sd3"))
