"""A run with its network linearised ends where real runs end, near and far, for a fraction of their calls."""

from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import sample, schedules
from s4s.training.demo_models.source import bundled
from s4s.training.optimizers import gauss_newton, linearized, noise as noise_module
from s4s.training.optimizers.linearized import (
    RANK,
    SKETCHED,
    Linearized,
    Slopes,
    calls_per_image,
    measured,
    sketch,
)
from s4s.training.optimizers.noise import LEAST_SHARE, level_nudge, nudge_for
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import ends, known_pairs
from tests.toy import noisy, toy_source


def prepared(source, calls, count=3):
    levels = schedules.linear_flow(calls, 2.0) if source.flow else schedules.karras(calls, 0.03, source.sigma_max)
    parameters = Parameters(levels, flow=source.flow)
    seeds = range(count)
    return parameters, known_pairs(source, seeds, torch.zeros_like(source.noise(seeds)))


def slopes_of(model, parameters, vector):
    """(misses (n, d), their derivatives (n, k, d)) as the model has them."""
    miss, changes = model.run(parameters.frozen(vector), Slopes(parameters, vector))
    return (miss.float() @ model.tensors)[:, 0], changes.float() @ model.tensors


def differences(source, parameters, vector, pairs, nudge=1e-2):
    """Those of real runs, by finite differences; a query at the model's highest level only moves down."""
    here, columns = ends(source, parameters.frozen(vector), pairs), []
    for k in range(len(vector)):
        moved = vector.clone()
        moved[k] -= nudge
        columns.append((here - ends(source, parameters.frozen(moved), pairs)).flatten(1) / nudge)
    return torch.stack(columns, 1)


def off(source, rank, calls, sizes=None):
    """Errors (free numbers,) of the derivatives, relative to the usual length of all of them."""
    parameters, pairs = prepared(source, calls)
    vector = parameters.initial()
    before = source.model_calls
    model = measured(source, parameters, vector, pairs, rank, sizes)
    assert (source.model_calls - before) / 3 == calls_per_image(parameters, rank)
    miss, near = slopes_of(model, parameters, vector)
    torch.testing.assert_close(miss, ends(source, parameters.frozen(vector), pairs).flatten(1), rtol=1e-4, atol=1e-4)
    columns = differences(source, parameters, vector, pairs)
    wrong, length = (each.square().mean((0, 2)).sqrt() for each in (near - columns, columns))
    return wrong / length.square().mean().sqrt()


def gaussian(flow):
    """A source whose images are Gaussian, of deviations 1 and 0.5: its denoiser is linear."""
    spread = torch.tensor([1.0, 0.25])

    def network(x, sigma, label):
        level = sigma[:, None]
        return x * spread * (1 - level) / (spread * (1 - level) ** 2 + level ** 2) if flow \
            else x * spread / (spread + level ** 2)
    return toy_source(flow, network)


@pytest.mark.parametrize("flow", [False, True])
def test_two_directions_are_all_that_a_picture_of_two_numbers_has(flow):
    assert off(gaussian(flow), 1, 6).max() < 0.1            # finite differences bend by as much


@pytest.mark.parametrize("model", ["digits-eps", "digits-flow"])
def test_the_usual_rank_is_near_on_a_real_network_and_a_higher_one_nearer(model):
    source = bundled(model, 3.0)
    near, nearer = off(source, RANK, 6), off(source, 24, 6)
    assert near.median() < 0.2 and near.max() < 0.5
    assert nearer.median() < near.median() / 2


def test_numbers_that_may_move_far_are_measured_best():
    source, sizes = bundled("digits-flow", 3.0), torch.ones(31, dtype=torch.float64)
    sizes[5] = 30.0                                             # the first query
    assert off(source, 1, 6, sizes)[5] < off(source, 1, 6)[5]


def test_a_row_is_asked_about_once_for_each_number_before_it_at_most():
    costs = [calls_per_image(Parameters(schedules.karras(calls, 0.03, 14.6))) for calls in (5, 10, 20)]
    assert costs[1] < 3 * costs[0] and costs[2] < 2.5 * costs[1]


