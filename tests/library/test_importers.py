"""Every imported table against a direct transcription of its authors' update, on an exact denoiser.

The transcriptions are written in the authors' own variables (VP states, network times, eps or velocity networks), the
tables are sampled by the core's loop in sigma.
"""

from __future__ import annotations

import ast
import json
import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from s4s.s4s_nodes import importers
from s4s.s4s_nodes.core import Model, classical, constant_law_error, mixture, preset_file, sample, schedules
from s4s.s4s_nodes.importers import clock, dyweight, epd, gas, grids, ld3, models, neuralsolver

ROOM = Path(importers.__file__).parent
TIGHT = dict(rtol=1e-9, atol=1e-9)
LEARNED = ("neuralsolver-sit", "neuralsolver-dcn", "neuralsolver-ddpm", "neuralsolver-ddpm-sd")


def denoised(x, sigma, flow=False):
    """The exact denoiser at one level, in float64; a level beyond a flow's 1 included."""
    return mixture(x, torch.full((len(x),), float(sigma), dtype=torch.float64), flow)


def lowered(table, noise, flow=False):
    """What the core's loop makes of the table."""
    return sample(partial(mixture, flow=flow), noise * float(table.sigmas[0]), table)


def entries(name):
    """{calls: what the file of NeuralSolver's numbers holds}."""
    tables = json.loads((ROOM / "neuralsolver.json").read_text(encoding="utf-8"))[name]["tables"]
    return {len(each["steps"]): each for each in tables}


def vp(sigma):
    """(alpha, std) of a variance-preserving state."""
    return 1 / math.sqrt(1 + sigma ** 2), sigma / math.sqrt(1 + sigma ** 2)


def eps_network(x_vp, sigma):
    """The noise in a VP state, by the exact denoiser."""
    alpha, std = vp(sigma)
    return (x_vp - alpha * denoised(x_vp / alpha, sigma)) / std


# ---------------------------------------------------------------------------- published by name

@pytest.mark.parametrize("name, calls", [(name, n) for name in ("neuralsolver-sit", "neuralsolver-dcn")
                                         for n in (5, 6, 7, 8, 9, 10)] + [("neuralsolver-dcn", 15)])
def test_neuralsolver_on_a_flow_is_the_authors_scheduler(name, calls, noise):
    entry = entries(name)[calls]
    x, t, velocities = noise, 0.0, []
    for i, dt in enumerate(entry["steps"]):             # NeuralSolver, step(): v from noise to picture, t from 0 to 1
        velocities.append((denoised(x, 1 - t, flow=True) - x) / (1 - t))
        total = sum(entry["coefficients"][i])
        v = sum(c * v for c, v in zip(entry["coefficients"][i], velocities)) + (1 - total) * velocities[-1]
        x, t = x + v * dt, t + dt
    torch.testing.assert_close(lowered(importers.make(name).table(calls), noise, flow=True), x, **TIGHT)


def their_vp(entry, sigma_of, noise):
    """NeuralSolver's VP scheduler: x from std and alpha at t and t - dt, t clamped at 0.001."""
    t, pictures, x = 0.999, [], noise
    for i, dt in enumerate(entry["steps"]):
        alpha, std = vp(float(sigma_of(max(t, 1e-3))))
        alpha_next, std_next = vp(float(sigma_of(max(t - dt, 1e-3))))
        pictures.append((x - std * eps_network(x, std / alpha)) / alpha)
        total = sum(entry["coefficients"][i])
        mean = sum(c * p for c, p in zip(entry["coefficients"][i], pictures)) + (1 - total) * pictures[-1]
        x = std_next / std * x + std_next * (alpha_next / std_next - alpha / std) * mean
        t = t - dt
    return x


@pytest.mark.parametrize("calls", [5, 6, 7, 8, 9, 10])
@pytest.mark.parametrize("sigma_of", [clock.continuous(), clock.stable_diffusion])
def test_neuralsolver_on_a_vp_model_is_the_authors_scheduler(calls, sigma_of, noise):
    entry = entries("neuralsolver-ddpm")[calls]
    table = neuralsolver.vp_table(entry["steps"], entry["coefficients"], sigma_of)
    start = noise * table.sigmas[0] * vp(table.sigmas[0])[0]
    torch.testing.assert_close(lowered(table, noise), their_vp(entry, sigma_of, start), **TIGHT)


