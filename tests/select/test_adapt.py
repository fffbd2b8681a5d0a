"""A table on other levels: itself where nothing moved, a solver that obeys the constant law everywhere."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from s4s.s4s_nodes.core import (
    Model,
    Preset,
    Table,
    classical,
    constant_law_error,
    mixture,
    preset_file,
    sample,
    schedules,
)
from s4s.s4s_nodes.library import shipped_folder
from s4s.s4s_nodes.select import ModelFacts, adapt, adapted, table_for
from s4s.training.parametrization.parameters import Parameters

PARTS = ("sigmas", "query", "scale", "carry", "weights")


def levels(calls, flow, end=0.0):
    made = schedules.linear_flow(calls, 2.0) if flow else schedules.karras(calls, 0.1, 14.6)
    made[-1] = end
    return made


def learned(calls, flow, end=0.0, seed=0, spread=0.3, base="dpmpp_2m") -> Table:
    """A table as the trainer makes them: a base solver and a residual of some size."""
    parameters = Parameters(levels(calls, flow, end), base, flow=flow)
    noise = torch.randn(sum(parameters.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return parameters.frozen(parameters.initial() + spread * noise)


def moved(table, by, seed):
    """The table's levels, each moved by up to half of `by` of the way to its neighbour; an end at 0 stays."""
    sigmas = table.sigmas
    up, down = np.append(0, sigmas[:-1] - sigmas[1:]), np.append(sigmas[:-1] - sigmas[1:], sigmas[-1])
    draws = np.random.default_rng(seed).uniform(-by / 2, by / 2, len(sigmas))
    return sigmas + np.where(draws > 0, draws * up * (sigmas > 0), draws * down)


def difference(one, other) -> float:
    return max(float(np.abs(getattr(one, part) - getattr(other, part)).max()) for part in PARTS)


anything = given(calls=st.integers(1, 8), flow=st.booleans(), end=st.sampled_from([0.0, 0.02]),
                 seed=st.integers(0, 10 ** 6), by=st.floats(0, 0.9))


@anything
def test_a_moved_table_obeys_the_constant_law(calls, flow, end, seed, by):
    table = learned(calls, flow, end, seed)
    there = adapted(table, moved(table, by, seed), flow)
    assert there.keeps_constants and constant_law_error(there) < 1e-12
    assert np.array_equal(there.scale, table.scale)


def test_a_moved_table_of_the_papers_clock_still_shows_the_network_its_states_own_input():
    free = learned(5, False)
    shown = np.sqrt((1 + free.query ** 2) / (1 + free.sigmas[:-1] ** 2))
    table = dataclasses.replace(free, scale=shown)
    there = adapted(table, moved(table, 0.5, 0), False)
    assert np.abs(there.scale - table.scale).max() > 1e-3
    np.testing.assert_allclose(there.scale / np.sqrt(1 + there.query ** 2), 1 / np.sqrt(1 + there.sigmas[:-1] ** 2))


@given(calls=st.integers(2, 6), seed=st.integers(0, 10 ** 6), flow=st.booleans(), end=st.sampled_from([0.0, 0.02]))
def test_a_constant_picture_comes_out_of_a_moved_table(calls, seed, flow, end):
    table = learned(calls, flow, end, seed)
    there = adapted(table, moved(table, 0.5, seed), flow)
    first, picture = there.sigmas[0], torch.tensor([[0.7, -1.2]], dtype=torch.float64)
    noise = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    alpha, alpha_end = (1 - first, 1 - there.sigmas[-1]) if flow else (1.0, 1.0)
    got = sample(lambda x, sigma: picture, alpha * picture + first * noise, there)
    torch.testing.assert_close(got, alpha_end * picture + there.sigmas[-1] * noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["digits-eps-cfg3", "digits-flow-cfg3"])
def test_a_shipped_table_is_itself_on_its_own_levels(name):
    shipped = preset_file.load(shipped_folder() / f"{name}.safetensors")
    for table in shipped.tables.values():
        assert adapted(table, table.sigmas.copy(), shipped.model.flow).same_as(table)
        almost = table.sigmas * np.where(np.arange(table.calls + 1) % 2, 1 + 1e-13, 1)      # through all the formulas
        assert difference(adapted(table, almost, shipped.model.flow), table) < 1e-11


