"""Learning on a closed-form denoiser: it gets better, and its slopes are right."""

import math
from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import sample, schedules
from s4s.training.demo_models.source import bundled
from s4s.training.optimizers import gauss_newton
from s4s.training.optimizers.gauss_newton import learn, pair_cost, places, solved
from s4s.training.optimizers.linearized import Slopes, measured
from s4s.training.optimizers.state import State
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import ends, make_pairs
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.toy import small, toy_source


def prepared(flow=False, calls=4, network=None, **changes):
    config, source = small(**changes), toy_source(flow)
    table = teacher_table(source, AUTO, config.teacher.calls)
    levels = schedules.linear_flow(calls, 2.0) if flow else schedules.karras(calls, 0.03, source.sigma_max)
    parameters = Parameters(levels, flow=flow)
    pairs = make_pairs(source, range(config.data.pairs), table, "", quiet=True)
    held_out = make_pairs(source, range(1000, 1000 + config.data.validation), table, "", quiet=True)
    if network is not None:
        source.network = network
    return source, parameters, pairs, held_out, config


def begun(parameters, left=10 ** 9):
    vector = parameters.initial()
    return State(vector, vector.clone(), left=left)


@pytest.mark.parametrize("flow", [False, True])
def test_a_few_thousand_calls_make_the_held_out_error_a_fifth(flow):
    source, parameters, pairs, held_out, config = prepared(flow, pairs=64, iterations=0)
    source.model_calls, state = 0, begun(parameters, 4_000)
    state = learn(source, parameters, pairs, held_out, config, state)
    assert state.best_error < 0.2 * state.curve[0][2]
    assert source.model_calls <= 4_000 and source.model_calls + state.left == 4_000


def test_more_calls_go_on_where_fewer_end(monkeypatch):
    """The way does not depend on the budget: only where it stops, and the last batch, do."""
    ways, turns = {}, []

    def noted(state, count):
        turns.append(places(state, count))
        return turns[-1]
    monkeypatch.setattr(gauss_newton, "places", noted)
    for calls in (1_500, 5_000):
        source, parameters, pairs, held_out, config = prepared(pairs=64, iterations=0)
        state = begun(parameters, calls)
        ways[calls] = [row[:3] for row in learn(source, parameters, pairs, held_out, config, state).curve]
    short, long = ways.values()
    assert len(long) > len(short) > 3 and long[1:len(short) - 1] == short[1:-1]
    assert turns[0] == list(range(4)) and max(map(len, turns)) > 4


def test_where_the_held_out_pairs_clearly_lose_learning_returns_to_the_best_numbers():
    source, parameters, pairs, held_out, config = prepared(pairs=64, iterations=1)
    state = begun(parameters)
    start = state.vector.clone()
    held_out = replace(held_out, target=ends(source, parameters.frozen(start), held_out) + 1e-3)
    learn(source, parameters, pairs, held_out, config, state)
    assert state.curve[1][2] > gauss_newton.WORSE * state.curve[0][2] and state.wanted == 8
    assert torch.equal(state.vector, start) and torch.equal(state.best, start) and state.former is None


def test_what_former_pairs_say_holds_the_numbers_that_the_new_ones_say_little_about():
    source, parameters, pairs, held_out, config = prepared(pairs=64, iterations=2)
    state, left = begun(parameters), []
    learn(source, parameters, pairs, held_out, config, state)
    size = len(state.vector)
    torch.testing.assert_close(state.former, state.former.T)
    assert torch.linalg.matrix_rank(state.former) > size // 2 and torch.linalg.eigvalsh(state.former).min() > -1e-9
    for former in (None, state.former, 1e12 * torch.eye(size, dtype=state.vector.dtype)):
        one = State(state.vector.clone(), state.best.clone(), curve=state.curve[:1], former=former)
        learn(source, parameters, pairs, held_out, replace(config, iterations=1), one)
        away = one.vector - state.vector
        left.append(float(away @ state.former @ away))
    assert left[0] > 2 * left[1] > 0 == left[2]


