"""A race as the hosts hold it: on terms, told as it goes, stopped where the host says so."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.select.cfg import at_cfg
from s4s.training.baselines.measure import strong_pairs
from s4s.training.benchmark.host_race import Terms, Told, fitting, hold, rivals, sheet_rows, table_lines
from tests.toy import toy_source


def preset(*calls) -> Preset:
    return Preset("toy", {f"calls{n}": classical.dpmpp_2m(schedules.karras(n, 0.0292, 14.6146)) for n in calls},
                  Model("toy", "eps", 0.0292, 14.6146))


def terms(**changes) -> Terms:
    return Terms(**{"tables": ("calls4",), "seeds": range(6), "opponents": 5, "teacher_calls": 20, **changes})


class Stop(BaseException):
    """A host's interruption."""


def test_the_terms_are_kept_and_every_step_is_told():
    source, seen, steps, finished = toy_source(), [], [], []
    held = hold(source, preset(3, 4), terms(tables=("calls3", "calls4")), Told(
        seen.append, lambda done, total: steps.append((done, total)), lambda name, raced: finished.append(name)))
    assert finished == ["calls3", "calls4"] and [words.split(":")[0] for words in seen[::2]] == [
        "race of calls3", "race of calls4"]
    assert all(scores["pairs_raced"] == 5 and scores["seeds"] == 6 for scores in held.scores.values())
    assert held.preset.scores == held.scores and held.preset.short_hash == preset(3, 4).short_hash
    assert f"6 unseen seeds; {source.model_calls:,} network calls" in held.words
    assert len(steps) > 20 and source.on_model_calls is None
    assert "of 5 classical pairs that took part" in table_lines(held.raced["calls4"])[-1]


def test_the_table_compares_those_that_ran_all_seeds():
    """What dropped out has an error of fewer, other seeds."""
    raced = hold(toy_source(), preset(4), terms(opponents=20), Told()).raced["calls4"]
    whole = {entry.name for entry in raced.ranked if len(entry.errors) == 6}
    *rows, last = table_lines(raced, 99)
    assert {row.split("  ")[2] for row in rows} == {"S4S", *whole} and len(whole) < 20
    assert last == f"  of 20 classical pairs that took part, on 6 seeds; {20 - len(whole)} dropped out early, on fewer"


def test_other_scores_of_the_preset_stay():
    before = replace(preset(3, 4), scores={"calls3": {"ratio": 2.0}})
    assert hold(toy_source(), before, terms(), Told()).preset.scores["calls3"]["ratio"] == 2.0


def test_a_joined_preset_is_raced_as_it_runs_at_the_cfg():
    """At a learned cfg that one's table, whose score it is; between two the interpolated one, which is no table."""
    joined = replace(preset(4), tables={f"calls4_cfg{cfg:g}": classical.dpmpp_2m(
        schedules.karras(4, 0.0292, 14.6146, rho=cfg)) for cfg in (3.0, 7.0)})
    for cfg, name in ((3.0, "calls4_cfg3"), (5.0, "calls4")):
        source = toy_source()
        source.cfg = cfg
        held = hold(source, joined, terms(tables=tuple(joined.tables)), Told())
        assert list(held.raced) == [name] and list(held.preset.scores) == ([name] if cfg == 3 else [])
        assert held.raced[name].learned.table.same_as(at_cfg(joined, cfg)[0].tables["calls4"])
        assert held.preset.tables == joined.tables
        assert ("was learned at this cfg: no score is kept" in held.words) == (cfg == 5)


def test_published_numbers_become_a_preset_for_the_model_they_were_raced_on():
    source, published = toy_source(), replace(preset(4), training={"imported": "a schedule"})
    source.model = replace(source.model, hashes={"weights_1d": "ab"})
    about = hold(source, published, terms(), Told()).preset.model
    assert (about.family, about.hashes) == (source.model.family, {"weights_1d": "ab"})
    assert hold(source, preset(4), terms(), Told()).preset.model == preset(4).model     # learned for a model: it stays


def test_the_same_seeds_give_the_same_scores_and_others_do_not():
    first, again, other = (hold(toy_source(), preset(4), terms(seeds=range(at, at + 6)), Told()).scores
                           for at in (0, 0, 50))
    assert first == again and first != other


def test_a_budget_leaves_opponents_out_and_is_not_exceeded():
    source = toy_source()
    everyone, budget = len(strong_pairs(source)), 520
    assert fitting(source, preset(4), terms(opponents=0)) == everyone
    assert 3 <= fitting(source, preset(4), terms(opponents=0, budget=budget)) < everyone
    hold(source, preset(4), terms(opponents=0, budget=budget), Told())
    assert source.model_calls <= budget
    with pytest.raises(ValueError, match="too small for this race: at least 2[0-9]{2} are needed"):
        hold(source, preset(4), terms(budget=100), Told())


@pytest.mark.parametrize("flow, first", [(False, ("dpmpp_2m", "karras")), (True, ("dpmpp_2m", "shift_1.5"))])
def test_what_wins_most_races_takes_part_first(flow, first):
    source = toy_source(flow)
    assert rivals(source, None, 1) == {first} and len(rivals(source, None, 7)) == 7
    assert rivals(source, None, 10_000) == strong_pairs(source)


def test_an_interruption_passes_from_wherever_it_is_raised():
    def at(call):
        made = []

        def count(done, total):
            made.append(done)
            if len(made) == call:
                raise Stop
        return Told(count=count)
    for call in (1, 25):                    # in the teacher, in the race
        source = toy_source()
        with pytest.raises(Stop):
            hold(source, preset(4), terms(), at(call))
        assert source.on_model_calls is None


def test_the_sheet_shows_the_same_seeds_by_each():
    source = toy_source()
    held = hold(source, preset(4), terms(), Told())
    rows = sheet_rows(source, held)
    assert [label for label, _, _ in rows] == ["teacher", held.raced["calls4"].best.name, "S4S"]
    teacher, best, ours = (latents for _, _, latents in rows)
    assert teacher.shape == best.shape == ours.shape == (4, 2) and torch.equal(teacher, held.whole.target[:4])
    wanted = float(held.raced["calls4"].learned.errors[0])
    assert float((ours[0] - teacher[0]).square().mean().sqrt()) == pytest.approx(wanted, rel=1e-4)
