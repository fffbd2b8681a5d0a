"""The classical solvers nobody publishes as a library (iPNDM, DEIS tab), the registry, the refusals."""

from functools import partial

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import MAX_CALLS, classical, mixture, sample, schedules
from s4s.s4s_nodes.core.classical import log_snr

ADAMS_BASHFORTH = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12],
                   4: [55 / 24, -59 / 24, 37 / 24, -9 / 24]}


def multistep(denoiser, x, sigmas, weights_of):
    """x' = x + sum_k weights_of(i, count)[k] d_k, newest slope first, as the hosts write it."""
    slopes = []
    for i in range(len(sigmas) - 1):
        denoised = denoiser(x, torch.full((len(x),), sigmas[i], dtype=x.dtype))
        slopes.insert(0, (x - denoised) / sigmas[i])
        x = denoised if sigmas[i + 1] == 0 else x + sum(w * d for w, d in zip(weights_of(i), slopes))
    return x


def ipndm_weights(sigmas, order: int):
    return lambda i: (sigmas[i + 1] - sigmas[i]) * np.array(ADAMS_BASHFORTH[min(order, i + 1)])


def deis_weights(sigmas, order: int, points: int = 40_000):
    """int l_j(t) dsigma by brute force; t is the VP clock with sigma(1e-3) = 0.002, sigma(1) = 80."""
    beta_d = 2 * (np.log1p(0.002 ** 2) / 1e-3 - np.log1p(80.0 ** 2)) / (1e-3 - 1)
    beta_min = np.log1p(80.0 ** 2) - beta_d / 2

    def sigma_at(t):
        return np.sqrt(np.expm1(beta_d * t ** 2 / 2 + beta_min * t))
    times = (np.sqrt(beta_min ** 2 + 2 * beta_d * np.log1p(np.square(sigmas))) - beta_min) / beta_d
    np.testing.assert_allclose(sigma_at(times[:-1]), sigmas[:-1], rtol=1e-9)

    def weights(i):
        nodes = [times[i - k] for k in range(min(order, i + 1))]
        edges = np.linspace(times[i], times[i + 1], points + 1)
        middles, widths = (edges[1:] + edges[:-1]) / 2, np.diff(sigma_at(edges))
        basis = [np.prod([(middles - a) / (b - a) for a in nodes if a != b], axis=0) for b in nodes]
        return [(values * widths).sum() for values in basis]
    return weights


@pytest.mark.parametrize("flow, sigmas", [
    (False, schedules.karras(7, 0.03, 14.6)), (False, np.geomspace(9, 0.3, 6)), (False, np.array([5.0, 0.0])),
    (True, schedules.linear_flow(7, 3.0))], ids=["karras", "ends-above-0", "one-step", "flow"])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_ipndm_is_adams_bashforth_for_equal_steps(order, flow, sigmas, noise):
    x, denoiser = sigmas[0] * noise, partial(mixture, flow=flow)
    expected = multistep(denoiser, x, sigmas, ipndm_weights(sigmas, order))
    torch.testing.assert_close(sample(denoiser, x, classical.ipndm(sigmas, flow=flow, order=order)), expected,
                               rtol=0, atol=1e-11)


