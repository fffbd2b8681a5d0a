"""Which preset is for a model, and which of them runs: by rule, and said."""

from dataclasses import replace

import numpy as np
import pytest

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules
from s4s.s4s_nodes.select import ModelFacts, Request, levels_for, match, select, suits, table_for

SD15 = ModelFacts("sd15", "eps", 0.0292, 14.6146, channels=4)
FLUX = ModelFacts("flux", "flow", 0.0003, 1.0, channels=16, shift=3.16)


OURS = {"weights_1d": "ab"}
MINE = replace(SD15, fingerprint=lambda: OURS)


def own(name="any", *arguments, **more) -> Preset:
    """A preset that was learned on MINE."""
    return preset(name, *arguments, **{"hashes": OURS, **more})


def ask(presets, facts=MINE, cfg=None, calls=6, start=None, **more):
    """What runs for so many steps of our schedule, or from a level down."""
    levels = None if start is None else schedules.karras(calls, 0.03, start)
    given = {"steps": calls} if start is None else {"levels": levels, "own_schedule": True}
    return select(Request(facts, presets, cfg=cfg, **given, **more))


def ran(presets, *arguments, **more) -> str | None:
    """The name of the preset that runs."""
    found = ask(presets, *arguments, **more).preset
    return found and found.name


def preset(name="any", calls=(6,), training=None, recommended=True, **model) -> Preset:
    about = Model(**{"family": "sd15", "prediction": "eps", "sigma_min": 0.0292, "sigma_max": 14.6146, "channels": 4,
                     **model})
    levels = {n: schedules.linear_flow(n) if about.flow else schedules.karras(n, 0.03, about.sigma_max) for n in calls}
    tables = {f"calls{n}": classical.dpmpp_2m(levels[n], about.flow) for n in calls}
    return Preset(name, tables, about, training or {}, recommended=recommended)


@pytest.mark.parametrize("changed, reason", [
    ({"prediction": "v"}, "it is for v prediction, the model's is eps"),
    ({"zero_terminal_snr": True}, "it is for zero terminal SNR, the model has none"),
    ({"sigma_max": 80.0}, "it is for levels up to 80, the model's go up to 14.61"),
    ({"channels": 16}, "it is for 16 latent channels, the model has 4"),
    ({"sigma_max": 14.8}, None), ({"channels": None}, None), ({"family": "sdxl"}, None), ({"sigma_min": 0.01}, None)])
def test_a_preset_suits_or_says_why_not(changed, reason):
    assert suits(preset(**changed), SD15) == reason


def test_zero_terminal_snr_is_one_family_whatever_number_stands_for_endless():
    facts = replace(SD15, prediction="v", zero_terminal_snr=True, sigma_max=4518.8)
    assert suits(preset(prediction="v", zero_terminal_snr=True, sigma_max=4096.0), facts) is None
    assert suits(preset(prediction="v"), facts) == "it is for no zero terminal SNR, the model has it"


def test_a_shift_only_moves_the_models_own_schedule():
    flow = preset(family="flux", prediction="flow", sigma_min=0.001, sigma_max=1.0, channels=16, shift=1.0)
    assert suits(flow, FLUX) is None


def test_only_a_preset_of_these_weights_runs_by_itself():
    by_range, by_family = preset("range", family="sdxl"), preset("family", calls=(4, 5, 6))
    by_hash = own("hash", family="my model")
    assert ran([by_range, by_family, by_hash]) == "hash"
    assert not ask([by_range, by_family, by_hash]).fallback
    for others in ([by_range], [by_family], [by_range, by_family], []):
        found = ask(others)
        assert found.fallback and found.kind == "classical" and found.preset is None
        assert found.message() == ("S4S fallback: no preset was trained for this model. UniPC bh2 of order 2 on the "
                                   "model's own levels ran; train one for this model.")


def test_what_a_preset_records_of_a_model_is_what_a_host_sees():
    facts = replace(FLUX, fingerprint=lambda: {"weights_1d": "ab"})
    assert facts.model.hashes == {"weights_1d": "ab"} and SD15.model.hashes == {}
    assert ModelFacts.of(facts.model) == FLUX


def test_a_hash_does_not_make_a_preset_valid():
    assert ran([own()], replace(MINE, prediction="v")) is None


