"""Noise in a network's answers is measured."""

from dataclasses import replace

import pytest

from s4s.training.optimizers.noise import noise_of
from tests.toy import noisy, toy_source


@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_the_measured_noise_is_that_of_the_network(size):
    assert noise_of(toy_source(), range(8)) < 1e-3
    assert noise_of(noisy(toy_source(), size), range(64)) == pytest.approx(size, rel=0.5)


def test_curvature_does_not_pass_for_noise():
    smooth = toy_source()
    level = float(smooth.levels[len(smooth.levels) // 2])
    curved = replace(smooth, network=lambda x, sigma, **extra: (3 * x / level).sin())
    assert noise_of(curved, range(8)) == 0
    assert noise_of(noisy(curved, 1e-3), range(64)) == pytest.approx(1e-3, rel=0.5)