@pytest.mark.parametrize("flow", [False, True])
def test_far_moves_of_the_weights_of_a_linear_network_are_known_exactly(flow):
    source = gaussian(flow)
    parameters, pairs = prepared(source, 5)
    vector = parameters.initial()
    model = measured(source, parameters, vector, pairs)
    far = vector + 0.6 * torch.randn(len(vector), generator=torch.Generator().manual_seed(0))
    far[:sum(parameters.sizes[:2])] = vector[:sum(parameters.sizes[:2])]        # the levels stay
    table = parameters.frozen(far)
    predicted = (model.run(table)[0].float() @ model.tensors)[:, 0]
    real, before = ends(source, table, pairs), ends(source, parameters.frozen(vector), pairs)
    assert (real - before).norm() > 0.3 * before.norm()
    torch.testing.assert_close(predicted, real, rtol=1e-2, atol=1e-3 * float(real.abs().max()))


def test_a_real_run_corrects_the_model_there_and_beyond():
    source = bundled("digits-flow", 3.0)
    parameters, pairs = prepared(source, 6)
    vector, generator = parameters.initial(), torch.Generator().manual_seed(0)
    model = measured(source, parameters, vector, pairs, 1)
    step = 0.1 * torch.randn(len(vector), generator=generator).double()
    step[5] = -abs(step[5])                                     # the first query stands at the model's highest level
    tables = [parameters.frozen(vector + share * step) for share in (1.0, 1.5)]
    answers: list = []
    sample(source.denoiser, pairs.start(1.0, True), tables[0], pairs.extra,
           lambda i, x, row, denoised: answers.append(sketch(denoised)))
    better = model.corrected(tables[0], torch.stack(answers, 1))
    misses = {}
    for table in tables:
        real = ends(source, table, pairs).flatten(1)
        misses[table] = [float(((each.run(table)[0].float() @ each.tensors)[:, 0] - real).norm() / real.norm())
                         for each in (model, better)]
    (before, at), (_, beyond) = misses.values()
    assert at < 1e-4 < before and beyond < misses[tables[1]][0] / 2


