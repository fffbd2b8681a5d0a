"""Every family's table is the paper's formula, run step by step on images with the same free numbers."""

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, constant_law_error, mixture, sample
from s4s.s4s_nodes.core.classical import log_snr
from s4s.training.distil import distil
from s4s.training.optimizers.gradient import loss_and_gradient
from s4s.training.optimizers.objective import OBJECTIVES
from s4s.training.parametrization import families
from s4s.training.teacher.pairs import known_pairs
from tests.toy import small, toy_source
from tests.training.formula import (
    BASES,
    PAIRS,
    Formula,
    levels,
    made,
    newest,
    numbers,
    random_vector,
    sampled,
    start_states,
    weighed,
)


@pytest.mark.parametrize("flow", [False, True])
def test_multistep_is_equation_five_in_data_prediction(flow):
    parameters = made("lms", "euler", flow=flow, order=3)              # whose own coefficients are 1 on the newest
    vector = random_vector(parameters)
    table, (extra, _) = parameters.frozen(vector), numbers(parameters, vector)
    paper, x, seen = Formula(table, flow), start_states(flow), []
    for i in range(table.calls):
        seen.append(paper.denoised(x, i))
        delta = seen[-1] + weighed(extra, i, seen)
        x = paper.move(x, i, i + 1, delta) if i + 1 < table.calls else newest(parameters, table, i, seen)
    torch.testing.assert_close(sampled(table, flow), x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("order", [0, 2])
@pytest.mark.parametrize("base", ["euler", "unipc_bh2_2"])
@pytest.mark.parametrize("flow", [False, True])
def test_the_corrector_uses_the_call_at_the_predicted_point_and_the_next_step_starts_there(flow, base, order):
    parameters = made("pc", base, flow=flow, order=order)
    vector = random_vector(parameters, 0.1)
    table, (predictor, corrector) = parameters.frozen(vector), numbers(parameters, vector)
    paper, sigmas = Formula(table, flow), torch.tensor(table.sigmas)
    logs = log_snr._half_log_snr(sigmas, flow)
    shown = corrected = start_states(flow)
    seen, calls = [], table.calls

    def step(x, i, used, end=None):                                     # the base's own Delta, as a state
        if base == "euler":
            return paper.move(x, i, i + 1, seen[i])
        past = seen[:i + 1][::-1][:2]
        return log_snr._unipc_step(x, past, i, logs, sigmas, flow, "bh2", used, end)
    for i in range(calls):
        seen.append(paper.denoised(shown, i))
        if i:                                                           # x[i] from x[i-1], with D[i] seen at u[i]
            used = min(2, i, calls + 1 - i)
            corrected = step(corrected, i - 1, used, seen[i] if base != "euler" else None) \
                + (1 - sigmas[i] / sigmas[i - 1]) * weighed(corrector, i, seen)
        if i + 1 < calls:
            shown = step(corrected, i, min(2, i + 1, calls - i)) \
                + (1 - sigmas[i + 1] / sigmas[i]) * weighed(predictor, i, seen)
    end = newest(parameters, table, i, seen)
    torch.testing.assert_close(sampled(table, flow), end, rtol=1e-10, atol=1e-10)
    assert any(table.weights[2, :2] != parameters.frozen(parameters.initial()).weights[2, :2])


@pytest.mark.parametrize("calls", [6, 7, 8])
@pytest.mark.parametrize("flow", [False, True])
def test_single_steps_see_points_of_their_own(flow, calls):
    parameters = made("ss", "dpmpp_3s", calls, flow)
    vector = random_vector(parameters, 0.1)
    table, (extra, _) = parameters.frozen(vector), numbers(parameters, vector)
    paper, x, at = Formula(table, flow), start_states(flow), 0
    own = classical.single_step(torch.tensor(table.sigmas), flow, sizes=families.step_sizes("ss", "dpmpp_3s", calls))
    for size in families.step_sizes("ss", "dpmpp_3s", calls)[:-1]:
        seen, point = [], x
        for stage in range(size):
            seen.append(paper.denoised(point, at + stage))
            step = max(families.LEAST_STEP, 1 - table.sigmas[at + stage + 1] / table.sigmas[at])
            point = base_point(own, at, stage, x, seen) + step * sum(extra[at + stage, at + q] * d
                                                                     for q, d in enumerate(seen))
        x, at = point, at + size
    end = paper.denoised(x, at)
    torch.testing.assert_close(sampled(table, flow), end, rtol=1e-10, atol=1e-10)


def base_point(own, at, stage, x, seen):
    """DPM-Solver++'s own next point of a step from x, by its table's rows on these predictions."""
    for row in range(at, at + stage + 1):
        x = own.carry[row] * x + sum(own.weights[row, at + q] * d for q, d in enumerate(seen[:row - at + 1]))
    return x


def test_the_third_order_single_step_is_that_of_the_paper():
    """Lu et al. (2022), DPM-Solver-3 in data prediction, r1 = 1/3, r2 = 2/3, written out."""
    sigmas = classical.with_middles(np.array([5.0, 1.0, 0.0]), (3, 1), False)
    table = classical.single_step(sigmas, sizes=(3, 1))
    x = 5 * torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    s, s1, s2, t = sigmas[:4]
    h, r1, r2 = torch.log(s / t), 1 / 3, 2 / 3
    assert torch.log(s / s1) == pytest.approx(float(h) / 3) and torch.log(s / s2) == pytest.approx(2 * float(h) / 3)

    def denoised(x, sigma):
        return mixture(x, sigma.expand(len(x)))
    m = denoised(x, s)
    x1 = s1 / s * x - torch.expm1(-r1 * h) * m
    m1 = denoised(x1, s1)
    x2 = s2 / s * x - torch.expm1(-r2 * h) * m + r2 / r1 * (torch.expm1(-r2 * h) / (r2 * h) + 1) * (m1 - m)
    m2 = denoised(x2, s2)
    end = t / s * x - torch.expm1(-h) * m + 1 / r2 * (torch.expm1(-h) / h + 1) * (m2 - m)
    torch.testing.assert_close(sample(mixture, x, table), denoised(end, t), rtol=1e-12, atol=1e-12)


# ---------------------------------------------------------------------------- starts, laws, gradients

@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("family, base", PAIRS)
def test_each_family_starts_at_the_classical_solver(family, base, flow):
    for calls in (1, 2, 5, 7):
        parameters = made(family, base, calls, flow)
        table = parameters.frozen(parameters.initial())
        if family == "ss" and (base == "dpmpp_3s" or calls % 2 == 0):
            wanted = families.start_on(family, base, lambda steps: levels(steps, flow), calls, flow)
        else:
            steps = (calls + 1) // 2 if family == "ss" else calls
            wanted = classical.SOLVERS[base](levels(steps, flow), flow=flow)
        assert table.calls == wanted.calls == calls
        for part in ("sigmas", "query", "scale", "carry", "weights"):
            np.testing.assert_allclose(getattr(table, part), getattr(wanted, part), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("settings", [{}, {"learn": "generalized"}])
@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("family, base", PAIRS)
def test_no_free_number_breaks_the_constant_law_and_each_has_its_gradient(family, base, flow, settings):
    parameters = made(family, base, 5, flow, **settings)
    vector = random_vector(parameters)
    assert constant_law_error(parameters.frozen(vector)) < 1e-10
    where = random_vector(parameters, 0.1) - 0.1 * torch.ones(len(vector))       # queries below the highest level
    if base == BASES[family][0]:                                                 # and slow: one base of each
        assert torch.autograd.gradcheck(lambda v: torch.cat([part.flatten() for part in parameters.table(v)]),
                                        (where.requires_grad_(),), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("settings", [{"family": "pc", "base": "unipc_bh2_2"}, {"family": "ss", "base": "dpmpp_3s"},
                                      {"learn": "generalized"}])
@pytest.mark.parametrize("flow", [False, True])
def test_the_gradient_through_the_sampler_equals_central_differences(settings, flow):
    settings = {"family": "lms", "base": "dpmpp_2m", **settings}
    parameters = made(calls=5, flow=flow, **settings)
    source, seeds = toy_source(flow), range(4)
    pairs = known_pairs(source, seeds, torch.zeros(4, 2, dtype=torch.float64))
    pairs.noise = pairs.noise.double()
    vector = random_vector(parameters, 0.1)
    vector[4] = -0.1                                            # the first query, below the model's highest level
    _, gradient = loss_and_gradient(source, parameters, vector, pairs, OBJECTIVES["rmse"])
    for i in range(len(vector)):
        nudge = 1e-5 * torch.eye(len(vector), dtype=torch.float64)[i]
        ahead, behind = (loss_and_gradient(source, parameters, vector + s * nudge, pairs, OBJECTIVES["rmse"])[0]
                         for s in (1, -1))
        assert gradient[i] == pytest.approx((ahead - behind) / 2e-5, rel=1e-4, abs=1e-7)


# ---------------------------------------------------------------------------- counts and refusals

def test_the_free_numbers_of_each_family_are_counted():
    assert made("lms", "dpmpp_2m", order=3).sizes[2] == 3 * 6 - 3 - 1          # the paper's 3N - 3, less the law's
    assert made("pc", "unipc_bh2_3", order=3).sizes[2] == 14 + (2 + 3 + 4 + 4)         # corrections after calls 1 to 4
    assert families.step_sizes("ss", "dpmpp_2s", 6) == (2, 2, 1, 1)
    assert families.step_sizes("ss", "dpmpp_3s", 7) == (3, 3, 1) and families.step_sizes("ss", "dpm_2", 1) == (1,)
    assert made("ss", "dpmpp_2s", 7).sizes[2] == 3 * 3 and made("ss", "dpmpp_3s", 7).sizes[2] == 2 * 6


@pytest.mark.parametrize("family, base, order, words", [
    ("lms", "dpmpp_2s", 0, "one call per step"), ("ss", "dpmpp_2m", 0, "single-step solver: dpm_2, dpmpp_2s, dpmpp_3s"),
    ("ss", "dpmpp_2s", 3, "makes 2 calls"), ("rk", "auto", 0, "lms, pc, ss")])
def test_bases_a_family_cannot_start_from_are_refused(family, base, order, words):
    with pytest.raises(ValueError, match=words):
        small(family=family, base=base, order=order)


# ---------------------------------------------------------------------------- runs

@pytest.mark.parametrize("flow, settings", [
    (False, {"family": "pc"}), (True, {"family": "ss", "order": 3}),
    (False, {"learn": "generalized"}), (True, {"family": "pc", "learn": "coefficients"}),
    (False, {"family": "ss", "windows": (1.0, 0.5), "schedule": "auto"}),
    (True, {"schedule": "gits", "family": "pc", "learn": "generalized"})])
def test_every_family_learns_within_its_budget(tmp_path, settings, flow):
    source = toy_source(flow)
    config = small(**{**dict(budget=5_000, iterations=0, pairs=256, validation=64, calls=(5,)),
                      **settings})
    preset = distil(source, config, tmp_path)
    assert source.model_calls <= config.budget * len(preset.tables) + source.chunk
    for name, (began, ended) in preset.training["held_out_rmse"].items():
        assert ended < began, name
    assert preset.training["family"] == config.table.family and preset.training["base"] == config.table.base
