"""The race is fair: equal calls, all pairs, paired seeds, honest intervals."""

import re

import numpy as np
import pytest
import torch

from s4s.s4s_nodes import picture
from s4s.s4s_nodes.core import Preset, classical, schedules
from s4s.training.baselines.halving import EFFORTS, Effort, Entrants, search_cost, searched
from s4s.training.baselines.measure import Entry, baselines, measured
from s4s.training.baselines.schedules import schedules_for
from s4s.training.benchmark import report_run
from s4s.training.benchmark.race import TableResult, calls_to_match
from s4s.training.benchmark.verdict import interval, pooled, share_interval, summary, verdict
from s4s.training.teacher.pairs import TEST_SEEDS, VALIDATION_SEEDS, make_pairs
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.bench.passports import race_markdown
from tests.toy import toy_source


@pytest.fixture(scope="module", params=[False, True], ids=["eps", "flow"])
def raced(request):
    source = toy_source(request.param)
    teacher = teacher_table(source, "dpmpp_3m", 60)
    pairs = make_pairs(source, range(TEST_SEEDS, TEST_SEEDS + 40), teacher, "", quiet=True)
    return source, pairs, searched(source, baselines(source, 5), pairs, EFFORTS[-1])


def test_every_classical_pair_takes_part_and_nobody_makes_more_calls(raced):
    source, _, ranked = raced
    assert len(ranked) == len(baselines(source, 5))
    assert len({entry.name for entry in ranked}) == len(ranked)
    assert all(entry.table.calls <= 5 for entry in ranked)
    assert all(entry.table.calls == 5 for entry in ranked if classical.SOLVERS[entry.solver_name].calls_per_step == 1)


def test_the_winner_really_is_the_best_of_those_who_ran_every_seed(raced):
    source, pairs, ranked = raced
    finalists = [entry for entry in ranked if len(entry.errors) == len(pairs)]
    assert ranked[0].errors.mean() == min(entry.errors.mean() for entry in finalists)
    everyone = [entry.errors.mean() for entry in measured(source, baselines(source, 5), pairs)]
    assert ranked[0].errors.mean() == pytest.approx(min(everyone), rel=0.05)        # halving lost no clear winner


def test_a_table_matches_itself_at_no_more_than_its_calls(raced):
    source, pairs, ranked = raced
    best = ranked[0]
    eight = next(entry for entry in baselines(source, 8, {(best.solver_name, best.schedule_name)}))
    learned = Entry("S4S", "learned", ranked[0].table, measured(source, [eight], pairs)[0].errors)
    calls = calls_to_match(source, learned, ranked, pairs)["classical_calls_to_match"]
    assert 5 < calls <= 8


def test_a_summary_says_who_won_with_an_interval_around_the_ratio(raced):
    source, pairs, ranked = raced
    learned = Entry("S4S", "learned", ranked[0].table, ranked[0].errors / 2)
    scores = {**summary(learned, ranked), "classical_calls_to_match": 9, "most_calls_tried": 20}
    assert scores["ratio"] == pytest.approx(min(e.rmse for e in ranked if len(e.errors) == 40) / learned.rmse, abs=1e-3)
    assert scores["ratio_95"][0] <= scores["ratio"] <= scores["ratio_95"][1]
    assert "needs 9 calls" in verdict(scores) and f"{scores['ratio']:.2f}" in verdict(scores)
    assert scores["recommended"] and not scores["lost"] and scores["won"] > 0.7
    lost = {**scores, **summary(Entry("S4S", "x", ranked[0].table, ranked[0].errors * 2), ranked)}
    assert "Not recommended" in verdict(lost) and lost["lost"] and not lost["recommended"]
    ratio, *bounds = (f"{1 / value:.2f}" for value in (lost["ratio"], *reversed(lost["ratio_95"])))
    assert f"S4S is {ratio} [{', '.join(bounds)}] times further from the teacher than" in verdict(lost)
    assert f"by the median seed {1 / lost['ratio_median']:.2f} [" in verdict(lost)


def entries(ours, *theirs, finer=((), ())):
    """The learned entry with these errors, and baselines."""
    return (Entry("S4S", "learned", None, np.array(ours, float), finer=np.array(finer[0], float)),
            [Entry("euler", str(i), None, np.array(errors, float), finer=np.array(finer[1], float))
             for i, errors in enumerate(theirs)])


def test_recommended_needs_median_rmse_and_seeds_each_with_its_interval():
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 1.2, 64)
    assert summary(*entries(0.8 * base, base))["verdict"] == "better"
    tail = np.where(np.arange(64) < 4, 3.0, 0.8) * base                 # better median, heavier tail
    assert summary(*entries(tail, base))["recommended"] is False
    body = np.where(np.arange(64) < 36, 1.1, 0.2) * base                # better RMSE, most seeds lost
    found = summary(*entries(body, base))
    assert found["ratio"] > 1 and found["verdict"] != "better"
    assert summary(*entries(base * rng.choice([0.9, 1.1], 64), base))["verdict"] == "unsure"


def test_few_seeds_neither_recommend_nor_refuse():
    for factor in (0.5, 2.0):
        found = summary(*entries([factor] * 5, [1.0] * 5))
        assert found["verdict"] == "unsure" and not found["recommended"] and not found["lost"]
        assert "5 seeds are not enough to say" in verdict(found)
    assert summary(*entries([0.5] * 8, [1.0] * 8))["recommended"] and summary(*entries([2.0] * 8, [1.0] * 8))["lost"]


