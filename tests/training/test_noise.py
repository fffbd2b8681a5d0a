"""Noise in a network's answers is measured, and its share of the normal equations is subtracted."""

from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import schedules
from s4s.training.optimizers.gauss_newton import damped
from s4s.training.optimizers.jacobian import measured
from s4s.training.optimizers.noise import NoiseCovariance, noise_by_tail, noise_of
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import make_pairs
from s4s.training.teacher.solvers import teacher_table
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


def test_the_covariance_is_what_noise_adds_to_the_products_of_columns():
    plain = toy_source()
    parameters = Parameters(schedules.karras(4, 0.03, plain.sigma_max))
    pairs = make_pairs(plain, range(512), teacher_table(plain, "auto", 40), "", quiet=True)
    loud, vector, nudges = noisy(plain, 0.02), parameters.initial(), torch.full((16,), 0.05, dtype=torch.float64)
    table, (miss, jacobian) = parameters.frozen(vector), measured(plain, parameters, vector, pairs, nudges)
    miss_off, off = (there - here for there, here in zip(measured(loud, parameters, vector, pairs, nudges),
                                                         (miss, jacobian), strict=True))
    variances = torch.stack([noise_by_tail(loud, table, pairs.part(slice(i, i + 1))) for i in range(256)]).mean(0)
    noise = NoiseCovariance.of(variances, parameters, vector, nudges, 1.0)
    columns = torch.einsum("nkd,nld->kl", off, off).double() / miss.numel()
    assert (columns - noise.columns).norm() < 0.3 * columns.norm()
    against_miss = torch.einsum("nkd,nd->k", off, miss_off).double() / miss.numel()
    assert (against_miss - noise.miss).norm() < 0.3 * against_miss.norm()
    step = torch.ones(16, dtype=torch.float64)
    along, after = step / step.norm(), noise.after(step)
    assert float(along @ after.columns @ along) == pytest.approx(2 * noise.end / 16)


def test_a_step_that_knows_no_noise_is_the_plain_one_and_noise_makes_it_longer():
    generator = torch.Generator().manual_seed(0)
    jacobian, miss = torch.randn(8, 3, 50, generator=generator), torch.randn(8, 50, generator=generator)
    moving, zero = torch.ones(3, dtype=torch.bool), torch.zeros(3, dtype=torch.float64)
    plain = damped(jacobian, miss, moving, 1e-3)
    quiet = damped(jacobian, miss, moving, 1e-3, NoiseCovariance(torch.diag(zero), zero, 0.0))
    torch.testing.assert_close(quiet, plain)
    half = NoiseCovariance(torch.diag(zero + 0.5), zero, 0.0)               # half of every column's power is noise
    assert damped(jacobian, miss, moving, 1e-3, half).norm() > 1.5 * plain.norm()
