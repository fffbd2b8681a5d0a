"""Free numbers -> table: the start is the base solver, the laws hold wherever the numbers go."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from s4s.s4s_nodes.core import classical, constant_law_error, schedules
from s4s.training.parametrization.parameters import LEARN, Parameters

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


@pytest.mark.parametrize("learn", sorted(LEARN))
@pytest.mark.parametrize("end", [0.0, 0.05])
def test_what_is_not_learned_stays_and_the_law_holds(learn, end):
    levels = np.append(start(5)[:-1], end) if end < start(5)[-2] else np.append(start(5)[:-2], [0.1, end])
    parameters = Parameters(levels, learn=learn)
    generator = torch.Generator().manual_seed(0)
    moved = torch.randn(sum(parameters.sizes), dtype=torch.float64, generator=generator) * parameters.moving()
    table, still = (parameters.frozen(parameters.initial() + scale * moved) for scale in (0.3, 0.0))
    changed = {part for part, name in (("sigmas", "sigmas"), ("weights", "weights"), ("carry", "carry"))
               if not np.allclose(getattr(table, name), getattr(still, name), rtol=1e-12)}
    if not np.allclose(table.query / table.sigmas[:-1], still.query / still.sigmas[:-1], rtol=1e-12):
        changed.add("query")
    follows = {"weights", "carry"} if "sigmas" in LEARN[learn] else set()      # the base solver's own, on these levels
    assert changed == set(LEARN[learn]) | follows
    assert constant_law_error(table) < 1e-12


def test_generalized_rows_are_every_sum_of_the_start_and_the_predictions():
    """Any a[i] and b[i, j] of BNS's x[i+1] = a[i] x[0] + sum_j b[i, j] D[j] is some free vector's table."""
    parameters = Parameters(start(4), learn="generalized")
    vector = parameters.initial()
    generator = torch.Generator().manual_seed(1)
    share = torch.rand(3, dtype=torch.float64, generator=generator) + 0.1           # a, of rows 0 to 2
    wanted = torch.randn(4, 4, dtype=torch.float64, generator=generator).tril()     # b
    here = parameters.table(vector)
    carry = torch.cat([share[:1], share[1:] / share[:-1], torch.zeros(1, dtype=torch.float64)])
    weights = torch.cat([wanted[:1], wanted[1:] - carry[1:, None] * wanted[:-1]])
    unit = 1 - here.sigmas[1:] / here.sigmas[:-1]
    changes = torch.log(carry[:-1] / here.carry[:-1])
    residuals = (weights - here.weights + torch.diag(carry - here.carry)) / unit[:, None]
    free = torch.cat([torch.stack([residuals[i, i - age] for age in range(i + 1)]) for i in range(4)][:-1]
                     + [residuals[3, [2, 1, 0]], changes])
    found = parameters.table(torch.cat([vector[:3 + 4], free]))
    torch.testing.assert_close(found.carry, carry)
    torch.testing.assert_close(found.weights[:3], weights[:3])
    torch.testing.assert_close(found.weights[3, :3], weights[3, :3])


def test_the_free_numbers_are_counted_as_documented():
    parameters = Parameters(start(6), order=3)
    assert parameters.sizes == (5, 6, 1 + 2 + 3 + 3 + 3 + 2)                # the last row's newest is not free
    assert Parameters(start(6), order=3, learn="coefficients").moving().sum() == 14
    assert Parameters(start(6)).sizes == (5, 6, 20)


@pytest.mark.parametrize("learn", ["joint", "generalized"])
def test_the_table_is_differentiable_in_every_free_number(learn):
    parameters = Parameters(start(4), "dpmpp_3m", learn=learn, highest=100.0)
    vector = (parameters.initial() + 0.1).requires_grad_()

    def numbers(v):
        table = parameters.table(v)
        return torch.cat([table.sigmas, table.query, table.carry, table.weights.flatten()])
    assert torch.autograd.gradcheck(numbers, (vector,), atol=1e-6)


def test_a_two_call_base_and_unknown_parts_are_refused():
    with pytest.raises(ValueError, match="one call per step"):
        Parameters(start(4), "heun")
    with pytest.raises(ValueError, match="use one of"):
        Parameters(start(4), learn="sigma")


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