def test_weights_are_hashed_only_where_a_preset_that_suits_has_a_hash():
    def asked():
        raise AssertionError("asked for the fingerprint")
    facts = replace(SD15, fingerprint=asked)
    assert ran([preset(), own(prediction="v")], facts) is None
    with pytest.raises(AssertionError, match="asked for the fingerprint"):
        ran([own()], facts)


def test_not_recommended_presets_wait_to_be_asked_for():
    """Not even on the weights it was made for."""
    found = ask([own("slow", recommended=False)])
    assert found.fallback and "slow lost its race" in found.message() and "choose it by name" in found.message()
    assert ran([], named=own("slow", recommended=False)) == "slow"


def test_a_preset_learned_through_a_lora_is_for_that_lora_and_no_other():
    plain, styled = own("plain"), own("styled", hashes={**OURS, "patches": "12"})
    facts = {name: replace(SD15, fingerprint=lambda more=more: {**OURS, **more})
             for name, more in (("base", {}), ("lora", {"patches": "12"}), ("other", {"patches": "34"}))}
    assert [ran([plain, styled], facts[name]) for name in facts] == ["plain", "styled", None]
    assert "styled was learned on this model with other LoRAs and patches" in ask([styled], facts["base"]).message()
    assert "plain was learned on this model without LoRAs and patches" in ask([plain], facts["lora"]).message()
    assert ask([plain, styled], facts["other"]).warns


@pytest.mark.parametrize("record, asked, why", [
    ({"guidance": 3.5}, {"guidance": (3.5,)}, ""), ({"guidance": 3.5}, {"guidance": (3.8,)}, ""),
    ({"guidance": 3.5}, {"guidance": (3.5, 30.0)}, "learned at distilled guidance 3.5, you use 3.5 to 30"),
    ({"guidance": [3.0, 5.0]}, {"guidance": (4.0,)}, ""), ({"guidance": 3.5}, {}, ""), ({}, {"guidance": (30.0,)}, ""),
    ({}, {"around": ""}, ""), ({"hooks": "hooks 12"}, {}, ""), ({"hooks": "hooks 12"}, {"around": "hooks 12"}, ""),
    ({"hooks": "hooks 12"}, {"around": ""}, "learned with hooks 12, this sampling has cfg alone"),
    ({}, {"around": "a refiner"}, "learned with cfg alone, this sampling has a refiner")])
def test_what_else_acts_in_a_sampling_is_compared_where_it_is_known(record, asked, why):
    made = own("one", training=record)
    found, named = ask([made], **asked), ask([], named=made, **asked)
    assert (found.fallback, found.warns) == (bool(why),) * 2 and f"one was {why}" * bool(why) in found.message()
    assert named.preset is made and named.warns == bool(why)


@pytest.mark.parametrize("size, words", [((2, 8, 8), ""), ((8, 8), ""), (
    (20, 8, 8), " (learned on 1 and 2 latent frames, you have 20)")])
def test_another_number_of_frames_is_said_and_runs(size, words):
    made = own("clip", training={"resolution": [[1, 8, 8], [2, 8, 8]]})
    for found in (ask([made], size=size), ask([], named=made, size=size)):
        assert found.preset is made and not found.warns and found.why.endswith(f"its levels{words}"), found.why


def test_a_lora_of_the_command_line_is_not_taken_for_the_base_model():
    assert ran([own("styled", training={"loras": ["style.safetensors:0.8"]})]) is None


@pytest.mark.parametrize("record, runs", [
    ({"run": "k", "created": "2026-02-01"}, True), ({}, True), ({"run": "k"}, False), ({"unfinished": True}, False)])
def test_an_unfinished_preset_waits_to_be_asked_for(record, runs):
    found = ask([own("half", training=record)])
    assert found.fallback == (not runs) and ("the training of half is unfinished" in found.message()) == (not runs)
    named = ask([], named=own("half", training=record))
    assert named.preset.name == "half" and ("unfinished" in named.message()) == (not runs)


def test_only_the_table_that_lost_its_race_is_avoided():
    held = own("mixed", calls=(4, 6))
    window = classical.dpmpp_2m(schedules.karras(4, 0.03, 3.0))
    held = replace(held, tables={**held.tables, "calls4_from3": window}, scores={
        "calls4": {"ratio": 0.9, "recommended": False}, "calls6": {"ratio": 1.2, "recommended": True},
        "calls4_from3": {"ratio": 1.1, "recommended": True}})
    assert held.recommended and held.lost == ["calls4"]
    assert ran([held], calls=6) == "mixed" and ran([held], calls=4, start=2.8) == "mixed"
    assert "calls4 of mixed lost its race" in ask([held], calls=4).message()
    assert ran([held, own("other", calls=(4,))], calls=4) == "other"
    clause = "not recommended: a classical solver did better in its race"
    for table, said in (("calls4", True), ("calls6", False), ("calls4_from3", False)):
        assert (clause in table_for(held.tables[table].sigmas, MINE, held).message()) == said


