"""A race as the hosts hold it: on terms, told as it goes, stopped where the host says so."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.select.cfg import at_cfg
from s4s.training.baselines.measure import baselines
from s4s.training.benchmark import html_report
from s4s.training.benchmark.host_race import RaceProgress, Terms, hold_race, sheet_rows, table_lines
from s4s.training.teacher.pairs import ends
from tests.toy import toy_source


def preset(*calls) -> Preset:
    return Preset("toy", {f"calls{n}": classical.dpmpp_2m(schedules.karras(n, 0.0292, 14.6146)) for n in calls},
                  Model("toy", "eps", 0.0292, 14.6146))


def terms(**changes) -> Terms:
    return Terms(**{"tables": ("calls4",), "seeds": range(6), "budget": 3000, "teacher_calls": 20, **changes})


class Stop(BaseException):
    """A host's interruption."""


def test_the_terms_are_kept_and_every_step_is_told():
    source, seen, steps, finished = toy_source(), [], [], []
    held = hold_race(source, preset(3, 4), terms(tables=("calls3", "calls4")), RaceProgress(
        seen.append, lambda done, total: steps.append((done, total)), lambda name, raced: finished.append(name)))
    assert finished == ["calls3", "calls4"] and seen == [
        "race: measuring the teacher", "race of calls3: the teacher on 6 unseen seeds",
        "race of calls3 on 6 unseen seeds", "race of calls4 on 6 unseen seeds"]            # one teacher for both
    assert all(scores["baselines_raced"] > 60 and scores["seeds"] == 6 for scores in held.scores.values())
    assert {name: held.preset.score(name) for name in held.scores} == held.scores
    assert held.preset.short_hash == preset(3, 4).short_hash
    assert "6 unseen seeds; teacher unipc_bh2_3, " in held.summary
    assert f"{source.model_calls:,} network calls" in held.summary
    assert len(steps) > 20 and source.on_model_calls is None
    made = source.model_calls
    assert [done for done, _ in steps] == sorted(done for done, _ in steps) and steps[-1] == (made, made)
    assert all(abs(total - made) < 0.25 * made for _, total in steps)                   # from the first call on
    taken = held.scores["calls4"]["baselines_raced"]
    assert f"of {taken} baselines that took part" in table_lines(held.raced["calls4"])[-1]


def test_a_race_judges_by_the_teacher_that_the_preset_was_trained_with():
    source, levels = toy_source(), [14.6146, 3.0, 0.5, 0.0]
    known = replace(preset(4), training={"teacher": "euler, 3 calls", "teacher_levels": levels})
    held = hold_race(source, known, terms(), RaceProgress())
    assert re.search("teacher euler, 3 calls, off by RMSE [0-9.]+, as expected of a distilled model; ", held.summary)
    coarse = hold_race(toy_source(), preset(4), terms(budget=850, teacher_calls=6), RaceProgress()).summary
    assert re.search("RMSE [0-9.]+, WARNING: more than a fifth of the tables' expected error; ", coarse)
    assert coarse.endswith(" s; this budget ran all solvers on 3 schedules only, so a closer baseline can be missed")
    assert "can be missed" not in hold_race(toy_source(), preset(4), terms(budget=0), RaceProgress()).summary
    wanted = ends(source, classical.euler(np.array(levels)), held.whole)
    torch.testing.assert_close(held.whole.target, wanted, rtol=0, atol=1e-4)


def test_the_table_compares_those_that_ran_all_seeds():
    """What dropped out has an error of fewer, other seeds."""
    raced = hold_race(toy_source(), preset(4), terms(), RaceProgress()).raced["calls4"]
    whole = {entry.name for entry in raced.ranked if len(entry.errors) == 6}
    *rows, last = table_lines(raced, 99)
    assert {row.split("  ")[2].removesuffix(", within the teacher's error") for row in rows} == {"S4S", *whole}
    every, out = len(raced.ranked), len(raced.ranked) - len(whole)
    assert last == f"  of {every} baselines that took part, on 6 seeds; {out} dropped out early, on fewer"


def test_other_scores_of_the_preset_stay():
    before = replace(preset(3, 4), scores={"calls3": {"ratio": 2.0}, "calls4": {"ratio": 3.0, "cfg": 7.0}})
    after = hold_race(toy_source(), before, terms(), RaceProgress()).preset
    assert after.score("calls3")["ratio"] == 2.0
    assert after.score("calls4", 7.0)["ratio"] == 3.0 and after.score("calls4", 1.0)["seeds"] == 6