def test_a_baseline_kept_as_the_table_says_that_nothing_was_gained():
    found = summary(*entries([1.0, 2.0], [1.0, 2.0], [3.0, 3.0]))
    assert found["verdict"] == "even" and "Nothing was gained here: the table is the best baseline" in verdict(found)
    assert not found["recommended"] and not found["lost"]


def test_no_ratio_is_printed_that_the_teachers_error_turns_around():
    learned, ranked = entries([0.9] * 8, [1.0] * 8, finer=([1.0] * 4, [0.98] * 4))     # the finer one sees it otherwise
    found = summary(learned, ranked)
    assert found["verdict"] == "within the teacher's error" and not found["recommended"] and not found["lost"]
    assert "1.1" not in verdict(found) and verdict(found).startswith("Within the teacher's error")
    text = report_run.race_table(TableResult(found, learned, ranked, ""))
    assert "within the teacher's error" in text and "1.11x" not in text
    assert "within the teacher's error" in race_markdown({"a": found})
    sure = summary(*entries([0.5] * 8, [1.0] * 8, finer=([0.6] * 4, [1.05] * 4)))
    assert sure["verdict"] == "better" and sure["teacher_moves"][0] == pytest.approx(2 / 1.75, abs=1e-3)


def test_a_share_of_seeds_has_the_interval_of_a_binomial():
    assert share_interval(0.5, 100) == pytest.approx((0.404, 0.596), abs=2e-3)
    low, high = share_interval(1.0, 8)
    assert 0.6 < low < 0.7 and high == pytest.approx(1)


def test_fewer_seeds_are_never_ranked_among_all_and_the_start_runs_them_all():
    source = toy_source()
    pairs = make_pairs(source, range(TEST_SEEDS, TEST_SEEDS + 12), teacher_table(source, AUTO, 40), "", quiet=True)
    every = baselines(source, 5)
    worst = searched(source, every, pairs.part(slice(0, 2)), Effort(0, 99, ((2, 999),)))[-1].name
    before, effort = source.model_calls, Effort(1, 3, ((1, 999), (12, 4)))
    ranked = searched(source, every, pairs, effort, kept=[worst])
    assert source.model_calls - before <= search_cost(effort, Entrants(5, len(schedules_for(source)), source.flow), 12)
    counts = [len(entry.errors) for entry in ranked]
    assert counts == sorted(counts, reverse=True) and counts.count(12) == 5
    assert worst in [entry.name for entry in ranked[:5]]
    lines = report_run.race_table(TableResult({}, ranked[0], ranked, ""), 20).splitlines()
    below = lines.index("dropped earlier, on fewer seeds:")
    seeds = [re.search(r" (\d+)(?:  +\S+x)?$", line)[1] for line in lines[1:-1] if line != lines[below]]
    assert seeds == ["12"] * (below - 1) + seeds[below - 1:] and "12" not in seeds[below - 1:]


def test_a_small_effort_finds_a_baseline_next_to_the_best():
    source = toy_source()
    pairs = make_pairs(source, range(TEST_SEEDS, TEST_SEEDS + 16), teacher_table(source, AUTO, 40), "", quiet=True)
    full = [entry.errors.mean() for entry in measured(source, baselines(source, 5), pairs)]
    for effort, most in zip(EFFORTS, (1.5, 1.3, 1.01)):            # what a larger effort is for
        assert searched(source, baselines(source, 5), pairs, effort)[0].errors.mean() <= most * min(full)


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
    assert measured(source, [entry], pairs)[0].errors[0] == np.inf


def test_training_validation_and_race_never_share_a_seed():
    assert VALIDATION_SEEDS + 1_000_000 < TEST_SEEDS and 1_000_000 < VALIDATION_SEEDS


def test_pictures_are_drawn(raced, tmp_path):
    from PIL import Image
    source, _, ranked = raced
    preset = Preset("best", {"calls": ranked[0].table}, source.model)
    picture.save(picture.table(preset, "calls"), tmp_path / "solver.png")
    report_run.draw_race(TableResult({}, ranked[0], ranked, ""), tmp_path / "race.png", "race")
    report_run.sheet([("teacher", "", torch.zeros(3, 1, 8, 8)), ("S4S", "6 calls", torch.ones(3, 3, 8, 8))],
                 tmp_path / "sheet.png")
    for name in ("solver", "race", "sheet"):
        with Image.open(tmp_path / f"{name}.png") as drawn:
            assert len(set(drawn.convert("L").getdata())) > 1
    with Image.open(tmp_path / "sheet.png") as page:
        assert page.getpixel((600, page.height - 100)) == (255, 255, 255)       # S4S's white image
        assert page.getpixel((600, 24 + 52 + 100)) == (128, 128, 128)           # the teacher's grey one


def test_results_that_equal_the_teachers_are_raced_in_words():
    """A distilled model's teacher of as few calls as the table may be one of the baselines."""
    same, other = np.zeros(8), np.full(8, 0.1)
    scores = summary(Entry("S4S", "learned", None, same), [Entry("a", "b", None, same), Entry("c", "d", None, other)])
    assert scores["ratio"] == 1 and scores["verdict"] == "even" and "Nothing was gained here" in verdict(scores)
    scores = summary(Entry("S4S", "learned", None, same), [Entry("c", "d", None, other)])
    assert scores["ratio"] > 1000 and scores["recommended"]
