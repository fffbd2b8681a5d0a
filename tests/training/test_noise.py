"""Noise in a network's answers is measured."""

import pytest

from s4s.training.optimizers.noise import noise_of
from tests.toy import noisy, toy_source


@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_the_measured_noise_is_that_of_the_network(size):
    assert noise_of(toy_source(), range(8)) < 1e-3
    assert noise_of(noisy(toy_source(), size), range(64)) == pytest.approx(size, rel=0.5)