def test_the_published_vp_table_is_theirs_and_the_carried_one_differs_in_its_end_only(noise):
    entry = entries("neuralsolver-ddpm")[6]
    table = importers.make("neuralsolver-ddpm").table(6)
    alpha = vp(table.sigmas[0])[0]
    torch.testing.assert_close(lowered(table, noise),
                               their_vp(entry, clock.continuous(), alpha * table.sigmas[0] * noise), **TIGHT)
    carried = importers.make("neuralsolver-ddpm-sd").table(6)
    theirs = neuralsolver.vp_table(entry["steps"], entry["coefficients"], clock.stable_diffusion)
    assert np.array_equal(carried.sigmas, theirs.sigmas) and np.array_equal(carried.weights[:-1], theirs.weights[:-1])
    assert carried.keeps_constants and carried.carry[-1] == 0 and not theirs.keeps_constants


def test_schedules_are_the_published_levels_with_the_solver_they_are_used_with():
    for name, grid, solver in [("ays-sd15", "ays_sd1", "dpmpp_2m"), ("gits-1.20", "gits_1.20", "dpmpp_2m"),
                               ("gits-sd15", "gits_1.20", "ipndm_2"),
                               ("oss-flux", "oss_flux", "euler"), ("oss-wan", "oss_wan", "euler")]:
        made = importers.make(name)
        assert made.counts == list(schedules.published_counts(grid))
        for calls in made.counts:
            table = made.table(calls)
            assert np.array_equal(table.sigmas, schedules.published(grid, calls)) and table.keeps_constants
            assert table.same_as(classical.SOLVERS[solver](schedules.published(grid, calls)))
    euler = importers.make("oss-flux").table(10)
    np.testing.assert_allclose(euler.carry, euler.sigmas[1:] / euler.sigmas[:-1], atol=1e-12)


def test_a_schedule_can_be_stretched_and_says_so_and_a_learned_table_cannot():
    made = importers.make("ays-sdxl", calls=(6, 10))
    assert made.counts == [6, 10] and made.training["stretched_calls"] == [6]
    assert "stretched_calls" not in importers.make("ays-sdxl").training
    with pytest.raises(ValueError, match="5, 6, 7, 8, 9, 10 calls, not for 4"):
        importers.make("neuralsolver-sit", calls=4)
    with pytest.raises(ValueError, match="unknown published name 'ays-sd3'"):
        importers.make("ays-sd3")


@pytest.mark.parametrize("name", importers.published())
def test_what_is_published_makes_a_whole_preset_that_claims_nothing(name, tmp_path):
    made = importers.make(name)
    assert made.name == name and not made.scores and made.licence and "arXiv" in made.source
    assert "not measured on your checkpoint" in made.training["note"]
    again = preset_file.load(preset_file.save(made, tmp_path / "p.safetensors"))
    assert again.short_hash == made.short_hash and preset_file.verify(again) < 1e-12
    for table in again.tables.values():
        assert table.keeps_constants == (constant_law_error(table) <= 1e-8)
    assert made.recommended == (name not in LEARNED)


def test_rounding_in_the_published_steps_is_all_that_breaks_the_law():
    errors = [constant_law_error(table) for name in LEARNED[:2] for table in importers.make(name).tables.values()]
    assert max(errors) < 2.5e-4                                      # step lists that sum to 1 within 0.0002


# ---------------------------------------------------------------------------- DyWeight

def dyweight_numbers(steps, calls, seed=0, window=3):
    random = np.random.default_rng(seed)
    weights = np.tril(np.triu(random.normal(0, 0.3, (steps, steps)), 1 - window))
    weights += np.diag(random.uniform(0.8, 1.0, steps) - weights.sum(1))      # row sums are step sizes: below 1
    return weights, 1 + random.normal(0, 0.03, calls)


@pytest.mark.parametrize("analytic_first", [False, True])
def test_dyweight_is_the_authors_sampler(analytic_first, noise):
    weights, scales = dyweight_numbers(6, 6 - analytic_first)
    grid = grids.polynomial(np.arange(7) / 6, 7.0, models.model_for("cifar10"))
    x, level, directions = noise * grid[0], grid[0], []
    for i, after in enumerate(grid[1:]):                              # dyweight_sampler
        if analytic_first and i == 0:
            d = x / math.sqrt(1 + level ** 2)
        else:
            asked = abs(scales[i - analytic_first] * level)
            d = (x - denoised(x, asked)) / (level + 1e-8)
        directions.append(d)
        x = x + (after - level) * sum(w * d for w, d in zip(weights[i], directions))
        level = level + weights[i].sum() * (after - level)
    table = dyweight.table(weights, scales, grid, False, analytic_first)
    assert table.calls == 6 - analytic_first and table.sigmas[0] == grid[0]
    assert (table.scale[0] == 1) != analytic_first                    # the analytic step is in the first scale
    torch.testing.assert_close(lowered(table, noise), x, **TIGHT)