def test_a_joined_preset_is_raced_as_it_runs_at_the_cfg(tmp_path):
    """At a learned cfg that one's table, whose score it is; between two the interpolated one, whose score is of the
    stem and counts at this cfg alone; the page has a section of it."""
    joined = replace(preset(4), tables={f"calls4_cfg{cfg:g}": classical.dpmpp_2m(
        schedules.karras(4, 0.0292, 14.6146, rho=cfg)) for cfg in (3.0, 7.0)})
    for cfg, name in ((3.0, "calls4_cfg3"), (5.0, "calls4")):
        source = toy_source()
        source.cfg = cfg
        held = hold_race(source, joined, terms(tables=tuple(joined.tables)), RaceProgress())
        assert list(held.raced) == [name] and list(held.preset.scores) == [name]
        assert at_cfg(held.preset, cfg)[0].score("calls4", cfg) == held.scores[name]
        assert (at_cfg(held.preset, 6.0)[0].score("calls4", 6.0) != {}) == (cfg == 3)
        page = html_report.page(held.preset, held.raced, tmp_path)
        assert ("4 network calls at cfg 5, between those learned" in page) == (cfg == 5)
        assert held.raced[name].learned.table.same_as(at_cfg(joined, cfg)[0].tables["calls4"])
        assert held.preset.tables == joined.tables


def test_published_numbers_become_a_preset_for_the_model_they_were_raced_on():
    source, published = toy_source(), replace(preset(4), training={"imported": "a schedule"})
    source.model = replace(source.model, hashes={"weights_1d": "ab"})
    about = hold_race(source, published, terms(), RaceProgress()).preset.model
    assert (about.family, about.hashes) == (source.model.family, {"weights_1d": "ab"})
    mine = hold_race(source, preset(4), terms(), RaceProgress()).preset
    assert mine.model == preset(4).model                    # learned for a model: it stays


def test_the_same_seeds_give_the_same_scores_and_others_do_not():
    first, again, other = (hold_race(toy_source(), preset(4), terms(seeds=range(at, at + 6)), RaceProgress()).scores
                           for at in (0, 0, 50))
    assert first == again and first != other


def test_a_budget_is_kept_and_a_larger_one_searches_more():
    raced = []
    for budget in (1500, 3000, 20_000):
        source = toy_source()
        held = hold_race(source, preset(4), terms(budget=budget), RaceProgress())
        raced.append(held.scores["calls4"]["baselines_raced"])
        assert source.model_calls <= budget
    assert raced == sorted(raced) and raced[-1] == len(baselines(toy_source(), 4))
    with pytest.raises(ValueError, match="too small for this race: at least [0-9,]{3,5} are needed"):
        hold_race(toy_source(), preset(4), terms(budget=100), RaceProgress())


def test_a_teacher_that_is_off_gets_more_calls_where_the_budget_affords_it():
    found = {budget: hold_race(toy_source(), preset(4), terms(budget=budget, teacher_calls=8), RaceProgress()).summary
             for budget in (850, 8000)}
    assert "teacher unipc_bh2_3, 8 calls" in found[850] and "teacher unipc_bh2_3, 8 calls" not in found[8000]


@pytest.mark.parametrize("flow", [False, True])
def test_where_a_training_began_runs_all_seeds_of_its_race(flow):
    """Whatever it is: else a training could report a win over a field that leaves out what it started from."""
    source = toy_source(flow)
    for entry in baselines(source, 4)[::60]:
        begun = Preset("toy", {"calls4": entry.table}, source.model, {"baseline": {"calls4": entry.name}})
        raced = hold_race(toy_source(flow), begun, terms(budget=1500), RaceProgress()).raced["calls4"]
        assert entry.name in [each.name for each in raced.ranked if len(each.errors) == 6]


def test_an_interruption_passes_from_wherever_it_is_raised():
    def at(call):
        made = []

        def count(done, total):
            made.append(done)
            if len(made) == call:
                raise Stop
        return RaceProgress(count=count)
    for call in (1, 8, 25):                 # in the check of the teacher, in the teacher, in the race
        source = toy_source()
        with pytest.raises(Stop):
            hold_race(source, preset(4), terms(), at(call))
        assert source.on_model_calls is None


def test_the_sheet_shows_the_same_seeds_by_each():
    source = toy_source()
    held = hold_race(source, preset(4), terms(), RaceProgress())
    rows = sheet_rows(source, held)
    assert [label for label, _, _ in rows] == ["teacher", held.raced["calls4"].best.name, "S4S"]
    teacher, best, ours = (latents for _, _, latents in rows)
    assert teacher.shape == best.shape == ours.shape == (4, 2) and torch.equal(teacher, held.whole.target[:4])
    wanted = float(held.raced["calls4"].learned.errors[0])
    assert float((ours[0] - teacher[0]).square().mean().sqrt()) == pytest.approx(wanted, rel=1e-4)
