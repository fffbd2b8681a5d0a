"""A preset for two models that take turns: which half runs where, and what is said where none may."""

from dataclasses import replace

import numpy as np
import pytest

from s4s.s4s_nodes.core import Model, Preset, PresetError, classical, experts
from s4s.s4s_nodes.select import ModelFacts, Request, match, select
from s4s.s4s_nodes.select.cfg import join_presets
from s4s.s4s_nodes.select.selection import schedule

BOUNDARY, STEPS, TURN = 0.875, 5, 2
LEVELS = np.array([1.0, 0.95, BOUNDARY, 0.6, 0.3, 0.0])
HASHES = {"weights_1d": "high", "low_noise": {"weights_1d": "low"}}
TABLE = experts.restarted(classical.dpmpp_2m, LEVELS, BOUNDARY, True)
PAIR = Preset("pair", {"calls5": TABLE}, Model("wan21", "flow", 0.008, 1.0, channels=16, hashes=HASHES),
              {"cfg": [3.5, 3.5], "resolution": [60, 104], "experts": {"boundary": BOUNDARY, "cfg": 5.0}})
CFG = {"high": 3.5, "low": 5.0}
HEAD, TAIL = LEVELS[:TURN + 1], LEVELS[TURN:]


def model(weights: str, **more) -> ModelFacts:
    return ModelFacts("wan21", "flow", 0.008, 1.0, channels=16, shift=8.0,
                      fingerprint=lambda: {"weights_1d": weights, **more})


def asked(weights: str, levels, preset: Preset = PAIR, **more):
    given = {"cfg": CFG.get(weights), "size": (60, 104), **more}
    return select(Request(model(weights), [preset], levels=levels, **given))


@pytest.mark.parametrize("weights, levels, rows", [
    ("high", HEAD, "the first 2 of its 5 calls, of the high-noise model"),
    ("low", TAIL, "the last 3 of its 5 calls, of the low-noise model")])
def test_each_model_runs_its_half(weights, levels, rows):
    found = asked(weights, levels)
    assert found.kind == "exact" and not found.fallback and not found.warns and found.preset is PAIR
    assert found.table_name == "calls5" and rows in found.message()
    half = PAIR.experts[weights == "low"].tables["calls5"]
    assert found.table.same_as(half)


PARTS = {"high": (0, TURN), "low": (TURN, STEPS)}


def levels_of(weights: str, patches: dict | None = None, **asked) -> np.ndarray:
    """The schedule that this model gets in one of two samplers."""
    given = {"cfg": CFG[weights], "size": (60, 104), "part": PARTS[weights], **asked}
    return schedule(Request(model(weights, **(patches or {})), [PAIR], STEPS, **given))


@pytest.mark.parametrize("weights", ["high", "low"])
def test_both_models_get_one_schedule(weights):
    np.testing.assert_array_equal(levels_of(weights), LEVELS)
    np.testing.assert_array_equal(levels_of(weights, part=None), LEVELS)                # of BasicScheduler
    np.testing.assert_array_equal(levels_of(weights, part=None, cfg=None, size=None), LEVELS)
    assert select(Request(model(weights), [PAIR], STEPS)).fallback          # of all steps in one sampler none is its


@pytest.mark.parametrize("weights", ["high", "low"])
@pytest.mark.parametrize("unlike", [
    {"cfg": 1.0}, {"cfg": 7.0}, {"patches": {"patches": "a Lightning LoRA"}}, {"size": (240, 416)},
    {"part": (0, STEPS)}, {"part": (0, TURN + 1)}, {"part": (TURN - 1, STEPS)}])
def test_levels_are_the_models_own_where_no_half_belongs(weights, unlike):
    """At another cfg, with a LoRA, at another size, in one sampler, or where the models change at another step."""
    plain = schedule(Request(model(weights), [], STEPS))
    np.testing.assert_array_equal(levels_of(weights, **unlike), plain)
    found = select(Request(model(weights, **unlike.get("patches", {})), [PAIR], levels=plain, cfg=1.0))
    assert found.fallback and "on the model's own levels" in found.message() and not found.own_levels


@pytest.mark.parametrize("weights", ["high", "low"])
def test_on_the_models_own_levels_it_still_says_why_no_half_runs(weights):
    first, last = PARTS[weights]
    plain = schedule(Request(model(weights), [], STEPS))

    def said(cut, **more):
        return asked(weights, plain[cut], **more).message()
    mine, other = slice(first, last + 1), slice(0, TURN + 1) if weights == "low" else slice(TURN, STEPS + 1)
    assert f"pair was learned at cfg {CFG[weights]:g}, you use 1" in said(mine, cfg=1.0)
    assert "one belongs" in said(other) and "swap the two models" in said(other)
    assert "changes models at step 2 of 5" in said(slice(0, TURN + 2)) and "changes models" in said(slice(None))