def test_dyweight_for_a_flow_is_the_authors_pipeline(noise):
    weights, scales = dyweight_numbers(5, 5, window=2)
    scales[0] = 1.02                                                  # asked above 1: theirs does that too
    grid = schedules.linear_flow(5, math.exp(0.63))
    x, level, velocities = noise * grid[0], grid[0], []
    for i, after in enumerate(grid[1:]):
        asked = scales[i] * level
        velocities.append((x - denoised(x, asked, flow=True)) / asked)        # what the transformer answers
        x = x + (after - level) * sum(w * v for w, v in zip(weights[i], velocities))
        level = level + (after - level) * weights[i].sum()
    torch.testing.assert_close(lowered(dyweight.table(weights, scales, grid, True), noise, flow=True), x, **TIGHT)


# ---------------------------------------------------------------------------- EPD

def epd_numbers(steps, points=2, seed=0):
    random = np.random.default_rng(seed)
    shares = random.uniform(0.2, 1, (steps, points))
    return (random.uniform(0.1, 0.9, (steps, points)), shares / shares.sum(1, keepdims=True),
            1 + random.normal(0, 0.02, (steps, points)), 1 + random.normal(0, 0.02, (steps, points)))


@pytest.mark.parametrize("analytic_first, flow", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("order", [1, 3])
def test_epd_is_the_authors_sampler(analytic_first, flow, order, noise):
    r, w, o, a = epd_numbers(4)
    grid = grids.diffusers_flow(5, 3.0) if flow else grids.time_uniform(np.arange(5) / 4, 1.0, models.model_for("ffhq"))
    x, buffer = noise * grid[0], []
    for i, (t, t_next) in enumerate(zip(grid[:-1], grid[1:])):        # epd_sampler, and ipndm_sampler with a predictor
        d = x / math.sqrt(1 + t ** 2) if analytic_first and i == 0 else (x - denoised(x, t, flow)) / t
        past = buffer[-(order - 1):] if order > 1 else []
        towards = {0: lambda: d, 1: lambda: (3 * d - past[-1]) / 2,
                   2: lambda: (23 * d - 16 * past[-1] + 5 * past[-2]) / 12}[len(past)]()
        after = x
        for k in range(2):
            middle = t_next ** r[i, k] * t ** (1 - r[i, k])
            there = x + (middle - t) * towards
            d_k = (there - denoised(there, a[i, k] * middle, flow)) / middle
            after = after + w[i, k] * o[i, k] * (t_next - t) * d_k
        buffer.append(d)
        x = after
    table = epd.table(r, w, o, a, grid, analytic_first, order)
    assert table.calls == 12 - analytic_first                         # three calls a step of two points
    torch.testing.assert_close(lowered(table, noise, flow), x, **TIGHT)


def test_the_flow_grid_is_that_of_diffusers():
    diffusers = pytest.importorskip("diffusers")
    fixed = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    fixed.set_timesteps(11)
    np.testing.assert_allclose(grids.diffusers_flow(11, 3.0, low=0.003 / 1.002), fixed.sigmas[:-1], rtol=1e-5)
    moved = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    moved.set_timesteps(9, mu=1.15)
    np.testing.assert_allclose(grids.diffusers_flow(9, math.exp(1.15)), moved.sigmas[:-1], rtol=1e-5)


def test_grids_that_can_be_read_off_published_files():
    """t_steps that DyWeight and EPD stored beside their numbers (float32 there)."""
    cifar, bedroom = models.model_for("cifar10"), models.model_for("lsun_bedroom_ldm")
    np.testing.assert_allclose(grids.of({"schedule_type": "time_uniform", "schedule_rho": 1.0}, 4, cifar),
                               [80, 6.9502778, 1.2866811, 0.0020132351], rtol=1e-2)
    np.testing.assert_allclose(grids.of({"schedule_type": "polynomial", "schedule_rho": 7.0}, 5, cifar),
                               [79.999985, 17.527830, 2.5152192, 0.16975267, 0.0019999996], rtol=1e-5)
    np.testing.assert_allclose(grids.of({"schedule_type": "discrete", "schedule_rho": 1.0}, 5, bedroom),
                               [83.822479, 10.853887, 2.7689056, 0.98226511, 0.038758278], rtol=2e-4)
    np.testing.assert_allclose(grids.of({"schedule_type": "time_uniform", "schedule_rho": 1.0}, 4, bedroom),
                               [83.822472, 8.4079857, 1.6567746, 0.038759198], rtol=1e-4)


# ---------------------------------------------------------------------------- GAS

def gas_numbers(calls, seed=0):
    random = np.random.default_rng(seed)
    return (random.normal(0.5, 0.3, calls - 1), random.normal(0, 0.002, calls), random.normal(0, 0.03, (calls, calls)),
            random.normal(0, 0.03, (calls, calls)))


@pytest.mark.parametrize("calls", [2, 3, 4, 6])
@pytest.mark.parametrize("sigma_of", [clock.stable_diffusion, clock.continuous()])
def test_gas_is_the_authors_solver(calls, sigma_of, noise):
    logits, xi, a, c = gas_numbers(calls)
    at = gas.times(logits, 1e-3)

    def alpha(t): return vp(float(sigma_of(t)))[0]
    def std(t): return vp(float(sigma_of(t)))[1]
    def lam(t): return math.log(alpha(t) / std(t))

    def model_fn(x, i):                                               # GeneralizedSolver.model_fn
        asked = float(sigma_of(at[i] + xi[i]))
        return (x - std(at[i]) * eps_network(x, asked)) / alpha(at[i])
    table = gas.table(at, xi, a, c, sigma_of)
    x = noise * float(table.sigmas[0]) * alpha(at[0])
    xs, ms = [x], [model_fn(x, 0)]
    for step in range(1, calls + 1):
        s, t, k = at[step - 1], at[step], step - 1
        h = lam(t) - lam(s)
        phi_1 = math.expm1(-h)
        a1, c1 = std(t) / std(s) + a[0, k], alpha(t) * phi_1 + c[0, k]
        x = a1 * xs[-1] - c1 * ms[-1]
        if step == 2:
            r0 = (lam(s) - lam(at[step - 2])) / h
            x = x - (0.5 * alpha(t) * phi_1 + c[1, k]) * (ms[-1] - ms[-2]) / r0 + a[1, k] * xs[-2]
        if step > 2:
            r0, r1 = (lam(s) - lam(at[step - 2])) / h, (lam(at[step - 2]) - lam(at[step - 3])) / h
            phi_2 = phi_1 / h + 1
            phi_3 = phi_2 / h - 0.5
            d10, d11 = (ms[-1] - ms[-2]) / r0, (ms[-2] - ms[-3]) / r1
            d1, d2 = d10 + r0 / (r0 + r1) * (d10 - d11), (d10 - d11) / (r0 + r1)
            x = x + (alpha(t) * phi_2 + c[1, k]) * d1 - (alpha(t) * phi_3 + c[2, k]) * d2
            x = x + sum(c[i - 1, k] * ms[-i] for i in range(4, len(ms) + 1))
            x = x + sum(a[i - 1, k] * xs[-i] for i in range(2, len(xs) + 1))
        if step < calls:
            xs.append(x)
            ms.append(model_fn(x, step))
    torch.testing.assert_close(lowered(table, noise), x, **TIGHT)


def test_gas_times_start_even_when_the_logits_are_those_of_even_times():
    """Their initial logits, by the inverse they use, come back as even times."""
    even = np.linspace(1e-3, 1, 6)[1:-1]
    kept = 1 - (even - 1e-3) / (1 - 1e-3)
    mu = (kept / np.concatenate([[1.0], kept[:-1]]) - 1e-5) / (1 - 2e-5)
    np.testing.assert_allclose(gas.times(np.log(mu / (1 - mu)), 1e-3), np.linspace(1, 1e-3, 6), atol=1e-12)


# ---------------------------------------------------------------------------- LD3

def ld3_times(calls, top, low, seed=0):
    random = np.random.default_rng(seed)
    at = np.geomspace(top, low, calls + 1) if top > 1 else np.linspace(top, low, calls + 1)
    told = at * np.concatenate([[1.0], 1 + random.normal(0, 0.02, calls - 1), [1.0]])
    return at, told


def their_unipc(x, at, told, ns, order, variant, answer):
    """LD3's UniPC.sample_simple, data prediction: the corrector's call is the next step's first."""
    alpha, std, lam = ns
    steps = len(at) - 1
    ts, ms = [at[0]], [answer(x, at[0], told[0])]
    for step in range(1, steps + 1):
        used = step if step < order else min(order, steps + 1 - step)
        t, s = at[step], ts[-1]
        h = lam(t) - lam(s)
        rks = [(lam(ts[-(i + 1)]) - lam(s)) / h for i in range(1, used)] + [1.0]
        d1s = [(ms[-(i + 1)] - ms[-1]) / rks[i - 1] for i in range(1, used)]
        hh = -h
        phi_k, b, rows, factorial = math.expm1(hh) / hh - 1, [], [], 1
        width = hh if variant == "bh1" else math.expm1(hh)
        for i in range(1, used + 1):
            rows.append([rk ** (i - 1) for rk in rks])
            b.append(phi_k * factorial / width)
            factorial *= i + 1
            phi_k = phi_k / hh - 1 / factorial
        moved = std(t) / std(s) * x - alpha(t) * math.expm1(hh) * ms[-1]
        predictor = [0.5] if used == 2 else np.linalg.solve(np.array(rows)[:-1, :-1], b[:-1]) if used > 2 else []
        predicted = moved - alpha(t) * width * sum(p * d for p, d in zip(predictor, d1s))
        if step == steps:
            return predicted
        newest = answer(predicted, t, told[step])
        corrector = [0.5] if used == 1 else np.linalg.solve(np.array(rows), b)
        x = moved - alpha(t) * width * (sum(p * d for p, d in zip(corrector, d1s)) + corrector[-1] * (newest - ms[-1]))
        ts, ms = [*ts, t][-order:], [*ms, newest][-order:]


@pytest.mark.parametrize("variant, order, calls", [("bh1", 3, 5), ("bh2", 2, 5), ("bh2", 3, 4), ("bh1", 3, 8)])
@pytest.mark.parametrize("exploding", [True, False])
def test_ld3_with_unipc_is_the_authors_sampler(variant, order, calls, exploding, noise):
    if exploding:
        at, told = ld3_times(calls, 80.0, 0.002)
        ns = (lambda t: 1.0, lambda t: t, lambda t: -math.log(t))
        levels, asked = at, told
        answer = lambda x, t1, t2: denoised(x, t2)                    # noqa: E731
        start = noise * 80.0
    else:
        at, told = ld3_times(calls, 1.0, 1e-3)
        told = np.minimum(told, 1.0)
        sigma_of = clock.stable_diffusion
        ns = (lambda t: vp(float(sigma_of(t)))[0], lambda t: vp(float(sigma_of(t)))[1],
              lambda t: -math.log(float(sigma_of(t))))
        levels, asked = sigma_of(at), sigma_of(told)

        def answer(x, t1, t2):                                        # data_prediction_fn at the time it is told
            return (x - ns[1](t2) * eps_network(x, float(sigma_of(t2)))) / ns[0](t2)
        start = noise * levels[0] * ns[0](1.0)
    table = ld3.table(levels, asked, exploding, "uni_pc", order, variant)
    theirs = their_unipc(start, at, told, ns, order, variant, answer)
    torch.testing.assert_close(lowered(table, noise), theirs, **TIGHT)


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ld3_with_ipndm_is_the_authors_sampler(order, noise):
    sigma_of = clock.stable_diffusion
    at, told = ld3_times(6, 1.0, 1e-3)
    told = np.minimum(told, 1.0)
    levels, asked = sigma_of(at), sigma_of(told)
    x, buffer = noise * levels[0] * vp(levels[0])[0], []
    formulas = {1: lambda e: e, 2: lambda e: (3 * e - buffer[-1]) / 2,
                3: lambda e: (23 * e - 16 * buffer[-1] + 5 * buffer[-2]) / 12,
                4: lambda e: (55 * e - 59 * buffer[-1] + 37 * buffer[-2] - 9 * buffer[-3]) / 24}
    for i in range(6):
        e = eps_network(x, asked[i])
        (alpha, std), (alpha_next, std_next) = vp(levels[i]), vp(levels[i + 1])
        h = math.log(alpha_next / std_next) - math.log(alpha / std)
        x = alpha_next / alpha * x - std_next * math.expm1(h) * formulas[min(order, i + 1)](e)
        buffer = [*buffer, e][-3:]
    torch.testing.assert_close(lowered(ld3.table(levels, asked, False, "ipndm", order, ""), noise), x, **TIGHT)


# ---------------------------------------------------------------------------- the room

def test_the_importers_never_unpickle_or_run_anything():
    modules = {"pickle", "marshal", "shelve", "subprocess", "importlib", "runpy", "copyreg"}
    calls = {"eval", "exec", "compile", "__import__", "torch.load", "np.load"}
    for path in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                named = {alias.name for alias in node.names} | {getattr(node, "module", None)}
                assert not named & modules, f"{path.name}: {ast.unparse(node)}"
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in calls, f"{path.name}: {ast.unparse(node)}"


def test_a_model_whose_network_time_is_not_known_is_refused():
    with pytest.raises(ValueError, match="network time of a model with levels up to 7"):
        models.clock_of(Model("x", "eps", 0.1, 7.0))