def test_a_race_at_another_cfg_says_nothing_of_this_one():
    """Won at cfg 2, lost at cfg 2.2: each counts where it was measured."""
    held = own("raced", training={"cfg": [2.0, 2.2]})
    for cfg, lost in ((2.0, False), (2.42, True)):
        held = preset_file.with_scores(held, {"calls6": {"cfg": cfg, "lost": lost, "seeds": 16}})
    assert ran([held], calls=6, cfg=2.0) == "raced" and ran([held], calls=6, cfg=2.42) is None


def test_a_file_with_one_verdict_means_all_its_tables():
    old = replace(own("old", calls=(4, 6), recommended=False), scores={"calls4": {"ratio": 0.9}})
    assert old.lost == ["calls4", "calls6"] and ran([old]) is None


@pytest.mark.parametrize("worse, better", [
    ({"training": {"cfg": [7.5, 9.0]}, "calls": (4, 5, 6)}, {"training": {"cfg": [5.0, 9.0]}}),
    ({"calls": (6,)}, {"calls": (4, 6)}),
    ({"training": {"created": "2026-01-31"}}, {"training": {"created": "2026-02-01"}}),
    ({"training": {}}, {"training": {"created": "2026-02-01"}})])
def test_among_equals_cfg_then_tables_then_age_decide(worse, better):
    one, other = own("one", **worse), own("other", **better)
    assert ran([one, other], cfg=7.0) == ran([other, one], cfg=7.0) == "other"


def test_among_true_equals_the_first_is_taken():
    first, second = own("first"), own("second")
    assert ran([first, second]) == "first" and ran([second, first]) == "second"


@pytest.mark.parametrize("trained, cfg, runs", [
    ([2.0, 2.0], 7.0, False), ([2.0, 2.0], 4.0, False), ([2.0, 2.0], 2.2, True), ([7.0, 7.0], 6.3, True),
    ([7.0, 7.0], 6.2, False), ([7.0, 7.0], 7.7, True), (3, 7.0, False), ([2.0, 8.0], 7.0, True), ("high", 7.0, True),
    (10 ** 400, 7.0, True), ([2.0, 2.0], None, True)])
def test_a_table_runs_near_the_cfg_it_was_learned_at(trained, cfg, runs):
    found = ask([own("mine", training={"cfg": trained})], cfg=cfg)
    assert found.fallback == (not runs)
    assert runs or f"mine was learned at cfg {match.cfg_range(found.about)[0]:g}, you use {cfg:g}. " in found.message()
    assert ran([], cfg=cfg, named=own("mine", training={"cfg": trained})) == "mine"


def test_a_cfg_outside_the_trained_range_is_said_of_a_preset_that_was_named():
    found = ask([], cfg=7.0, named=own(training={"cfg": [2.0, 5.0]}))
    assert "(trained at cfg 2 to 5, not at 7)" in found.message() and found.warns and found.belongs
    assert not ask([], cfg=4.0, named=own(training={"cfg": [2.0, 5.0]})).warns


def test_the_distance_to_the_cfg_counts_before_the_number_of_tables():
    low, high = own("low", (4, 5, 6, 8), {"cfg": 7.4}), own("high", (6,), {"cfg": [7.9, 9.0]})
    assert ran([low, high], cfg=8.0) == ran([high, low], cfg=8.0) == "high"


@pytest.mark.parametrize("size, runs", [
    ((64, 64), True), ((64, 96), True), ((96, 96), False), ((32, 64), True), ((32, 32), False), (None, True)])
def test_a_table_runs_near_the_size_it_was_learned_on(size, runs):
    found = ask([own("mine", training={"resolution": [64, 64]})], size=size)
    assert found.fallback == (not runs)
    assert runs or "mine was learned on latents of 64 x 64, this one is" in found.message()
    assert not ask([own("mine")], size=size).fallback                          # a record without sizes


