"""Schedules against k-diffusion, against the hosts' definitions; the published grids against their file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from s4s.s4s_nodes.core import classical, schedules

SD = schedules.sd_levels()
PUBLISHED = json.loads((Path(schedules.__file__).parent / "published.json").read_text(encoding="utf-8"))

EVERY = {
    "karras": lambda calls: schedules.karras(calls, 0.0292, 14.6),
    "exponential": lambda calls: schedules.exponential(calls, 0.0292, 14.6),
    "polyexponential": lambda calls: schedules.exponential(calls, 0.0292, 14.6, rho=1.7),
    "kl_optimal": lambda calls: schedules.kl_optimal(calls, 0.0292, 14.6),
    "simple": lambda calls: schedules.simple(calls, SD),
    "time_uniform": lambda calls: schedules.time_uniform(calls, SD),
    "time_quadratic": lambda calls: schedules.time_quadratic(calls, SD),
    "sgm_uniform": lambda calls: schedules.sgm_uniform(calls, SD),
    "beta": lambda calls: schedules.beta(calls, SD),
    "beta57": lambda calls: schedules.beta(calls, SD, 0.5, 0.7),
    "laplace": lambda calls: schedules.laplace(calls, 0.0292, 14.6),
    "linear_quadratic": lambda calls: schedules.linear_quadratic(calls, 14.6),
    "bong_tangent, a flow": schedules.bong_tangent,
    "ltxv, a flow": schedules.ltxv,
    "flux2, a flow": schedules.flux2,
    "whole_list": lambda calls: schedules.whole_list("ays_32_sd1", calls),
    "linear_flow": lambda calls: schedules.linear_flow(calls, 3.0),
    "simple on a flow": lambda calls: schedules.simple(calls, schedules.flow_levels(3.0)),
    "published": lambda calls: schedules.published("ays_sdxl", calls),
    "stretched": lambda calls: schedules.stretched(schedules.karras(6, 0.0292, 14.6), calls, False),
}


@pytest.mark.parametrize("calls", [1, 2, 3, 10, 50])
@pytest.mark.parametrize("ours, theirs, options", [
    ("karras", "get_sigmas_karras", {}), ("karras", "get_sigmas_karras", {"rho": 3.0}),
    ("exponential", "get_sigmas_exponential", {}), ("exponential", "get_sigmas_polyexponential", {}),
    ("exponential", "get_sigmas_polyexponential", {"rho": 1.7})])
def test_the_schedules_of_k_diffusion(ours, theirs, options, calls, k_diffusion_sampling):
    expected = getattr(k_diffusion_sampling, theirs)(calls, 0.0292, 14.6146, **options)
    got = getattr(schedules, ours)(calls, 0.0292, 14.6146, **options)
    np.testing.assert_allclose(got, expected.double().numpy(), rtol=3e-6)  # theirs is float32, to the power 7


@pytest.mark.parametrize("calls", [1, 2, 3, 10, 37])
def test_time_uniform_is_the_discrete_schedule_of_k_diffusion(calls, k_diffusion_external):
    discrete = k_diffusion_external.DiscreteSchedule(torch.from_numpy(SD), quantize=False)
    expected = discrete.get_sigmas(calls).numpy()
    np.testing.assert_allclose(schedules.time_uniform(calls, SD), expected, rtol=1e-6)  # its t is float32


def test_level_at_is_the_clock_of_k_diffusion(k_diffusion_external):
    discrete = k_diffusion_external.DiscreteSchedule(torch.from_numpy(SD), quantize=False)
    position = torch.tensor([0.0, 0.25, 1.0, 499.5, 998.75, 999.0])
    got = schedules.level_at(SD, position.numpy())
    np.testing.assert_allclose(got, discrete.t_to_sigma(position), rtol=1e-12)


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 10, 20, 30])
def test_simple_takes_every_stride_th_level_from_the_top_as_the_hosts_do(calls):
    expected = [SD[len(SD) - 1 - int(k * len(SD) / calls)] for k in range(calls)] + [0.0]
    assert schedules.simple(calls, SD).tolist() == expected


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 10, 20, 30])
def test_sgm_uniform_leaves_out_the_last_of_one_more_time(calls):
    clock = [999 - 999 * k / calls for k in range(calls)]           # linspace(999, 0, calls + 1) less its end
    expected = [float(np.exp(np.interp(t, np.arange(1000), np.log(SD)))) for t in clock] + [0.0]
    np.testing.assert_allclose(schedules.sgm_uniform(calls, SD), expected, rtol=1e-13)


@pytest.mark.parametrize("calls", [1, 2, 3, 7, 10, 20, 30])
@pytest.mark.parametrize("alpha, beta", [(0.6, 0.6), (0.5, 0.7), (1.0, 0.5)])
def test_beta_takes_the_levels_at_rounded_quantiles(calls, alpha, beta):
    scipy_stats = pytest.importorskip("scipy.stats")
    index = [int(np.rint(scipy_stats.beta.ppf(1 - k / calls, alpha, beta) * 999)) for k in range(calls)]
    assert schedules.beta(calls, SD, alpha, beta).tolist() == [*SD[index], 0.0]


@pytest.mark.parametrize("calls", [2, 3, 6, 10, 25])
def test_laplace_is_the_quantile_of_the_laplace_distribution(calls):
    from scipy.stats import laplace
    shares = np.clip(np.linspace(1, 0, calls), 5e-6, 1 - 5e-6)                  # its 1e-5 against log 0
    expected = np.clip(np.exp(laplace.ppf(shares, scale=0.5)), 0.0292, 14.6)
    np.testing.assert_allclose(schedules.laplace(calls, 0.0292, 14.6)[:-1], expected, rtol=1e-4)


def test_linear_quadratic_is_even_at_first_and_joins_its_parabola_smoothly():
    levels = schedules.linear_quadratic(20, 14.6) / 14.6
    np.testing.assert_allclose(levels[:11], 1 - 0.0025 * np.arange(11), rtol=1e-12)
    np.testing.assert_allclose(np.diff(levels[9:], 3)[1:], 0, atol=1e-12)       # a parabola
    assert levels[-1] == 0


def test_bong_tangent_meets_in_the_middle_and_falls_most_there():
    levels = schedules.bong_tangent(20)
    assert levels[0] == 1 and levels[12] == pytest.approx(0.5) and int(np.argmin(np.diff(levels))) in (11, 12)


def test_ltxv_ends_at_a_tenth_and_keeps_the_odds_of_its_steps():
    levels, plain = schedules.ltxv(8), schedules.linear_flow(8, np.exp(2.05))
    assert levels[0] == 1 and levels[-2] == pytest.approx(0.1) and levels[-1] == 0
    np.testing.assert_allclose((1 - levels[1:-1]) / (1 - plain[1:-1]), 0.9 / (1 - plain[-2]), rtol=1e-12)


def test_flux2_shifts_less_the_more_steps_and_by_the_size_alone_above_4300_tokens():
    def shift(calls, tokens):
        level = schedules.flux2(calls, tokens)[1]
        return level / (1 - level) * 1 / (calls - 1)
    assert np.log(shift(10, 4096)) == pytest.approx(8.73809524e-05 * 4096 + 1.89833333)
    assert np.log(shift(200, 4096)) == pytest.approx(0.00016927 * 4096 + 0.45666666)
    assert shift(10, 8000) == pytest.approx(shift(50, 8000))


def test_a_whole_list_ends_behind_its_own_last_level():
    table = PUBLISHED["ays_32_sdxl"]["tables"][0]
    np.testing.assert_allclose(schedules.whole_list("ays_32_sdxl", 32), [*table, 0.0], rtol=1e-12)
    ends = np.array(PUBLISHED["ays_sd1"]["tables"][0])[[0, -1]]
    np.testing.assert_allclose(schedules.whole_list("ays_sd1", 6)[[0, -2]], ends)


def test_beta_refuses_what_rounding_would_repeat():
    pytest.importorskip("scipy.stats")
    with pytest.raises(ValueError, match="cannot place 12 different levels on a model that has 10"):
        schedules.beta(12, np.linspace(0.1, 1, 10))


def test_the_levels_of_stable_diffusion():
    assert len(SD) == 1000 and bool((np.diff(SD) > 0).all())
    assert (round(SD[0], 4), round(SD[-1], 4)) == (0.0292, 14.6146)


def test_zero_terminal_snr_keeps_the_first_level_and_scales_the_signal():
    """Lin et al. (2024), Alg. 1: sqrt(alpha_bar) is shifted to end at 0 and scaled to begin where it began."""
    levels = schedules.zero_snr_levels(4518.8)
    signal, before = 1 / np.sqrt(1 + levels ** 2), 1 / np.sqrt(1 + SD ** 2)
    assert levels[0] == pytest.approx(SD[0]) and levels[-1] == 4518.8 and bool((np.diff(levels) > 0).all())
    scaled = (before[:-1] - before[-1]) / (before[0] - before[-1])
    np.testing.assert_allclose(signal[:-1] / signal[0], scaled, rtol=1e-9)


@pytest.mark.parametrize("shift", [1.0, 3.0, 12.0])
def test_a_flow_is_shifted_in_its_odds(shift):
    """s / (1 - s) = shift t / (1 - t), which is what multiplying the noise-to-signal ratio means."""
    *levels, top = schedules.flow_levels(shift)
    odds = np.array(levels) / (1 - np.array(levels))
    np.testing.assert_allclose(odds, shift * np.arange(1, 1000) / np.arange(999, 0, -1), rtol=1e-9)
    assert top == 1
    got = schedules.linear_flow(4, shift)
    assert got[0] == 1 and got[-1] == 0
    np.testing.assert_allclose(got[1:-1] / (1 - got[1:-1]), shift * np.array([3, 1, 1 / 3]), rtol=1e-12)


@given(calls=st.integers(1, 60), name=st.sampled_from(sorted(EVERY)))
def test_every_schedule_falls_strictly_to_zero_and_makes_tables(calls, name):
    sigmas = EVERY[name](calls)
    assert sigmas.dtype == np.float64 and sigmas.shape == (calls + 1,)
    assert sigmas[-1] == 0 and bool((np.diff(sigmas) < 0).all())
    assert classical.dpmpp_2m(sigmas, flow="flow" in name).calls == calls


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("calls", [0, -3, 2.5, 2.0, True, False, "4", None, float("nan"), float("inf")])
def test_what_is_no_number_of_calls_is_refused(name, calls):
    with pytest.raises(ValueError, match="calls asked for: a schedule needs a whole number of at least 1"):
        EVERY[name](calls)


def test_numpy_integers_are_numbers_of_calls():
    for name, make in EVERY.items():
        assert make(np.int64(4)).tolist() == make(4).tolist(), name


def test_the_ends_of_a_schedule_are_the_levels_asked_for():
    for name in ("karras", "exponential", "polyexponential", "kl_optimal"):
        sigmas = EVERY[name](8)
        np.testing.assert_allclose(sigmas[[0, -2]], [14.6, 0.0292], rtol=1e-12, err_msg=name)


# --- a schedule for another number of calls -----------------------------------------------------------------

CURVES = {False: [14.6, 7.0, 4.1, 2.6, 1.5, 0.8, 0.3, 0.07, 0.0], True: [1.0, 0.9, 0.8, 0.7, 0.6, 0.4, 0.2, 0.05, 0.0]}


@pytest.mark.parametrize("flow", [False, True])
def test_stretched_to_its_own_number_of_calls_a_schedule_is_itself(flow):
    assert schedules.stretched(CURVES[flow], 8, flow).tolist() == CURVES[flow]


@pytest.mark.parametrize("flow", [False, True])
def test_half_and_double_the_calls_share_their_levels(flow):
    curve = np.array(CURVES[flow])
    even = (lambda s: s) if flow else np.arctan
    np.testing.assert_allclose(schedules.stretched(curve, 4, flow), curve[::2], rtol=1e-12)
    double = schedules.stretched(curve, 16, flow)
    np.testing.assert_allclose(double[::2], curve, rtol=1e-12)
    np.testing.assert_allclose(even(double[1::2]), (even(curve[1:]) + even(curve[:-1])) / 2, rtol=1e-12)


@given(calls=st.integers(1, 1000), flow=st.booleans(), top=st.sampled_from([1.0, 14.6, 80.0, 4518.8, 1e6]))
def test_a_stretched_schedule_falls_strictly_between_the_same_ends(calls, flow, top):
    curve = np.array(CURVES[flow]) * (1 if flow else top / 14.6)
    sigmas = schedules.stretched(curve, calls, flow)
    assert len(sigmas) == calls + 1 and bool((np.diff(sigmas) < 0).all())
    assert sigmas[0] == curve[0] and sigmas[-1] == curve[-1]


def test_a_stretched_schedule_is_a_fresh_array():
    curve = np.array(CURVES[False])
    schedules.stretched(curve, 8, False)[0] = 7
    assert curve[0] == 14.6


# --- published grids ----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", schedules.published_grids())
def test_a_published_grid_is_its_own_table_where_it_has_one(name):
    assert schedules.published_counts(name)
    for table in PUBLISHED[name]["tables"]:
        sigmas = schedules.published(name, len(table) - 1)
        np.testing.assert_allclose(sigmas[:-1], table[:-1], rtol=1e-12)
        assert sigmas[-1] == 0 and bool((np.diff(sigmas) < 0).all())


@pytest.mark.parametrize("name", schedules.published_grids())
def test_a_published_grid_is_stretched_elsewhere(name):
    for calls in (1, 2, 5, 13, 50):
        sigmas = schedules.published(name, calls)
        assert len(sigmas) == calls + 1 and sigmas[-1] == 0 and bool((np.diff(sigmas) < 0).all())
        assert sigmas[0] == pytest.approx(PUBLISHED[name]["tables"][0][0])


def test_stretching_is_even_in_the_index_and_linear_in_the_logarithm():
    table = np.array(PUBLISHED["ays_sd1"]["tables"][0])               # 10 calls; 20 put one level between two
    sigmas = schedules.published("ays_sd1", 20)
    np.testing.assert_allclose(sigmas[:-1:2], table[:-1], rtol=1e-12)
    np.testing.assert_allclose(sigmas[1::2], np.sqrt(table[1:] * table[:-1]), rtol=1e-12)


def test_published_counts_are_all_different():
    for name, grid in PUBLISHED.items():
        assert schedules.published_counts(name) == tuple(sorted({len(table) - 1 for table in grid["tables"]}))
        assert len(grid["tables"]) == len(schedules.published_counts(name))


def test_every_published_grid_names_its_source_and_licence():
    for name, grid in PUBLISHED.items():
        assert "arXiv" in grid["source"] and grid["licence"], name
        assert grid["kind"] in ("sigma", "flow"), name
        tops = [table[0] for table in grid["tables"]]
        assert max(tops) <= 1 if grid["kind"] == "flow" else min(tops) > 10, name


def test_an_unknown_grid_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match="unknown published grid 'ays_sd9'; there are: ays_sd1, ays_sdxl"):
        schedules.published("ays_sd9", 10)


def test_a_published_grid_is_a_fresh_array_each_time():
    schedules.published("ays_sd1", 10)[0] = 7
    assert schedules.published("ays_sd1", 10)[0] == pytest.approx(14.6146, abs=1e-4)
