"""Free numbers -> table: the start is the base solver, the laws hold wherever the numbers go."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s4s_nodes.core import classical, constant_law_error, schedule
from training.parameters import Parameters

MULTISTEP = [name for name, solver in classical.SOLVERS.items() if solver.calls_per_step == 1]


def start(calls, flow=False):
    return schedule.linear_flow(calls, 2.0) if flow else schedule.karras(calls, 0.03, 14.6)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("base", MULTISTEP)
def test_the_initial_vector_is_the_base_solver(base, flow):
    for calls in (1, 2, 3, 6):
        parameters = Parameters(start(calls, flow), base, flow=flow)
        made, wanted = parameters.solver(parameters.initial()), classical.SOLVERS[base](start(calls, flow), flow)
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
    solver = table.solver()                                                 # refuses rising sigmas, a broken law
    assert constant_law_error(solver) < 1e-8
    assert solver.sigmas[0] == pytest.approx(levels[0], rel=1e-12) and solver.sigmas[-1] == levels[-1]
    assert solver.query.max() <= levels[0] * (1 + 1e-12)


def test_the_free_numbers_are_counted_as_documented():
    parameters = Parameters(start(6), order=3)
    assert parameters.sizes == (5, 6, 1 + 2 + 3 + 3 + 3 + 2)                # the last row's newest is not free
    assert Parameters(start(6), order=3, learn=("weights",)).moving().sum() == 14
    assert Parameters(start(6)).sizes == (5, 6, 20)


def test_the_table_is_differentiable_in_every_free_number():
    parameters = Parameters(start(4), "dpmpp_3m")
    vector = (parameters.initial() + 0.1).requires_grad_()

    def numbers(v):
        table = parameters.table(v)
        return torch.cat([table.sigmas, table.query, table.carry, table.weights.flatten()])
    assert torch.autograd.gradcheck(numbers, (vector,), atol=1e-6)


def test_a_two_call_base_and_unknown_parts_are_refused():
    with pytest.raises(ValueError, match="one call per step"):
        Parameters(start(4), "heun")
    with pytest.raises(ValueError, match="name at least one of"):
        Parameters(start(4), learn=("sigma",))