@pytest.mark.parametrize("size, runs", [((64, 64), True), ((180, 180), True), ((300, 300), False), ((40, 40), False)])
def test_a_table_of_several_sizes_runs_near_any_of_them(size, runs):
    found = ask([own("mine", training={"resolution": [[64, 64], [128, 128]]})], size=size)
    assert found.fallback == (not runs)
    assert runs or f"learned on latents of 64 x 64 and 128 x 128, this one is {size[0]} x {size[1]}" in found.message()


@pytest.mark.parametrize("record", [[], [[]], [[64]], "64", [["a", 1]], [[0, 0]], [[0.2, 64]], [True, True], {"a": 1}])
def test_a_size_that_is_none_is_as_if_not_recorded(record):
    assert not ask([own("mine", training={"resolution": record})], size=(64, 64)).fallback


def test_a_message_is_two_sentences_and_the_rest_is_detail():
    presets = [own("a", (4,)), own("b", (4,), recommended=False), preset("c"), preset("d", family="sdxl")]
    found = ask(presets, calls=20)
    assert found.message() == ("S4S fallback: a has 4 steps, you asked for 20. UniPC bh2 of order 2 on the model's own "
                               "levels ran; set the steps to one of these, or train for 20.")
    assert "b (" in found.details and "c (" not in found.details and found.about is presets[0]


def test_facts_that_make_no_model_are_refused():
    with pytest.raises(ValueError, match="prediction is 'epsilon': use one of eps, v, flow, x0"):
        ModelFacts("unknown", "epsilon", 0.03, 14.6)
    with pytest.raises(ValueError, match="sigma_min 14.6 is not below sigma_max 0.03"):
        ModelFacts("unknown", "eps", 14.6, 0.03)


def test_of_two_presets_for_the_same_weights_the_one_with_a_table_of_these_calls_is_taken():
    """However well the other's cfg fits: without a table it could only fall back."""
    four, six = own("four", (4,), {"cfg": 7.0}), own("six", (6,), {"cfg": 7.3})
    for calls, wanted in ((4, "four"), (6, "six"), (9, None)):
        assert ran([four, six], cfg=7.0, calls=calls) == wanted


def test_of_two_presets_for_the_same_weights_the_one_with_a_window_from_this_level_is_taken():
    """A full table of as many calls would not run from there: the other's window does."""
    full, windows = own("full", (4, 5, 6)), own("windows", (6,))
    window = classical.dpmpp_2m(schedules.karras(5, 0.03, 2.0))
    windows = replace(windows, tables={**windows.tables, "calls5_from2": window})
    for start, wanted in ((2.0, "windows"), (2.6, "windows"), (6.0, None), (14.6, "full"), (None, "full")):
        assert ran([full, windows], cfg=7.0, calls=5, start=start) == wanted, start


@pytest.mark.parametrize("theirs, mine", [
    ({"weights_1d": "ab", "file": "other"}, True), ({"weights_1d": "cd", "file": "model"}, False),
    ({"sha256_10": "12", "file": "model"}, True), ({"tensors_sha256": "99", "file": "model"}, False)])
def test_the_most_telling_hash_that_both_sides_have_decides(theirs, mine):
    """Two checkpoints are both called model.safetensors; their weights differ, so a name is no hash."""
    facts = replace(SD15, fingerprint=lambda: {"weights_1d": "ab", "sha256_10": "12", "file": "model"})
    assert ask([preset(hashes=theirs)], facts).fallback == (not mine)


def test_a_preset_that_was_named_runs_on_another_model_and_says_so_unless_matching_is_strict():
    other = preset("other", family="sdxl", hashes={"weights_1d": "cd"})
    found = ask([], named=other)
    assert found.preset is other and found.warns and not found.belongs and not found.fallback
    assert found.message().endswith("You named it: it was not learned on this model")
    strict = ask([], named=other, strict=True)
    assert strict.fallback and "other was not learned on this model, and matching is strict" in strict.message()
    plain = ask([])                                 # nothing of it runs: the levels are the model's own, too
    assert strict.message().split(". ")[1].startswith("UniPC bh2 of order 2 on the model's own levels ran")
    assert np.array_equal(strict.schedule, plain.schedule) and not np.array_equal(strict.schedule, found.schedule)
    for levels, whose in ((plain.schedule, "the model's own"), (found.schedule, "the given")):
        later = select(Request(MINE, [], levels=levels, named=other, strict=True))      # its sampler, told of neither
        assert f"on {whose} levels ran" in later.message()
    for mine in (own("mine"), own("mine", family="sdxl")):
        assert not ask([], named=mine, strict=True).fallback and not ask([], named=mine).warns