def test_an_answer_of_nan_to_a_finite_state_rejects_the_step_in_words():
    """A step that ran away is rejected silently: it would in every run."""
    for start, words in ((1.0, "answered NaN or infinity"), (math.inf, None)):
        source, parameters, pairs, _, _ = prepared()
        said, pairs.noise[0, 0] = [], start
        source.network, source.say = lambda x, sigma, label: x * math.nan, said.append
        assert gauss_newton._tried(source, parameters, parameters.initial(), pairs) == (None, math.inf)
        assert [words in one for one in said] == ([True] if words else [])


def test_what_another_version_measured_is_measured_again():
    source, parameters, pairs, held_out, config = prepared(pairs=64, iterations=1)
    fresh, other = begun(parameters), begun(parameters)
    for state in (fresh, other):
        if state is other:
            state.batch, state.memory = 4, {"tensors": torch.zeros(4, 2, 3), "lengths": torch.zeros(4)}
        learn(source, parameters, pairs, held_out, config, state)
    assert torch.equal(fresh.vector, other.vector) and other.iteration == 1


def test_calls_that_buy_no_two_pairs_are_left():
    source, parameters, pairs, held_out, config = prepared(pairs=64)
    state = begun(parameters)
    state.left = 2 * len(held_out) * parameters.calls + 2 * pair_cost(parameters) - 1
    learn(source, parameters, pairs, held_out, config, state)
    assert state.iteration == 0 and state.curve == []


def test_the_linearised_runs_have_the_gradient_and_a_heavily_damped_step_goes_down_it():
    source, parameters, pairs, _, _ = prepared()
    vector = parameters.initial() - 0.05                    # no query at the model's highest level
    model = measured(source, parameters, vector, pairs)
    miss, changes = model.run(parameters.frozen(vector), Slopes(parameters, vector))
    free = vector.clone().requires_grad_()
    start = pairs.start(float(parameters.start[0]), source.flow)
    end = sample(source.denoiser, start, parameters.table(free), pairs.extra)
    gradient, = torch.autograd.grad((end - pairs.target).square().mean(1).sqrt().mean(), free)
    weight = 1 / (model.squares(miss).sqrt() * model.tensors.shape[2] * len(miss))
    slope = (weight * (changes @ model.products @ miss.transpose(1, 2))[:, :, 0]).sum(0)
    torch.testing.assert_close(slope, gradient, rtol=0.05, atol=0.02 * float(gradient.abs().max()))     # nudge of 0.01
    hold = torch.diag(1e2 * gauss_newton._scale(model, parameters, vector))
    step = solved(model, parameters, vector, hold) - vector
    assert float(step @ gradient) < 0


@pytest.mark.parametrize("flow", [False, True])
def test_what_is_solved_is_better_by_the_model_and_no_number_moves_far(flow):
    source, parameters, pairs, _, _ = prepared(flow)
    vector = parameters.initial()
    model = measured(source, parameters, vector, pairs)
    scale, losses = gauss_newton._scale(model, parameters, vector), {}
    for damping in (1e-6, 1e-3, 1.0):
        there = solved(model, parameters, vector, torch.diag(damping * scale))
        assert (there - vector).abs().max() < gauss_newton.LONGEST + 1e-6
        losses[damping] = float(model.squares(model.run(parameters.frozen(there))[0]).sqrt().mean())
    before = float(model.squares(model.run(parameters.frozen(vector))[0]).sqrt().mean())
    assert losses[1e-3] < losses[1.0] < before and losses[1e-3] < 0.5 * before


def test_a_source_is_asked_at_the_guidance_scale_it_is_set_to():
    source, one = bundled("digits-flow", 3.0), bundled("digits-flow", 5.0)
    seeds, sigma = range(4), torch.full((4,), 0.7)
    x, before = source.noise(seeds), source.extra(seeds)
    source.cfg = 5.0
    assert torch.equal(source.denoiser(x, sigma, **source.extra(seeds)), one.denoiser(x, sigma, **one.extra(seeds)))
    assert not torch.equal(source.denoiser(x, sigma, **before), source.denoiser(x, sigma, **source.extra(seeds)))
