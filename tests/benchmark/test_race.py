"""The race is fair: equal calls, all pairs, paired seeds, honest intervals."""

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, schedules
from s4s.training.baselines.measure import Entry, contestants, measure, race_classical
from s4s.training.baselines.schedules import schedules_for
from s4s.training.benchmark import report
from s4s.training.benchmark.race import calls_to_match, interval, pooled, summary, verdict
from s4s.training.teacher.pairs import TEST_SEEDS, VALIDATION_SEEDS, make_pairs
from s4s.training.teacher.solvers import teacher_table
from tests.toy import toy_source


@pytest.fixture(scope="module", params=[False, True], ids=["eps", "flow"])
def raced(request):
    source = toy_source(request.param)
    teacher = teacher_table(source, "dpmpp_3m", 60)
    pairs = make_pairs(source, range(TEST_SEEDS, TEST_SEEDS + 40), teacher, "", quiet=True)
    return source, pairs, race_classical(source, 5, pairs, quiet=True)


def test_every_classical_pair_takes_part_and_nobody_makes_more_calls(raced):
    source, _, ranked = raced
    assert len(ranked) == len(classical.SOLVERS) * len(schedules_for(source))
    assert len({entry.name for entry in ranked}) == len(ranked)
    assert all(entry.table.calls <= 5 for entry in ranked)
    assert all(entry.table.calls == 5 for entry in ranked if classical.SOLVERS[entry.solver_name].calls_per_step == 1)


def test_the_winner_really_is_the_best_of_those_who_ran_every_seed(raced):
    source, pairs, ranked = raced
    finalists = [entry for entry in ranked if len(entry.errors) == len(pairs)]
    assert ranked[0].errors.mean() == min(entry.errors.mean() for entry in finalists)
    everyone = [measure(source, entry, pairs).errors.mean() for entry in contestants(source, 5)]
    assert ranked[0].errors.mean() == pytest.approx(min(everyone), rel=0.05)        # halving lost no clear winner


def test_a_table_matches_itself_at_no_more_than_its_calls(raced):
    source, pairs, ranked = raced
    best = ranked[0]
    eight = next(entry for entry in contestants(source, 8, {(best.solver_name, best.schedule_name)}))
    learned = Entry("S4S", "learned", ranked[0].table, measure(source, eight, pairs).errors)
    calls, _ = calls_to_match(source, learned, ranked, pairs, quiet=True)
    assert 5 < calls <= 8


def test_a_summary_says_who_won_with_an_interval_around_the_ratio(raced):
    source, pairs, ranked = raced
    learned = Entry("S4S", "learned", ranked[0].table, ranked[0].errors / 2)
    scores = {**summary(learned, ranked), "classical_calls_to_match": 9, "most_calls_tried": 20}
    assert scores["ratio"] == pytest.approx(min(e.rmse for e in ranked if len(e.errors) == 40) / learned.rmse, abs=1e-3)
    assert scores["ratio_95"][0] <= scores["ratio"] <= scores["ratio_95"][1]
    assert "needs 9 calls" in verdict(scores) and f"{scores['ratio']:.2f}" in verdict(scores)
    lost = {**scores, **summary(Entry("S4S", "x", ranked[0].table, ranked[0].errors * 2), ranked)}
    assert "not recommended" in verdict(lost)


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(200):
        low, high = interval(rng.normal(1.0, 0.2, 100).clip(0), draws=300)
        hits += low <= np.sqrt(1 + 0.2 ** 2) <= high
    assert 175 <= hits <= 199                               # 190 expected, binomial deviation 3; bootstrap runs low


def test_pooled_rmse_is_the_rmse_over_everything():
    difference = torch.randn(6, 10, dtype=torch.float64)
    per_seed = difference.square().mean(1).sqrt().numpy()
    assert pooled(per_seed) == pytest.approx(float(difference.square().mean().sqrt()))


def test_a_result_that_is_not_finite_loses_instead_of_winning():
    source = toy_source()
    pairs = make_pairs(source, range(4), teacher_table(source, "euler", 10), "", quiet=True)
    pairs.target[0] = torch.nan
    entry = Entry("euler", "karras", classical.euler(schedules.karras(4, 0.03, 14.6)))
    assert measure(source, entry, pairs).errors[0] == np.inf


def test_training_validation_and_race_never_share_a_seed():
    assert VALIDATION_SEEDS + 1_000_000 < TEST_SEEDS and 1_000_000 < VALIDATION_SEEDS


def test_pictures_are_drawn(raced, tmp_path):
    from PIL import Image
    source, _, ranked = raced
    report.plot_table(ranked[0].table, tmp_path / "solver.png", "best", {"other": ranked[1].table})
    report.plot_race(ranked[0], ranked, tmp_path / "race.png", "race")
    report.plot_curve([[0, None, 0.5, 10], [4, 0.4, 0.3, 50], [8, 0.3, 0.2, 90]], tmp_path / "curve.png", "curve", 0.4)
    report.sheet({"teacher": torch.zeros(3, 1, 8, 8), "S4S": torch.ones(3, 3, 8, 8)}, tmp_path / "sheet.png", zoom=2)
    for name in ("solver", "race", "curve", "sheet"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(set(picture.convert("L").getdata())) > 1
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.getpixel((page.width - 6, page.height - 8)) == (255, 255, 255)      # S4S's white image
        assert page.getpixel((page.width - 8, 14)) == (128, 128, 128)                   # the teacher's grey one