@pytest.mark.parametrize("flow, sigmas", [
    (False, schedules.karras(6, 0.03, 14.6)), (False, np.geomspace(70, 0.004, 9)),
    (True, schedules.linear_flow(6, 3.0))], ids=["karras", "wide", "flow"])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_deis_integrates_what_brute_force_integrates(order, flow, sigmas, noise):
    x, denoiser = sigmas[0] * noise, partial(mixture, flow=flow)
    expected = multistep(denoiser, x, sigmas, deis_weights(sigmas, order))
    # the midpoint rule on 40,000 cells is right to 1e-11, and 24 Gauss points are better still
    torch.testing.assert_close(sample(denoiser, x, classical.deis(sigmas, flow=flow, order=order)), expected,
                               rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_rows_are_network_calls(name, noise):
    solver, asked = classical.SOLVERS[name], []

    def count(x, sigma):
        asked.append(float(sigma[0]))
        return mixture(x, sigma)
    sigmas = schedules.karras(5, 0.1, 10)
    table = solver(sigmas)
    sample(count, noise, table)
    assert table.calls == len(table.rows) == len(asked) == len(table.query)
    calls = 12 if name == "heunpp2" else {1: 5, 2: 9, 3: 13}[solver.calls_per_step]     # one for the step to 0
    assert table.calls == calls
    assert asked == table.query.tolist() and set(asked) >= set(sigmas[:-1].tolist())


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_a_constant_is_reproduced_to_the_last_bit_but_rounding(name, flow):
    sigmas = schedules.linear_flow(12, 3.0) if flow else schedules.exponential(12, 0.002, 80.0)
    picture = torch.tensor([[0.3, -2.0]], dtype=torch.float64)
    noise = torch.tensor([[1.7, -0.6]], dtype=torch.float64)
    start = (1 - sigmas[0]) * picture + sigmas[0] * noise if flow else picture + sigmas[0] * noise
    end = sample(lambda x, sigma: picture, start, classical.SOLVERS[name](sigmas, flow=flow))
    torch.testing.assert_close(end, picture, rtol=0, atol=1e-12)


def test_solvers_that_coincide_by_theory_coincide():
    """DPM-Solver++ 1S = DDIM = Euler = UniP-1; flow Euler has the very same numbers."""
    sigmas = 0.9 * schedules.linear_flow(6)
    euler = classical.euler(sigmas)
    for same in (classical.euler(sigmas, flow=True), classical.lms(sigmas, order=1),
                 classical.deis(sigmas, order=1), classical.ipndm(sigmas, order=1)):
        np.testing.assert_allclose(same.weights, euler.weights, rtol=0, atol=1e-15)
        np.testing.assert_allclose(same.carry, euler.carry, rtol=0, atol=1e-15)
    equal_steps = np.linspace(0.9, 0.3, 7)
    lms, ipndm = classical.lms(equal_steps, order=4), classical.ipndm(equal_steps, order=4)
    np.testing.assert_allclose(lms.weights, ipndm.weights, rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_one_to_three_steps_work_to_zero_and_above(name, flow, steps, noise):
    for end in (0.0, 0.2):
        sigmas = np.linspace(1.0, end, steps + 1)
        got = sample(partial(mixture, flow=flow), noise, classical.SOLVERS[name](sigmas, flow=flow))
        assert torch.isfinite(got).all()


def test_a_flow_whose_first_levels_crowd_at_one_is_sampled_as_well_as_any(noise):
    """As of a teacher with many steps and a large shift: the second level lies above FLOW_TOP."""
    sigmas = np.concatenate([[1.0], 1 / (1 + np.exp(-np.linspace(11, -6, 150))), [0.0]])
    assert sigmas[1] > log_snr.FLOW_TOP
    denoiser = partial(mixture, flow=True)
    reference = sample(denoiser, noise, classical.heun(sigmas))
    for solver in (classical.dpmpp_2m, classical.dpmpp_2s, classical.dpmpp_3m, classical.unipc):
        end = sample(denoiser, noise, solver(sigmas, flow=True))
        torch.testing.assert_close(end, reference, rtol=0, atol=2e-3)       # second order at 150 steps


def test_the_same_levels_again_give_the_table_made_before():
    sigmas = schedules.karras(6, 0.03, 14.6)
    made = classical.dpmpp_2m(sigmas)
    assert classical.dpmpp_2m(torch.tensor(sigmas)) is made and classical.dpmpp_2m(sigmas[1:]) is not made


def test_a_thousand_steps_make_a_table():
    sigmas = np.linspace(10, 0, MAX_CALLS + 1)
    assert classical.dpmpp_2m(sigmas).calls == MAX_CALLS


def test_levels_may_come_as_list_array_or_tensor_of_any_dtype():
    wanted = classical.unipc([4.0, 2.0, 1.0, 0.0])
    for levels in (np.array([4, 2, 1, 0]), torch.tensor([4, 2, 1, 0], dtype=torch.float16), (4, 2, 1, 0)):
        assert classical.unipc(levels).same_as(wanted)


REFUSED = {
    "one level": (partial(classical.euler, [1.0]), "at least two levels"),
    "no level": (partial(classical.dpmpp_2m, []), "at least two levels"),
    "a table of levels": (partial(classical.heun, [[1.0, 0.0]]), r"shape \(1, 2\)"),
    "rising levels": (partial(classical.dpmpp_2m, [1.0, 2.0, 0.0]), "must fall strictly"),
    "repeated levels": (partial(classical.lms, [2.0, 1.0, 1.0, 0.0]), "must fall strictly"),
    "a negative end": (partial(classical.unipc, [2.0, 1.0, -1.0]), "end of at least 0"),
    "NaN": (partial(classical.deis, [2.0, float("nan"), 0.0]), "NaN or infinity"),
    "infinity": (partial(classical.ipndm, [float("inf"), 1.0, 0.0]), "NaN or infinity"),
    "too many steps": (partial(classical.euler, np.linspace(1, 0, MAX_CALLS + 2)), "1001 steps.*most 1000"),
    "flow levels above 1": (partial(classical.dpmpp_2m, [14.6, 1.0, 0.0], flow=True), "14.6.*from 1 to 0"),
    "lms of order 5": (partial(classical.lms, [1.0, 0.0], order=5), "orders 1 to 4"),
    "ipndm of order 0": (partial(classical.ipndm, [1.0, 0.0], order=0), "order 0 asked for"),
    "deis of half an order": (partial(classical.deis, [1.0, 0.0], order=2.5), "orders 1 to 4"),
    "unipc of order 4": (partial(classical.unipc, [1.0, 0.0], order=4), "orders 1 to 3"),
    "unipc of another kind": (partial(classical.unipc, [1.0, 0.0], kind="bh3"), "use bh1 or bh2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_table_is_refused_with_the_reason(case):
    make, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make()
