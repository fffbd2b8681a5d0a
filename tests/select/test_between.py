"""Between two tables: the tables themselves at the ends, lawful solvers in the middle, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from s4s.s4s_nodes.core import Table, classical, constant_law_error, mixture, sample, schedules
from s4s.s4s_nodes.select import adapted
from s4s.s4s_nodes.select.cfg import between
from s4s.training.parametrization.parameters import Parameters

PARTS = ("sigmas", "query", "scale", "carry", "weights")


def learned(flow: bool, seed: int, calls: int = 5, rho: float = 7.0) -> Table:
    """A table as the trainer makes them: a base solver and a residual of some size."""
    levels = schedules.linear_flow(calls, rho / 3) if flow else schedules.karras(calls, 0.1, 14.6, rho)
    parameters = Parameters(levels, flow=flow)
    noise = torch.randn(sum(parameters.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return parameters.frozen(parameters.initial() + 0.2 * noise)


@given(flow=st.booleans(), seed=st.integers(0, 10 ** 6), share=st.floats(0, 1))
def test_a_table_between_two_obeys_the_constant_law(flow, seed, share):
    made = between(learned(flow, seed), learned(flow, seed + 1, rho=5.0), share, flow)
    assert made.keeps_constants and constant_law_error(made) < 1e-12


@given(flow=st.booleans(), seed=st.integers(0, 10 ** 6))
def test_the_ends_are_the_tables_themselves(flow, seed):
    low, high = learned(flow, seed), learned(flow, seed + 1)
    for share, table in ((0.0, low), (1.0, high)):
        assert all(np.allclose(getattr(between(low, high, share, flow), part), getattr(table, part), rtol=0, atol=1e-12)
                   for part in PARTS)


@given(flow=st.booleans(), seed=st.integers(0, 10 ** 6), share=st.floats(0.01, 0.99))
def test_a_table_and_itself_have_only_it_between_them(flow, seed, share):
    table = learned(flow, seed)
    made = between(table, table, share, flow)
    assert all(np.allclose(getattr(made, part), getattr(table, part), rtol=1e-10, atol=1e-12) for part in PARTS)


def test_near_an_end_the_table_is_near_it():
    """No jump where a host's cfg passes one that was trained: the pictures move in proportion."""
    low, high = learned(False, 1), learned(False, 2, rho=5.0)
    start = 14.6 * torch.randn(64, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    there = sample(mixture, start, low)
    apart = [float((sample(mixture, start, between(low, high, share, False)) - there).abs().mean())
             for share in (1e-5, 1e-4)]
    assert 0 < apart[0] < 2e-4 and apart[1] == pytest.approx(10 * apart[0], rel=0.1)


def test_between_two_classical_tables_is_the_classical_one_on_the_levels_between():
    """What is interpolated is the residual over DPM-Solver++(2M): of two without one it is nothing."""
    low, high = (classical.dpmpp_2m(schedules.karras(6, 0.1, 14.6, rho)) for rho in (7.0, 3.0))
    made = between(low, high, 0.3, flow=False)
    wanted = classical.dpmpp_2m(low.sigmas ** 0.7 * high.sigmas ** 0.3)
    assert all(np.allclose(getattr(made, part), getattr(wanted, part), atol=1e-10) for part in PARTS)
    assert not np.allclose(made.weights, adapted(low, high.sigmas, False).weights, atol=1e-3)


def test_nothing_lies_between_different_numbers_of_calls():
    with pytest.raises(ValueError):
        between(learned(False, 1), learned(False, 2, calls=6), 0.5, False)
