"""The Jacobian by few directions is the one by finite differences, for a fraction of its calls."""

import pytest
import torch

from s4s.s4s_nodes.core import schedules
from s4s.training.demo_models.source import bundled
from s4s.training.optimizers import gauss_newton, low_rank
from s4s.training.optimizers.jacobian import calls_per_image, measured
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import known_pairs
from tests.toy import toy_source


def both(source, rank, calls, sizes=None, **settings):
    """(errors of the columns, relative to all columns' usual length; network calls an image) of the cheap Jacobian."""
    levels = schedules.linear_flow(calls, 2.0) if source.flow else schedules.karras(calls, 0.03, source.sigma_max)
    parameters = Parameters(levels, flow=source.flow, **settings)
    seeds = range(3)
    pairs = known_pairs(source, seeds, torch.zeros_like(source.noise(seeds)))
    vector = parameters.initial()
    miss, columns = measured(source, parameters, vector, pairs)
    before = source.model_calls
    near_miss, near = low_rank.measured(source, parameters, vector, pairs, rank, sizes)
    assert (source.model_calls - before) / 3 == low_rank.calls_per_image(parameters, rank)
    torch.testing.assert_close(near_miss, miss, rtol=1e-4, atol=1e-4)
    moving = parameters.moving().bool()
    assert not near[:, ~moving].any()
    off, length = ((each.square().mean((0, 2)).sqrt())[moving] for each in (near - columns, columns))
    return off / length.square().mean().sqrt(), low_rank.calls_per_image(parameters, rank) / calls_per_image(parameters)


def gaussian(flow):
    """A source whose images are Gaussian, of deviations 1 and 0.5: its denoiser is linear."""
    spread = torch.tensor([1.0, 0.25])

    def network(x, sigma, label):
        level = sigma[:, None]
        return x * spread * (1 - level) / (spread * (1 - level) ** 2 + level ** 2) if flow \
            else x * spread / (spread + level ** 2)
    return toy_source(flow, network)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("settings", [{}, {"family": "pc", "base": "unipc_bh2_2"}, {"family": "ss", "base": "dpmpp_3s"},
                                      {"learn": "generalized"}, {"learn": "coefficients", "order": 1}])
def test_two_directions_are_all_that_a_picture_of_two_numbers_has(settings, flow):
    off, _ = both(gaussian(flow), 1, 6, **settings)
    assert off.max() < 0.1                                     # finite differences bend by as much


@pytest.mark.parametrize("model", ["digits-eps", "digits-flow"])
def test_the_usual_rank_is_near_on_a_real_network_and_a_higher_one_nearer(model):
    source = bundled(model, 3.0)
    near, cost = both(source, low_rank.RANK, 6)
    nearer, _ = both(source, 24, 6)
    assert cost < 0.75 and near.median() < 0.2 and near.max() < 0.5
    assert nearer.median() < near.median() / 2


def test_numbers_that_may_move_far_are_measured_best():
    source, sizes = bundled("digits-flow", 3.0), torch.ones(31, dtype=torch.float64)
    sizes[5] = 30.0                                             # the first query
    plain, _ = both(source, 1, 6)
    weighed, _ = both(source, 1, 6, sizes)
    assert weighed[5] < plain[5]


def test_the_cost_grows_with_the_square_of_the_calls():
    costs = [low_rank.calls_per_image(Parameters(schedules.karras(calls, 0.03, 14.6))) for calls in (5, 10, 20)]
    assert costs[1] < 3 * costs[0] and costs[2] < 2.5 * costs[1]


def test_numbers_at_rest_have_sizes_too_for_the_turn_in_which_they_move():
    generator = torch.Generator().manual_seed(0)
    columns, miss = torch.randn(4, 3, 50, generator=generator), torch.randn(4, 50, generator=generator)
    columns[:, 2] = 0.0
    sizes = gauss_newton._sizes(miss, columns, torch.tensor([True, True, False]))
    assert bool((sizes > 0).all()) and sizes[2] > sizes[:2].max()
