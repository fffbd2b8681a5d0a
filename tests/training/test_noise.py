"""Noise in a network's answers is measured."""

from dataclasses import replace

import pytest
import torch

from s4s.training.optimizers.noise import noise_of
from tests.toy import toy_source


def noisy(source, size: float):
    generator, plain = torch.Generator().manual_seed(0), source.network

    def network(x, sigma, **extra):
        answer = plain(x, sigma, **extra)
        scale = size * answer.square().mean().sqrt()
        return answer + scale * torch.randn(answer.shape, generator=generator)
    return replace(source, network=network)


@pytest.mark.parametrize("size", [1e-3, 1e-2])
def test_the_measured_noise_is_that_of_the_network(size):
    assert noise_of(toy_source(), range(8)) < 1e-3
    assert noise_of(noisy(toy_source(), size), range(64)) == pytest.approx(size, rel=0.5)
