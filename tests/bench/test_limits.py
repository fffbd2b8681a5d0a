"""The bench of limits: its arithmetic and its models, without a training."""

import numpy as np
import pytest
import torch

from tests.bench.limits.__main__ import page, share
from tests.bench.limits.models import KINDS, Small


def test_a_share_is_0_at_the_baseline_and_1_at_the_limit():
    assert share(0.4, 0.4, 0.1) == 0 and share(0.4, 0.1, 0.1) == 1
    assert share(0.4, 0.2, 0.1) == pytest.approx(0.5)
    assert share(0.4, 0.8, 0.1) == pytest.approx(-0.5)                  # worse than the baseline
    assert share(0.4, 0.4, 0.39) == 1                                   # next to nothing to gain


@pytest.mark.parametrize("name", KINDS)
def test_a_model_answers_like_its_state_at_every_level(name):
    kind, model = KINDS[name], Small(KINDS[name])
    levels = kind.levels()
    assert (np.diff(levels) > 0).all() and (levels[-1] == 1) == kind.flow
    for level in (levels[0], levels[len(levels) // 2], levels[-1]):
        denoised = model.denoise(torch.randn(2, *kind.shape), torch.full((2,), float(level)), torch.tensor([0, 10]))
        assert denoised.shape == (2, *kind.shape) and bool(torch.isfinite(denoised).all())


def test_some_of_the_models_are_kept_apart_from_tuning():
    assert 2 <= sum(kind.judged for kind in KINDS.values()) < len(KINDS)


def test_the_page_tells_judged_cells_from_others():
    row = {"model": "a", "judged": True, "calls": 6, "cfg": 1.0, "button": "normal", "noise": 0, "baseline": 0.4,
           "limit": 0.1, "found": 0.2, "baseline_median": 0.4, "limit_median": 0.1, "found_median": 0.2,
           "baseline_rmse": 0.4, "found_rmse": 0.2, "network_calls": 9000, "share": 0.5}
    text = page([row, {**row, "judged": False, "share": 0.7}])
    assert "| normal | 6 | 1 | 0.50, 0.50 | 2 | 0.60, 0.50 | 0 |" in text


def test_the_page_says_what_a_table_learned_in_noise_gives_in_that_noise():
    known = {"baseline": 0.4, "quick": 0.3, "normal": 0.25, "thorough": 0.2, "normal, noise": 0.1}
    row = {"model": "a", "judged": True, "calls": 6, "cfg": 1.0, "button": "normal, noise", "noise": 0.01,
           "baseline": 0.4, "limit": 0.1, "found": 0.2, "baseline_median": 0.4, "limit_median": 0.1,
           "found_median": 0.2, "baseline_rmse": 0.4, "found_rmse": 0.2, "network_calls": 9000, "share": 0.5}
    assert "Measured in the noise" not in page([row])
    text = page([{**row, "in_noise": known, "share_in_noise": 1.0}])
    assert "| a | 6 | yes | normal, noise | 0.4000 | 0.1000 | 0.2500 | 0.2000 | 4.00 | 1.00 |" in text
    assert "normal, noise, judged: median share 1.00, lowest 1.00." in text