@anything
def test_numbers_move_no_further_than_the_levels(calls, flow, end, seed, by):
    table = learned(calls, flow, end, seed)
    little = table.sigmas + 1e-7 * (moved(table, by, seed) - table.sigmas)
    assert difference(adapted(table, little, flow), table) < 1e-4


@given(calls=st.integers(1, 8), flow=st.booleans(), end=st.sampled_from([0.0, 0.02]), seed=st.integers(0, 10 ** 6))
def test_there_and_back_is_the_same_table(calls, flow, end, seed):
    table = learned(calls, flow, end, seed, spread=0.1)
    there = adapted(table, moved(table, 0.5, seed), flow)
    free = table.query < table.sigmas[0]                        # a clipped query cannot come back
    back = adapted(there, table.sigmas, flow)
    np.testing.assert_allclose(back.weights, table.weights, atol=1e-10)
    np.testing.assert_allclose(back.query[free & (there.query < there.sigmas[0])],
                               table.query[free & (there.query < there.sigmas[0])], rtol=1e-12)


@pytest.mark.parametrize("flow", [False, True])
def test_dpmpp_2m_anywhere_is_dpmpp_2m_there(flow):
    table = classical.dpmpp_2m(levels(6, flow), flow)
    elsewhere = moved(table, 0.8, 3)
    assert difference(adapted(table, elsewhere, flow), classical.dpmpp_2m(elsewhere, flow)) < 1e-12


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("base", ["unipc_bh2_2", "lms_2", "deis_2", "ipndm_2"])
def test_a_moved_second_order_method_stays_well_ahead_of_euler(base, flow, noise):
    def end(table):
        return sample(partial(mixture, flow=flow), noise * table.sigmas[0], table)
    table = classical.SOLVERS[base](levels(12, flow), flow)
    there = adapted(table, moved(table, 0.3, 1), flow)
    exact = end(classical.dpmpp_3m(levels(400, flow), flow))
    assert (end(there) - exact).norm() < 0.7 * (end(classical.euler(there.sigmas.copy(), flow)) - exact).norm()


def test_a_query_is_never_above_the_highest_level():
    table = learned(5, False)
    query = np.minimum(table.sigmas[:-1] * 1.3, table.sigmas[0])
    raised = Table(table.sigmas, query, table.scale, table.carry, table.weights)
    lower = adapted(raised, adapt.from_start(table.sigmas, 9.0, False), False)
    assert lower.query.max() <= 14.6
    np.testing.assert_allclose(lower.query[2:] / lower.sigmas[2:-1], 1.3)


def test_a_table_that_breaks_the_law_stays_marked():
    table = learned(4, False)
    weights = table.weights.copy()
    weights[-1, -1] += 0.1
    broken = Table(table.sigmas, table.query, table.scale, table.carry, weights, keeps_constants=False)
    there = adapted(broken, moved(broken, 0.3, 0), False)
    assert not there.keeps_constants and 0.01 < constant_law_error(there) < 1


def test_what_cannot_be_moved_is_refused_in_words():
    table, windowed = learned(4, False), learned(4, False, end=0.02)
    with pytest.raises(ValueError, match="5 steps to 0 were given to a table of 4 calls to 0: it can be moved"):
        adapted(table, levels(5, False), False)
    with pytest.raises(ValueError, match="4 steps to 0.02 were given to a table of 4 calls to 0:"):
        adapted(table, windowed.sigmas, False)
    with pytest.raises(ValueError, match="4 steps to 0 were given to a table of 4 calls to 0.02:"):
        adapted(windowed, table.sigmas, False)
    for bad in ([3, 4, 2, 1, 0], [3, 2, 2, 1, 0], [3, 2, 1, np.nan, 0], [4, 3, 2, 1, -1]):
        with pytest.raises(ValueError, match="the given levels do not fall strictly|must fall strictly to an end of"):
            adapted(table, bad, False)
    heun = classical.heun(levels(3, False))
    with pytest.raises(ValueError, match="the table's levels do not fall strictly"):
        adapted(heun, levels(heun.calls, False), False)


