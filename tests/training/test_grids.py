"""Schedules by name: even in log-SNR, DMN's optimum, GITS on the model's own paths, another preset's levels."""

import itertools

import numpy as np
import pytest

from s4s.s4s_nodes.core import Preset, classical, preset_file, schedules
from s4s.training.starts.gits import LATER, cheapest, deviations, gits
from s4s.training.starts.grids import asked_for, dmn, error_bound
from s4s.training.teacher.solvers import teacher_table
from tests.toy import toy_source
from tests.training.test_run import run_in


def half_log_snr(levels, flow):
    return np.log(1 - levels) - np.log(levels) if flow else -np.log(levels)


@pytest.mark.parametrize("name", ["log_snr", "dmn", "gits"])
@pytest.mark.parametrize("flow", [False, True])
def test_levels_fall_from_the_models_highest_to_zero_and_never_stand_at_a_flows_one(name, flow):
    source = toy_source(flow)
    for steps in (1, 2, 3, 6):
        levels = asked_for(source, name)(steps)
        assert len(levels) == steps + 1 and levels[0] == source.sigma_max and levels[-1] == 0
        assert (np.diff(levels) < 0).all() and (levels[1:] < 0.999 * levels[0]).all()
        classical.SOLVERS["dpmpp_3m"](levels, flow)


def test_log_snr_is_even_and_for_other_models_the_exponential_schedule():
    levels = asked_for(toy_source(True), "log_snr")(6)
    np.testing.assert_allclose(np.diff(half_log_snr(levels[1:-1], True), 2), 0, atol=1e-12)
    assert levels[-2] == pytest.approx(toy_source(True).levels[0])
    source = toy_source()
    np.testing.assert_allclose(asked_for(source, "log_snr")(6),
                               schedules.exponential(6, source.levels[0], source.sigma_max), rtol=1e-12)


def test_dmn_is_a_minimum_of_its_bound():
    found = dmn(6, -np.log(14.6), -np.log(0.03))
    least = error_bound(found)
    assert least < 0.6 * error_bound(np.linspace(found[0], found[-1], 7))
    generator = np.random.default_rng(0)
    for _ in range(20):
        moved = found + np.concatenate([[0], 0.05 * generator.standard_normal(5), [0]])
        assert error_bound(moved) > least * (1 - 1e-4)


def test_the_bound_of_one_step_is_the_first_order_error():
    """One step weighs its prediction with e^lambda1 - e^lambda0; error sigma^2 / alpha of a VP at lambda0."""
    first, last = -1.0, 0.5
    alpha = 1 / np.sqrt(1 + np.exp(2.0))
    wanted = (np.exp(last) - np.exp(first)) * (1 - alpha ** 2) / alpha
    assert error_bound(np.array([first, last])) == pytest.approx(wanted, rel=1e-10)


def test_the_cheapest_path_is_the_cheapest_of_all():
    generator = np.random.default_rng(3)
    costs = np.triu(generator.random((8, 8)), 1) + np.where(np.tri(8) > 0, np.inf, 0)
    for steps in (1, 2, 3, 4):
        def total(path):
            cost = 0.0
            for a, b in reversed(list(zip(path, path[1:]))):
                cost = costs[a, b] + 1.15 * cost
            return cost
        every = [[0, *inner, 7] for inner in itertools.combinations(range(1, 7), steps - 1)]
        assert cheapest(costs, steps, 1.15) == min(every, key=total)


def test_gits_deviates_less_than_even_steps_and_counts_its_calls():
    source = toy_source()
    table = teacher_table(source, "auto", 60)
    costs, spent = deviations(source, table), source.model_calls
    assert spent == 16 * table.calls

    def total(levels):
        path, cost = [int(np.abs(table.sigmas - level).argmin()) for level in levels], 0.0
        for a, b in reversed(list(zip(path, path[1:]))):
            cost = costs[a, b] + LATER * cost
        return cost
    assert total(gits(source, 6)) < 0.8 * total(table.sigmas[::10])
    assert (costs[np.arange(60), np.arange(1, 61)][:-1] < 0.05).all()           # a short step hardly leaves the path


def test_a_run_starts_on_another_presets_levels(tmp_path):
    learned = run_in(tmp_path / "ld3", learn="schedule").train()
    path = tmp_path / "ld3" / "my-preset.safetensors"
    again = run_in(tmp_path / "s4s", learn="coefficients", schedule=str(path), windows=(1.0, 0.5))
    made = again.train()
    for name, table in made.tables.items():
        if table.sigmas[0] > 14:
            np.testing.assert_allclose(table.sigmas, learned.tables[name].sigmas, rtol=1e-9)
    assert made.training["start"]["calls4"] == f"dpmpp_2m, {path}" and len(made.tables) == 2


def test_a_preset_without_such_a_table_and_a_missing_file_are_refused(tmp_path):
    made = Preset("p", {"calls4": classical.SOLVERS["euler"](schedules.karras(4, 0.03, 14.6))}, toy_source().model)
    path = preset_file.save(made, tmp_path / "p.safetensors")
    with pytest.raises(ValueError, match="for 5 steps.*them for: 4"):
        asked_for(toy_source(), str(path))(5)
    with pytest.raises(ValueError, match="not-there"):
        run_in(tmp_path / "run", schedule="not-there.safetensors").train()
    with pytest.raises(ValueError, match="log_snr, dmn, gits, the file of a preset"):
        run_in(tmp_path / "other", schedule="nope").train()
