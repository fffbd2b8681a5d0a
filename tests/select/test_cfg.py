"""Presets with tables at several guidance scales: what runs at a cfg, what a host's levels become, how one is made."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Model, Preset, PresetError, preset_file, schedules, sketch
from s4s.s4s_nodes.select import ModelFacts, levels_for, table_for
from s4s.s4s_nodes.select.cfg import at_cfg, between, join_presets, learned_at
from tests.select.test_between import learned

MODEL = Model("toy", "eps", 0.1, 14.6, channels=4)
FACTS = ModelFacts("unknown", "eps", 0.1, 14.6, channels=4)
SEEDS = {2.0: 1, 4.0: 2, 8.0: 3}


def single(cfg: float, counts=(5, 6), **more) -> Preset:
    """A preset as a training at one cfg leaves it."""
    tables = {f"calls{n}": learned(False, SEEDS.get(cfg, 9), n, rho=7 - cfg / 8) for n in counts}
    return Preset(f"at-{cfg:g}", tables, MODEL, {"cfg": [cfg, cfg]}, **more)


def three(**more) -> Preset:
    return join_presets([single(cfg, **more) for cfg in (8.0, 2.0, 4.0)], "toy")


def test_a_joined_preset_names_its_tables_by_their_cfg_and_survives_its_file(tmp_path):
    made = three()
    assert learned_at(made) == {f"calls{n}": {cfg: f"calls{n}_cfg{cfg:g}" for cfg in (2.0, 4.0, 8.0)} for n in (5, 6)}
    assert made.training["cfg"] == [2.0, 8.0] and made.training["joined"] == ["at-2", "at-4", "at-8"]
    assert preset_file.load(preset_file.save(made, tmp_path / "toy.safetensors")).counts == [5, 6]


def test_at_a_trained_cfg_its_own_table_runs_between_two_their_mean_and_beyond_them_the_last():
    made = three()
    for cfg, wanted in ((4.0, made.tables["calls6_cfg4"]), (0.5, made.tables["calls6_cfg2"]),
                        (30.0, made.tables["calls6_cfg8"]), (None, made.tables["calls6_cfg4"]),
                        (5.0, between(made.tables["calls6_cfg4"], made.tables["calls6_cfg8"], 0.25, False))):
        found, clause = at_cfg(made, cfg)
        assert found.tables["calls6"].same_as(wanted) and sorted(found.tables) == ["calls5", "calls6"]
        assert ("between those learned at cfg 4 and 8" in clause) == (cfg == 5.0)


@pytest.mark.parametrize("order", [1, -1])
def test_a_joined_preset_is_recommended_where_one_of_them_is(order):
    lost = single(2.0, (6,), recommended=False, scores={"calls6": {"ratio": 0.9}})
    won = single(8.0, (6,), scores={"calls6": {"ratio": 1.3}})
    made = join_presets([lost, won][::order], "toy")
    assert made.recommended and made.lost == ["calls6_cfg2"] and made.score("calls6_cfg8") == {"ratio": 1.3}
    assert not join_presets([lost, replace(won, recommended=False)], "toy").recommended


def test_a_preset_learned_at_one_cfg_is_left_alone():
    one = single(4.0)
    assert at_cfg(one, 7.0) == (one, "")


def test_a_schedule_that_knows_no_cfg_meets_a_sampler_that_does():
    """The scheduler gives the middle table's levels; the sampler puts those of its cfg in their place."""
    made = three()
    levels = levels_for(made, FACTS, 6)
    assert np.array_equal(levels, made.tables["calls6_cfg4"].sigmas)
    for cfg in (2.0, 3.0, 6.5):
        choice = table_for(levels, FACTS, made, cfg)
        assert choice.table.same_as(at_cfg(made, cfg)[0].tables["calls6"])
        assert choice.preset is made and choice.own_levels and not choice.fallback
    assert "between those learned at cfg 4 and 8" in table_for(levels, FACTS, made, 6.5).message()
    assert table_for(levels, FACTS, made, 4.0).kind == "exact"


def test_a_cfg_beyond_the_trained_range_is_said():
    words = table_for(levels_for(three(), FACTS, 6), FACTS, three(), 12.0).message()
    assert "as learned at cfg 8" in words and "trained at cfg 2 to 8, not at 12" in words


