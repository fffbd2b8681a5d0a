"""The race's second measure: right, honest about its interval, absent where there is no feature space."""

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, schedules
from s4s.training.baselines.halving import Effort, searched
from s4s.training.baselines.measure import Entry, features_of, measured
from s4s.training.benchmark import frechet, report_run
from s4s.training.benchmark.race import result_of, unseen_pairs
from s4s.training.demo_models.source import bundled
from tests.toy import toy_source


def sets(count: int, seed: int, features: int = 8):
    """A teacher's features and an entry's: the same, moved by 0.5 in each and widened by 1.5."""
    theirs = np.random.default_rng(seed).normal(size=(count, features))
    return 1.5 * theirs + 0.5, theirs


def test_the_distance_of_gaussians_is_the_formulas():
    ours, theirs = sets(200_000, 0, 3)
    assert frechet.distance(ours, theirs) == pytest.approx(3 * (0.5 ** 2 + 0.5 ** 2), rel=0.02)    # mean and deviation
    assert frechet.distance(theirs, theirs) == pytest.approx(0, abs=1e-6)


def test_the_jackknifes_interval_holds_what_so_many_seeds_give_on_average():
    usual = np.mean([frechet.distance(*sets(60, seed)) for seed in range(300)])
    inside = sum(low <= usual <= high for low, high in (frechet.interval(*sets(60, 1000 + i)) for i in range(40)))
    assert inside >= 34                                     # 38 expected, binomial deviation 1.4


def test_a_ratio_is_paired_and_surer_than_its_parts():
    ours, theirs = sets(60, 0)
    worse = theirs + 1.1 * (ours - theirs)
    low, high = frechet.interval(worse, theirs, ours)
    exact = frechet.distance(worse, theirs) / frechet.distance(ours, theirs)
    alone = np.divide(*frechet.interval(worse, theirs)[::-1])
    assert low <= exact <= high and high / low < alone


def test_without_a_feature_space_or_with_too_few_seeds_there_is_no_distance():
    source = toy_source()
    pairs = unseen_pairs(source, 6)
    entry = Entry("S4S", "learned", classical.euler(schedules.karras(4, 0.03, 14.6)))
    [entry] = measured(source, [entry], pairs, True)
    race = result_of(source, entry, [entry], pairs)
    assert entry.features is None and "frechet" not in race.scores and "chet" not in report_run.race_table(race)
    source.features = lambda images: images.repeat(1, 3)    # 6 features, 6 seeds
    assert features_of(source, pairs.target) is None


def test_finalists_have_it_and_losers_do_not_and_all_are_shown():
    source = toy_source()
    source.features, source.feature_space = (lambda points: torch.cat([points, points ** 2], 1)), "points"
    pairs = unseen_pairs(source, 24)
    learned = Entry("S4S", "learned", classical.dpmpp_2m(schedules.karras(8, 0.03, 14.6)))
    [learned] = measured(source, [learned], pairs, True)
    entries = [Entry("euler", f"{rho}", classical.euler(schedules.karras(6, 0.03, 14.6, rho))) for rho in (1, 3, 5, 7)]
    ranked = searched(source, entries, pairs, Effort(0, 9, ((6, 9), (24, 2))), features=True)
    assert [entry.features is not None for entry in ranked] == [True, True, False, False]
    race = result_of(source, learned, ranked[::-1], pairs)
    assert [(len(entry.errors), entry.rmse) for entry in race.ranked] == sorted(
        [(len(entry.errors), entry.rmse) for entry in ranked], key=lambda each: (-each[0], each[1]))
    scores = race.scores
    assert scores["feature_space"] == "points" and scores["best_classical_by_frechet"] in {e.name for e in ranked[:2]}
    assert scores["frechet_95"][0] <= scores["frechet"] <= scores["frechet_95"][1]
    assert scores["ratio_frechet"] == pytest.approx(scores["best_frechet"] / scores["frechet"], rel=2e-3)
    table = report_run.race_table(race).splitlines()
    assert f"{scores['frechet']:.4f}" in table[1] and " - " in table[-2] and "euler" in table[-2]


def test_the_bundled_digits_have_a_space_in_which_the_teacher_is_at_no_distance_from_itself():
    source = bundled("digits-eps", 3.0)
    images = torch.rand(70, 1, 28, 28) * 2 - 1
    found = features_of(source, images)
    assert found.shape == (70, 64) and frechet.distance(found, found) == pytest.approx(0, abs=1e-6)
    assert "classifier" in source.feature_space
