"""The transfer study's own machinery: tables learned on several models, cells, trainings that go on, the verdict."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, schedules
from s4s.s4s_nodes.select import ModelFacts, Request, select
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import make_pairs
from s4s.training.teacher.solvers import teacher_of
from tests.bench.transfer import cells, learn, models, page, questions, ship, train
from tests.bench.transfer.questions import Ratio
from tests.toy import toy_source


def lesson(stretch: float = 1.0, unit: float = 1.0) -> learn.Lesson:
    """Pairs of the exact mixture denoiser in a plane that is stretched."""
    plain = toy_source()
    source = toy_source(network=lambda x, sigma, label: plain.network(x / stretch, sigma / stretch, label) * stretch)
    fine = teacher_of(source, "auto", 30).from_level(None)
    return learn.Lesson(source, make_pairs(source, range(32), fine, "", True),
                        make_pairs(source, range(1000, 1024), fine, "", True), unit)


def test_the_normal_equations_hold_the_slope_of_the_mean_error():
    taught = lesson(unit=0.3)
    parameters = Parameters(schedules.karras(3, 0.03, 14.6))
    vector = parameters.initial()
    taught.measure(parameters, vector, 12)
    _, slope = taught.normal_equations()
    for k in (0, 3, 7):
        nudge = torch.zeros_like(vector)
        nudge[k] = -1e-3
        up, down = (taught.error(parameters, vector + sign * nudge, held_out=False)[0] for sign in (-1, 1))
        assert float(slope[k]) == pytest.approx((up - down) / 2e-3, rel=0.1, abs=2e-3)


def test_a_table_learned_on_two_models_is_closer_on_both_than_the_solver_it_began_as():
    lessons = [lesson(), lesson(1.3)]
    found = learn.learn(lessons, 4)
    began = classical.SOLVERS[found.parameters.base](found.parameters.start)
    assert found.after < 0.9 * found.before
    for taught in lessons:
        assert learn._mean(taught, found.table, 24) < learn._mean(taught, began, 24)
    assert found.table.keeps_constants


def test_a_cell_is_measured_once_and_not_after_the_time_is_over(tmp_path):
    measured = []

    def make():
        measured.append(1)
        return {"errors": [0.5]}
    assert cells.Store(tmp_path).cell("a", make) == cells.Store(tmp_path, minutes=-1).cell("a", make)
    assert measured == [1]
    with pytest.raises(cells.OutOfTime, match="the same command resumes"):
        cells.Store(tmp_path, minutes=-1).cell("b", make)


def test_kept_pairs_and_tables_are_the_ones_that_were_made(tmp_path):
    source, store = toy_source(), cells.Store(tmp_path)
    made, kept = (store.pairs(source, "toy", range(3), 20) for _ in range(2))
    assert torch.equal(made.target, kept.target) and torch.equal(made.noise, kept.noise)
    table = classical.dpmpp_2m(schedules.karras(4, 0.03, 14.6))
    assert cells.table(cells.numbers(table)).same_as(table)


def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "BATCH", 4)
    kind = replace(models.TRAINED["emoji-eps"], iterations=4, width=16, sizes=(8, 16))
    generator = torch.Generator().manual_seed(0)
    shown, label = torch.rand(6, 3, 64, 64, generator=generator) * 2 - 1, torch.arange(6)
    whole, halted, resumed = (train.Training(kind) for _ in range(3))
    for _ in range(4):
        whole.step(shown, label)
    for _ in range(2):
        halted.step(shown, label)
    halted.save(tmp_path / "state")
    resumed.resume(tmp_path / "state")
    for _ in range(2):
        resumed.step(shown, label)
    assert all(torch.equal(weight, resumed.average[name]) for name, weight in whole.average.items())


@pytest.mark.parametrize("name", ["emoji-eps", "emoji-flow", "digits-v"])
def test_a_small_model_answers_a_constant_at_no_noise_and_its_levels_are_its_familys(name):
    """D = x at the lowest level, whatever the network says: its answer there counts for little."""
    model = models.Small(replace(models.TRAINED[name], width=16)).eval()
    x = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    low = model.levels[:1].float().expand(2)
    assert (model.denoise(x, low, torch.zeros(2, dtype=torch.long)) - x).abs().max() < 0.05
    top = {"eps": 14.6, "flow": 1.0, "v": 4518.0}[model.kind.prediction]
    assert float(model.levels[-1]) == pytest.approx(top, rel=1e-2)


def won(by: float, median: float = 1.5) -> dict:
    return {"calls": 6, "cfg": 3.0, "on": "a", "tables": {"its own": Ratio(2, (2, 2), 2, (2, 2)),
                                              page.TOGETHER: Ratio(by, (by, by), median, (median, median))}}


def test_a_transfer_preset_has_to_win_on_every_left_out_model_by_both_measures():
    assert page.passes([won(1.2), won(1.1)], 6, 3.0)
    assert not page.passes([won(1.2), won(0.99)], 6, 3.0)
    assert not page.passes([won(1.2), won(1.1, median=0.9)], 6, 3.0)
    assert not page.passes([won(1.2)], 4, 3.0)
    alone = {**won(1.2), "tables": {"its own": won(2)["tables"]["its own"], "b": won(1.2)["tables"][page.TOGETHER]}}
    assert page.transferred(alone).wins and not page.passes([won(1.2), alone], 6, 3.0)


class Known:
    """A study whose baselines have these mean errors: {model: {baseline: error}}."""

    def __init__(self, known):
        self.known = known

    def classical(self, on, calls):
        return {"few": {name: [error] * 3 for name, error in self.known[on].items()}}

    def pair(self, on, calls, name):
        return np.full(3, self.known[on][name])


def test_the_fair_pair_is_chosen_by_the_other_models_only():
    known = {"here": {"p": 0.1, "q": 0.9}, "there": {"p": 0.5, "q": 0.4}, "yonder": {"p": 0.5, "q": 0.3}}
    name, errors = questions.fair(Known(known), "here", 6, ["there", "yonder"])
    assert name == "q" and errors.tolist() == [0.9] * 3


def test_a_ratio_is_the_baselines_error_over_the_tables():
    found = questions.ratio(np.array([0.2, 0.4, 0.6]), np.array([0.1, 0.2, 0.3]))
    assert found.rmse == pytest.approx(2) and found.rmse_95 == pytest.approx((2, 2)) and found.wins and found.surely
    assert not questions.ratio(np.array([0.1, 0.1]), np.array([0.2, 0.2])).wins


class Taught(Known):
    """A study that has learned one table for all settings."""

    def table(self, settings, calls, begin=()):
        assert [setting.name for setting in settings] == ["a", "b"]
        assert [setting.cfg for setting in begin] == ([] if settings[0].cfg == 3 else [3.0, 3.0])
        return {"table": cells.numbers(classical.dpmpp_2m(schedules.karras(calls, 0.03, 14.6)))}


def test_a_transfer_preset_holds_what_passed_and_says_where_it_was_not_measured():
    rows = [{**won(1.2), "on": "a"}, {**won(1.1), "on": "b"}, {**won(1.2), "on": "a", "calls": 4},
            {**won(0.9), "on": "b", "calls": 4}]
    made = ship.transfer_preset(Taught({}), "eps", rows)
    assert made.counts == [6] and made.training["left out"]["calls6"] == {"a": 1.2, "b": 1.1}
    assert "not measured on your checkpoint" in made.training["note"] and "6 calls: 1.20 on a, 1.10 on b" in (
        made.training["evidence"])
    for channels in (4, None):                      # nobody gets it unasked
        facts = ModelFacts("sd15", "eps", 0.03, 14.6146, channels=channels)
        assert select(Request(facts, [made], 6, cfg=3.0)).preset is None
    assert ship.transfer_preset(Taught({}), "eps", [won(0.9)]) is None


def test_a_transfer_preset_reaches_as_far_in_guidance_as_it_passed_without_a_gap():
    rows = [{**won(by), "on": name, "cfg": cfg, "calls": calls} for calls, cfg, by in
            ((6, 3.0, 1.2), (6, 5.0, 1.1), (6, 7.0, 1.3), (8, 3.0, 1.2), (8, 5.0, 0.9), (8, 7.0, 1.4), (5, 3.0, 0.8),
             (5, 5.0, 1.3)) for name in "ab"]
    made = ship.transfer_preset(Taught({}), "v, zero SNR", rows)
    assert sorted(made.tables) == ["calls6_cfg3", "calls6_cfg5", "calls6_cfg7", "calls8_cfg3"]
    assert made.training["cfg"] == [3.0, 7.0] and "6 calls, cfg 5: 1.10 on a" in made.training["evidence"]
    assert made.model.zero_terminal_snr