def test_a_foreign_schedule_still_falls_back_and_says_nothing_of_cfg():
    choice = table_for(schedules.simple(6, schedules.sd_levels()), FACTS, three(), 3.0)
    assert choice.fallback and "learned at cfg" not in choice.message()


def test_a_table_between_two_is_as_little_recommended_as_the_worse_of_them():
    made = three()
    made = replace(made, scores={"calls6_cfg4": {"ratio": 1.3, "recommended": True},
                                 "calls6_cfg8": {"ratio": 0.9, "recommended": False}})
    assert at_cfg(made, 5.0)[0].score("calls6", 5.0)["ratio"] == 0.9
    assert at_cfg(made, 4.0)[0].score("calls6", 4.0)["ratio"] == 1.3
    assert "not recommended" in table_for(levels_for(made, FACTS, 6), FACTS, made, 5.0).message()
    raced = preset_file.with_scores(made, {"calls6": {"ratio": 1.1, "cfg": 5.2, "lost": False}})
    assert at_cfg(raced, 5.0)[0].recommends("calls6", 5.0)              # what a race between them found comes first
    assert not at_cfg(raced, 6.5)[0].recommends("calls6", 6.5)


def test_tables_that_cannot_be_moved_are_not_interpolated():
    """Repeated levels have no table between them: the nearest runs."""
    low, high = (single(cfg, counts=(5,)) for cfg in (2.0, 4.0))
    table = low.tables["calls5"]
    sigmas = np.array([*table.sigmas[:2], table.sigmas[1], *table.sigmas[3:]])
    odd = replace(low, tables={"calls5": replace(table, sigmas=sigmas, keeps_constants=False)})
    found, clause = at_cfg(join_presets([odd, high], "toy"), 2.5)
    assert np.array_equal(found.tables["calls5"].sigmas, sigmas) and "as learned at cfg 2" in clause


def test_only_presets_of_one_model_at_different_cfgs_are_joined():
    other = replace(single(8.0), model=replace(MODEL, family="other"))
    checkpoint = replace(single(8.0), model=replace(MODEL, hashes={"file": "another.safetensors"}))
    for presets, words in (([single(2.0)], "1 preset was given"), ([single(2.0), other], "only presets for one model"),
                           ([single(2.0), checkpoint], "for toy, at-2 for toy, other in hashes"),
                           ([single(2.0), single(2.0)], "both learned at cfg 2"),
                           ([single(2.0), three()], r"says cfg \[2.0, 8.0\]")):
        with pytest.raises(PresetError, match=words):
            join_presets(presets, "toy")


def test_presets_of_one_model_in_two_precisions_are_joined():
    """A network that was loaded in half precision has the sketch of the other but for its rounding."""
    network = {"norm": torch.rand(64, generator=torch.Generator().manual_seed(0))}
    one, other = (sketch.sketch({"norm": network["norm"].to(kind)}) for kind in (torch.float32, torch.bfloat16))
    pair = [replace(single(cfg), model=replace(MODEL, hashes={"weights_1d": found, "file": f"at {cfg}", **more}))
            for cfg, found, more in ((2.0, one, {}), (8.0, other, {}), (4.0, other, {"patches": "ab"}))]
    assert one != other and learned_at(join_presets(pair[:2], "toy"))
    with pytest.raises(PresetError, match="other in hashes"):
        join_presets(pair[1:], "toy")


@pytest.mark.parametrize("recorded", [[3.0, "x"], [], [3.0, None], "3", None, True, 0, [math.nan], {"cfg": 3.0}])
def test_a_record_that_is_not_one_cfg_is_refused_where_presets_are_joined(recorded):
    odd = replace(single(3.0), training={"cfg": recorded})
    with pytest.raises(PresetError, match="expected a preset learned at one cfg above 0"):
        join_presets([single(2.0), odd], "toy")


@pytest.mark.parametrize("recorded", [3, 3.0, [3.0], (3, 3.0)])
def test_one_cfg_may_be_recorded_alone_or_in_a_list(recorded):
    assert join_presets([single(2.0), replace(single(3.0), training={"cfg": recorded})], "toy").trained_cfg == [2, 3]
