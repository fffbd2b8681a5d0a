"""Free numbers -> table: the start is the base solver, the laws hold wherever the numbers go."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from s4s.s4s_nodes.core import classical, constant_law_error, schedules
from s4s.training.parametrization.parameters import SMALLEST_STEP, Parameters

MULTISTEP = [name for name, solver in classical.SOLVERS.items() if solver.calls_per_step == 1]


def start(calls, flow=False):
    return schedules.linear_flow(calls, 2.0) if flow else schedules.karras(calls, 0.03, 14.6)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("base", MULTISTEP)
def test_the_initial_vector_is_the_base_solver(base, flow):
    for calls in (1, 2, 3, 6):
        parameters = Parameters(start(calls, flow), base, flow=flow)
        made, wanted = parameters.frozen(parameters.initial()), classical.SOLVERS[base](start(calls, flow), flow)
        for part in ("sigmas", "query", "scale", "carry", "weights"):       # rounding of log and exp
            np.testing.assert_allclose(getattr(made, part), getattr(wanted, part), rtol=1e-11, atol=1e-11)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10 ** 6), spread=st.floats(0.01, 2.0), flow=st.booleans(), end=st.sampled_from([0.0, 0.05]))
def test_no_vector_breaks_the_laws(seed, spread, flow, end):
    levels = start(5, flow)
    levels[-1] = end if end < levels[-2] else levels[-2] / 2
    parameters = Parameters(levels, "dpmpp_2m", flow=flow)
    noise = torch.randn(sum(parameters.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    table = parameters.table(parameters.initial() + spread * noise)
    frozen = table.frozen()                                                 # refuses rising sigmas, a broken law
    assert constant_law_error(frozen) < 1e-8
    assert frozen.sigmas[0] == pytest.approx(levels[0], rel=1e-12) and frozen.sigmas[-1] == levels[-1]
    assert frozen.query.max() <= levels[0] * (1 + 1e-12)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", ["dpm_2", "dpmpp_2s", "unipc_bh2_3", "dpmpp_3m"])
def test_every_weight_of_another_familys_table_is_some_residual(name, flow):
    """Single-step solvers and predictor-correctors weigh the same predictions and carry alike."""
    there = classical.SOLVERS[name](start(3, flow), flow)
    parameters = Parameters(there.sigmas, flow=flow)
    vector = parameters.initial()
    here, (rows, columns) = parameters.frozen(vector), parameters.places
    units = np.maximum(1 - there.sigmas[1:] / there.sigmas[:-1], SMALLEST_STEP)[rows]
    vector[sum(parameters.sizes[:2]):] = torch.tensor((there.weights - here.weights)[rows, columns] / units)
    found = parameters.frozen(vector)
    np.testing.assert_allclose(found.weights, there.weights, atol=1e-9)
    np.testing.assert_allclose(found.carry, there.carry, atol=1e-12)


def test_the_free_numbers_are_counted_as_documented():
    assert Parameters(start(6)).sizes == (5, 6, 20)                         # the last row's newest is not free


def test_the_table_is_differentiable_in_every_free_number():
    parameters = Parameters(start(4), "dpmpp_3m", highest=100.0)
    vector = (parameters.initial() + 0.1).requires_grad_()

    def numbers(v):
        table = parameters.table(v)
        return torch.cat([table.sigmas, table.query, table.carry, table.weights.flatten()])
    assert torch.autograd.gradcheck(numbers, (vector,), atol=1e-6)


@pytest.mark.parametrize("highest", [None, 2.0])
def test_a_query_pushed_past_the_highest_level_comes_back(highest):
    parameters = Parameters(np.array([1.0, 0.6, 0.3, 0.0]), flow=True, highest=highest)
    vector, first = parameters.initial(), parameters.sizes[0]
    vector[first] = 1.5
    inside = parameters.bounded(vector)
    most = highest or 1.0
    assert parameters.frozen(vector).query[0] == most
    assert np.isclose(parameters.frozen(inside).query[0], most, rtol=1e-12)
    inside[first] -= 0.01
    assert np.isclose(parameters.frozen(inside).query[0], most * np.exp(-0.01), rtol=1e-12)
    assert torch.equal(parameters.bounded(inside), inside)


def test_the_gradient_sees_a_query_at_the_highest_level():
    parameters = Parameters(np.array([1.0, 0.6, 0.3, 0.0]), flow=True)
    vector = parameters.initial().requires_grad_()
    parameters.table(vector).query[0].backward()
    assert vector.grad[parameters.sizes[0]] == 1.0