# --- a family's published schedule ------------------------------------------------------------------------------

def ask7(presets, facts=MINE, **more):
    """At a cfg at which published schedules run."""
    return ask(presets, facts, **{"cfg": 7.0, **more})


def ran7(*arguments, **more) -> str | None:
    found = ask7(*arguments, **more).preset
    return found and found.name


def published(name="gits", calls=(4, 6), **more) -> Preset:
    return preset(name, calls, {"imported": "schedule with the solver ipndm_2"}, **more)


@pytest.fixture(autouse=True)
def ships(monkeypatch):
    """The published schedule of these tests is one that ships for the family."""
    monkeypatch.setattr(match, "FAMILY_SCHEDULES", {"sd15": published().short_hash})


def test_published_numbers_run_as_a_fallback_on_their_family_only():
    found = ask7([published()])
    assert found.fallback and found.warns and found.preset.name == "gits" and found.kind == "exact"
    assert found.message() == (
        f"S4S fallback: no preset was trained for this model. gits ({found.preset.short_hash}), calls6 ran (published "
        "numbers, not measured on this checkpoint); train one for this model.")
    for family in ("sdxl", "sd20", "unknown"):
        assert ran7([published()], replace(MINE, family=family)) is None


def test_published_numbers_that_do_not_ship_run_only_by_name():
    stranger = published("mine", (5, 6))
    assert ran7([stranger]) is None and ran7([stranger], named=stranger) == "mine"
    assert "published numbers, not measured on this checkpoint" in ask7([], named=stranger).message()
    assert not ask7([], named=stranger, strict=True).fallback                 # it is for this family


def test_published_numbers_run_at_their_numbers_of_calls_only():
    for calls in (5, 20):
        assert ran7([published(calls=(4, 6))], calls=calls) is None
    assert "no preset was trained for this model. UniPC" in ask7([published(calls=(4, 6))], calls=20).message()


@pytest.mark.parametrize("cfg, most", [(None, 0), (1.0, 0), (3.0, 0), (4.0, 7), (5.0, 9), (6.0, 10), (7.5, 10)])
def test_published_numbers_run_where_they_were_measured_to_be_better(cfg, most, monkeypatch):
    """Unknown cfg, a low one, many calls: the plain choice, with its own levels."""
    everywhere = published(calls=tuple(range(4, 14)))
    monkeypatch.setattr(match, "FAMILY_SCHEDULES", {"sd15": everywhere.short_hash})
    for calls in range(4, 14):
        found = ask([everywhere], cfg=cfg, calls=calls)
        assert (found.preset is everywhere) == (calls <= most)
        if found.preset is None:
            assert found.message().startswith("S4S fallback: no preset was trained for this model. UniPC bh2")
            assert found.table.sigmas.tolist() == levels_for(None, MINE, calls).tolist()


@pytest.mark.parametrize("calls", [4, 6])
def test_a_preset_of_ones_own_beats_published_numbers(calls):
    assert ran7([published(), own("mine", (4, 6))], calls=calls) == "mine"


def test_published_numbers_step_in_where_ones_own_preset_has_no_table():
    found = ask7([published(), own("mine", (5,))], calls=6)
    assert found.preset.name == "gits" and found.fallback and "mine has 5 steps, you asked for 6" in found.message()


def test_published_numbers_that_lost_a_race_on_these_weights_are_not_taken_there():
    lost = {"calls4": {"ratio": 0.9, "recommended": False}, "calls6": {"ratio": 1.2, "recommended": True}}
    raced = replace(published("gits raced", hashes=OURS), scores=lost)
    others = replace(SD15, fingerprint=lambda: {"weights_1d": "cd"})
    assert ran7([published(), raced], calls=4) is None
    assert "lost its race" in ask7([published(), raced], calls=4).message()
    found = ask7([published(), raced], calls=6)
    assert found.preset is raced and not found.fallback and "not measured" not in found.message()
    assert ran7([published(), raced], others, calls=4) == "gits"


def test_published_numbers_for_these_weights_are_theirs():
    mine = published("mine", hashes=OURS)
    found = ask7([mine], replace(MINE, family="unknown"))
    assert found.preset is mine and not found.fallback


def test_published_numbers_are_said_to_be_unmeasured_where_they_run():
    made = published()
    words = table_for(made.table(6).sigmas, SD15, made).message()
    assert words.endswith("these are its levels (published numbers, not measured on this checkpoint)")
