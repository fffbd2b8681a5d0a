"""Scores are kept by condition, and the one of the condition at hand is read."""

import json
from dataclasses import replace

import pytest

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules, scores


def preset(**changes) -> Preset:
    return Preset("one", {"calls4": classical.euler(schedules.karras(4, 0.03, 14.6))}, Model("sd15", "eps", 0.03, 14.6),
                  **{"training": {"cfg": [2.0, 2.0]}, **changes})


def score(cfg: float, lost: bool = False, **more) -> dict:
    return {"cfg": cfg, "size": [64, 64], "where": "ComfyUI cuda", "seeds": 16, "lost": lost, "ratio": 1.2, **more}


def test_a_race_at_another_cfg_never_changes_the_verdict_of_this_one():
    won = preset_file.with_scores(preset(), {"calls4": score(2.0)})
    both = preset_file.with_scores(won, {"calls4": score(7.0, lost=True)})
    assert both.recommended and both.recommends("calls4") and both.recommends("calls4", 2.0)
    assert both.recommends("calls4", 2.2) and not both.recommends("calls4", 7.0) and not both.recommends("calls4", 6.5)
    assert both.score("calls4", 2.0) == score(2.0) and both.score("calls4", 30.0) == score(2.0)     # the trainer's own
    other = preset_file.with_scores(preset(), {"calls4": score(7.0, lost=True)})                    # it has none
    assert other.recommended and other.recommends("calls4", 2.0) and not other.recommends("calls4", 7.0)


def test_a_score_is_replaced_by_one_of_the_same_condition_alone():
    made = preset()
    for new in (score(2.0), score(2.0, seeds=64), score(2.0, where="WebUI cuda"), score(2.0, size=[96, 64]),
                score(2.0, lost=True)):
        made = preset_file.with_scores(made, {"calls4": new})
    assert sorted(made.scores["calls4"]) == [
        "cfg 2, 64 x 64, ComfyUI cuda, 16 seeds", "cfg 2, 64 x 64, ComfyUI cuda, 64 seeds",
        "cfg 2, 64 x 64, WebUI cuda, 16 seeds", "cfg 2, 96 x 64, ComfyUI cuda, 16 seeds"]
    assert made.score("calls4", 2.0, (64, 64))["seeds"] == 64                                   # the surest
    assert made.score("calls4", 2.0, (96, 64))["size"] == [96, 64]                              # of this size


def test_a_race_at_another_size_decides_nothing():
    made = preset(training={"cfg": [2.0, 2.0], "resolution": [64, 64]})
    lost = preset_file.with_scores(made, {"calls4": score(2.0, lost=True, size=[96, 96])})
    assert lost.recommended and lost.recommends("calls4", 2.0, (64, 64)) and lost.score("calls4", 7.0) == {}
    assert not lost.recommends("calls4", 2.0, (96, 96)) and not lost.recommends("calls4", 2.0, (96, 64))
    near = preset_file.with_scores(made, {"calls4": score(2.0, lost=True, size=[[96, 96], [64, 80]])})
    assert not near.recommends("calls4", 2.0, (64, 64))
    assert not preset_file.with_scores(preset(), {"calls4": score(2.0, lost=True, size=[96, 96])}).recommended


@pytest.mark.parametrize("old, lost", [
    ({"ratio": 0.9, "recommended": False, "cfg": 3.0, "seeds": 8}, True), ({"ratio": 1.3, "recommended": True}, False),
    ({"ratio": 0.9}, None), ({}, None)])
def test_scores_of_older_files_are_read(old, lost, tmp_path):
    made = preset_file.load(preset_file.save(preset(scores={"calls4": old}, training={}), tmp_path / "old.safetensors"))
    assert made.score("calls4") == old and scores.lost(made.score("calls4")) is lost
    assert made.recommends("calls4") == (not lost)


def test_scores_go_through_a_file_unchanged(tmp_path):
    made = preset_file.with_scores(preset(), {"calls4": score(2.0)})
    made = preset_file.with_scores(made, {"calls4": score(7.0)})
    again = preset_file.load(preset_file.save(made, tmp_path / "one.safetensors"))
    assert again.scores == made.scores == json.loads(json.dumps(made.scores))


@pytest.mark.parametrize("found", [{"a": {"cfg": "x", "seeds": None, "size": 3}}, {"a": {"lost": 1}}, {"a": {}}, {}])
def test_whatever_a_file_holds_is_no_reason_to_fail(found):
    made = replace(preset(), scores={"calls4": found})
    assert made.recommends("calls4", 2.0, (64, 64)) and isinstance(made.score("calls4", 7.0), dict)
    assert "calls4" in preset_file.describe(made)