def test_what_is_joined_and_saved_is_what_was_measured():
    source = bundled("digits-flow", 3.0)
    parameters, pairs = prepared(source, 4, 4)
    vector = parameters.initial()
    whole = measured(source, parameters, vector, pairs)
    halves = [measured(source, parameters, vector, pairs.part(slice(i, i + 2))) for i in (0, 2)]
    joined = Linearized(*(torch.cat([getattr(half, name) for half in halves]) for name in gauss_newton.PARTS))
    for one, other in zip(slopes_of(whole, parameters, vector), slopes_of(joined, parameters, vector)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_a_noisy_network_is_asked_farther_away_and_its_noise_corrects_little():
    plain = bundled("digits-flow", 3.0)
    parameters, pairs = prepared(plain, 5)
    vector, source = parameters.initial(), noisy(plain, 0.01)
    true = slopes_of(measured(plain, parameters, vector, pairs), parameters, vector)[1]
    told, untold = (measured(source, parameters, vector, pairs, RANK, None, noise) for noise in (0.01, 0.0))
    off = [float((slopes_of(model, parameters, vector)[1] - true).norm() / true.norm()) for model in (told, untold)]
    assert off[0] < 0.5 * off[1]
    table, answers = parameters.frozen(vector), []
    sample(source.denoiser, pairs.start(1.0, True), table, pairs.extra,
           lambda i, x, row, denoised: answers.append(sketch(denoised)))
    again = [told.corrected(table, torch.stack(answers, 1), noise) for noise in (0.01, 0.0)]
    changes = [float((slopes_of(model, parameters, vector)[1] - true).norm() / true.norm()) for model in again]
    assert changes[0] < 1.2 * off[0] and changes[0] < changes[1]            # the state has moved by noise alone


def test_near_a_flows_top_differences_are_short(monkeypatch):
    """There a network changes as its half-logSNR does, many times as fast as with the level's logarithm."""
    source, off = bundled("digits-flow", 3.0), []
    assert level_nudge(0.1, 0.5, True) == pytest.approx(0.1) and level_nudge(0.1, 0.5, False) == pytest.approx(0.2)
    parameters, pairs = prepared(source, 5)
    vector = parameters.initial()
    true = slopes_of(measured(source, parameters, vector, pairs, 12), parameters, vector)[1]
    for least in (LEAST_SHARE, 1.0):
        monkeypatch.setattr(noise_module, "LEAST_SHARE", least)
        wide = slopes_of(measured(source, parameters, vector, pairs, 12, None, 0.01), parameters, vector)[1]
        off.append((wide - true).norm(dim=(0, 2)) / true.norm(dim=(0, 2)))
    first = slice(parameters.calls - 1, parameters.calls + 1)                   # queries of the first two calls
    assert off[0][first].mean() < 0.7 * off[1][first].mean() and off[0].mean() < off[1].mean()


def test_noise_in_an_answer_is_not_taken_for_its_derivative():
    plain = bundled("digits-flow", 3.0)
    parameters, pairs = prepared(plain, 5)
    vector, source, shared = parameters.initial(), noisy(plain, 0.01), []
    for noise in (0.01, 0.0):
        before = source.model_calls
        model = measured(source, parameters, vector, pairs, RANK, None, noise)
        assert (source.model_calls - before) / 3 == calls_per_image(parameters, RANK, noise > 0)
        clean = measured(plain, parameters, vector, pairs, RANK, None, noise)
        answer, slope = (model.tensors[:, k] - clean.tensors[:, k] for k in (2, 3))     # of the first row: their noise
        shared.append(level_nudge(nudge_for(noise), 1.0, True) * float((answer * slope).sum() / answer.square().sum()))
    assert abs(shared[0]) < 0.2 and shared[1] > 0.8


def test_noise_does_not_pass_for_curvature():
    """The losses' curvature along the ten ways in which it is least, with noise, of that without."""
    plain = bundled("digits-eps", 3.0)
    parameters, pairs = prepared(plain, 5, 8)
    vector = parameters.initial()

    def curvature(model):
        changes = model.run(parameters.frozen(vector), Slopes(parameters, vector))[1]
        return (changes @ model.products @ changes.transpose(1, 2)).sum(0)

    def asked(source):
        return measured(source, parameters, vector, pairs, RANK, None, 0.01)
    clean = curvature(asked(plain))
    unit = clean.diagonal().rsqrt()
    least, ways = torch.linalg.eigh(unit[:, None] * clean * unit)
    ways = (unit[:, None] * ways)[:, :10]
    model = asked(noisy(plain, 0.01))
    louder = replace(model, loud=torch.zeros_like(model.loud))
    told, untold = (((ways.T @ curvature(each) @ ways).diagonal() / least[:10]).log().mean().exp()
                    for each in (model, louder))
    assert untold > 3 and 0.8 < told < 1.8
    quiet = asked(noisy(plain, 1e-4))           # far less than was measured elsewhere: next to nothing is subtracted
    assert ((ways.T @ curvature(quiet) @ ways).diagonal() / least[:10]).sub(1).abs().max() < 0.1
    assert not measured(plain, parameters, vector, pairs).loud.any()


def test_a_sketch_keeps_squares_and_inner_products_within_its_size():
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 6, 200_000, generator=generator)
    kept = sketch(one)
    assert kept.shape == (6, SKETCHED)
    torch.testing.assert_close(kept.square().mean(1), one.square().mean(1), rtol=0.1, atol=0)   # deviation 2 %
    products = (sketch(one) * sketch(other)).mean(1) - (one * other).mean(1)
    assert products.abs().max() < 0.08                                                          # deviation 1.6 %
    assert torch.equal(sketch(one[:, :100]), one[:, :100])


def test_the_loss_of_a_real_run_is_that_of_the_model_where_images_are_sketched(monkeypatch):
    monkeypatch.setattr(linearized, "SKETCHED", 64)
    source = bundled("digits-flow", 3.0)
    parameters, pairs = prepared(source, 4)
    vector = parameters.initial()
    model = measured(source, parameters, vector, pairs)
    assert model.tensors.shape[2] == 64
    expected = float(model.squares(model.run(parameters.frozen(vector))[0]).sqrt().mean())
    assert gauss_newton._tried(source, parameters, vector, pairs)[1] == pytest.approx(expected, rel=1e-4)


def test_sketched_runs_change_with_the_free_numbers_as_whole_ones_do(monkeypatch):
    source = bundled("digits-flow", 3.0)
    parameters, pairs = prepared(source, 5, 8)
    vector = parameters.initial()

    def curvature():
        model = measured(source, parameters, vector, pairs)
        return gauss_newton._normal(model, parameters, vector)[0].diagonal()[4:6]      # those of two queries
    whole = curvature()
    monkeypatch.setattr(linearized, "SKETCHED", 512)
    torch.testing.assert_close(curvature(), whole, rtol=0.2, atol=0)