# --- heads ----------------------------------------------------------------------------------------------------

@given(calls=st.integers(2, 8), rows=st.integers(1, 7), flow=st.booleans(), seed=st.integers(0, 10 ** 6))
def test_a_head_obeys_the_constant_law_at_its_own_end(calls, rows, flow, seed):
    table = learned(calls, flow, seed=seed)
    rows = min(rows, calls - 1)
    first = adapt.head(table, rows, flow)
    assert first.calls == rows and constant_law_error(first) < 1e-12
    assert np.array_equal(first.sigmas, table.sigmas[:rows + 1]) and np.array_equal(first.query, table.query[:rows])
    moved_weights = first.weights - table.weights[:rows, :rows]
    moved_weights[-1, -1] = 0
    assert not moved_weights.any()


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc_bh2_2", "lms_3"])
def test_the_head_of_a_classical_table_is_its_first_rows(name, flow, noise):
    """Classical rows obey the law already: a head and the rest is the whole run."""
    whole = classical.SOLVERS[name](levels(6, flow), flow)
    first = adapt.head(whole, 3, flow)
    states = {}
    sample(partial(mixture, flow=flow), noise * whole.sigmas[0], whole,
           on_call=lambda i, x, row, denoised: states.update({i: x}))
    got = sample(partial(mixture, flow=flow), noise * whole.sigmas[0], first)
    torch.testing.assert_close(got, states[3], rtol=0, atol=1e-10)


# --- other starts -------------------------------------------------------------------------------------------

@given(calls=st.integers(1, 12), flow=st.booleans(), start=st.floats(0.01, 1.0))
def test_levels_from_another_start_fall_from_it_to_0(calls, flow, start):
    made = adapt.from_start(levels(calls, flow), start, flow)
    assert made[0] == start and made[-1] == 0 and bool((np.diff(made) < 0).all())


@pytest.mark.parametrize("flow", [False, True])
def test_levels_from_their_own_start_are_themselves(flow):
    np.testing.assert_allclose(adapt.from_start(levels(6, flow), levels(6, flow)[0], flow), levels(6, flow), rtol=1e-12)


def test_the_last_level_stays_where_the_start_moves_and_noise_stays_noise():
    eps = levels(6, False)
    moved_levels = adapt.from_start(eps, 9.0, False)
    assert moved_levels[-2] == pytest.approx(eps[-2]) and bool((moved_levels[:-2] < eps[:-2]).all())
    endless = np.append(4518.8, eps[1:])
    np.testing.assert_allclose(adapt.from_start(endless, 4000.0, False)[1:], eps[1:], rtol=1e-3)


def test_starts_are_compared_by_noise_to_signal():
    assert adapt.start_ratio(2.0, 1.0, False) == adapt.start_ratio(1.0, 2.0, False) == 2
    assert adapt.start_ratio(2 / 3, 0.5, True) == pytest.approx(2) and adapt.start_ratio(1.0, 0.9, True) > 1e6
    assert adapt.start_ratio(1.0, 1.0, True) == 1


def test_the_distance_is_the_mean_ratio_between_the_ends():
    assert adapt.distance([9, 4, 2, 0], [8, 2, 2, 0]) == pytest.approx(np.log(2) / 2)
    assert adapt.distance([9, 0], [8, 0]) == 0


def test_a_flow_that_starts_a_hair_below_pure_noise_moves_to_it():
    """Optimal Steps' grid for Flux starts at 0.9968, a host's schedule at 1: both are noise and nothing else."""
    levels = schedules.published("oss_flux", 10)
    made = Preset("grid", {"calls10": classical.euler(levels, True)}, Model("flux", "flow", 0.001, 1.0, channels=16))
    facts = ModelFacts("flux", "flow", 0.001, 1.0, channels=16, shift=3.0)
    found = table_for(schedules.linear_flow(10, 3.0), facts, made, own_schedule=True)
    assert (found.kind, found.table_name, found.table.sigmas[0]) == ("adapted", "calls10", 1.0)
    np.testing.assert_allclose(found.table.sigmas[1:], levels[1:] / levels[0], rtol=1e-12)