@pytest.mark.parametrize("unlike", [{}, {"cfg": 1.0}, {"patches": {"patches": "a LoRA"}}])
def test_what_continues_another_sampler_follows_its_levels(unlike):
    plain = schedule(Request(model("low"), [], STEPS))
    np.testing.assert_array_equal(levels_of("low", start=BOUNDARY, **unlike), LEVELS)
    np.testing.assert_array_equal(levels_of("low", start=float(plain[TURN]), **unlike), plain)


def test_a_fallback_on_levels_of_the_pair_does_not_call_them_the_models_own():
    found = asked("high", HEAD, cfg=1.0)
    assert found.fallback and "on the given levels" in found.message()
    assert np.array_equal(found.table.sigmas, HEAD)


def test_a_stranger_and_another_number_of_steps_get_no_level_of_it():
    for request in (Request(model("other"), [PAIR], STEPS), Request(model("high"), [PAIR], STEPS + 1)):
        assert not set(select(request).schedule[1:-1]) & set(LEVELS[1:-1])


@pytest.mark.parametrize("flaw", [{"recommended": False}, {"training": {**PAIR.training, "unfinished": True}}])
def test_what_lost_or_is_unfinished_gives_no_schedule(flaw):
    assert not set(select(Request(model("high"), [replace(PAIR, **flaw)], STEPS)).schedule[1:-1]) & set(LEVELS[1:-1])


@pytest.mark.parametrize("weights, levels", [("high", TAIL), ("low", HEAD)])
def test_exchanged_models_fall_back_and_say_so(weights, levels):
    found = asked(weights, levels)
    assert found.fallback and found.warns and "swap the two models" in found.message()
    assert found.about is PAIR and np.allclose(found.table.sigmas[[0, -1]], levels[[0, -1]])


@pytest.mark.parametrize("weights", ["high", "low"])
@pytest.mark.parametrize("levels", [LEVELS, LEVELS[:2], LEVELS[1:], LEVELS[3:], np.append(LEVELS[:2], 0.0)])
def test_other_cuts_fall_back_and_say_where_the_models_change(weights, levels):
    found = asked(weights, levels)
    assert found.fallback and found.warns and "pair changes models at step 2 of 5 (level 0.875)" in found.message()
    assert "end_at_step and start_at_step there" in found.message() and found.table.calls == len(levels) - 1


@pytest.mark.parametrize("weights, levels", [("high", HEAD), ("low", TAIL)])
def test_each_model_has_its_own_cfg_and_verdict(weights, levels):
    other = asked(weights, levels, cfg=4.2)
    assert other.fallback and f"learned at cfg {CFG[weights]:g}" in other.message()
    lost = replace(PAIR, scores={"calls5": {"raced": {"cfg": 3.5, "lost": True}}})
    assert asked(weights, levels, lost).fallback and "lost its race" in asked(weights, levels, lost).message()
    assert not asked(weights, levels, replace(PAIR, scores={"calls5": {"raced": {"cfg": 3.5, "lost": False}}})).fallback


def test_a_named_one_runs_on_strangers_with_a_warning_and_not_if_strict():
    found = asked("other", TAIL, named=PAIR)
    assert found.kind == "exact" and found.warns and not found.belongs and "You named it" in found.message()
    assert asked("other", TAIL, named=PAIR, strict=True).fallback
    assert not asked("low", TAIL, named=PAIR, strict=True).warns


def test_a_preset_for_two_belongs_to_both_and_patches_are_seen():
    assert match.belongs(PAIR, model("high")) and match.belongs(PAIR, model("low"))
    assert not match.belongs(PAIR, model("other")) and not match.belongs(PAIR, model("low", patches="a LoRA"))
    found = select(Request(model("low", patches="a LoRA"), [PAIR], levels=TAIL, cfg=5.0))
    assert found.fallback and "pair was learned on this model without LoRAs and patches" in found.message()


def test_presets_for_two_are_not_joined():
    with pytest.raises(PresetError, match="two models"):
        join_presets([PAIR, replace(PAIR, name="other", training={**PAIR.training, "cfg": 5.0})], "both")
