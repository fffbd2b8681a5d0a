"""Which preset is for a model: by rule, and said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.select import ModelFacts, choose, suits, table_for

SD15 = ModelFacts("eps", 0.0292, 14.6146, family="sd15", channels=4)
FLUX = ModelFacts("flow", 0.0003, 1.0, family="flux", channels=16, shift=3.16)


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


def test_a_hash_beats_the_family_and_the_family_beats_the_range():
    by_range, by_family = preset("range", family="sdxl"), preset("family", calls=(4, 5, 6))
    by_hash = preset("hash", family="my model", hashes={"weights_1d": "ab"})
    facts = replace(SD15, fingerprint=lambda: {"weights_1d": "ab"})
    presets = [by_range, by_family, by_hash]
    chosen, why = choose(presets, facts)
    assert chosen is by_hash and "is made for these weights" in why and "family" in why and "fits less well" in why
    chosen, why = choose(presets[:2], facts)
    assert chosen is by_family and "is for the family sd15" in why
    chosen, why = choose(presets[:1], facts)
    assert chosen is by_range and "was made for sdxl, not sd15: race it before you trust it" in why


def test_an_unfinished_preset_is_taken_by_name_only():
    """Even one that won a race since."""
    stopped = preset("stopped", training={"unfinished": True}, hashes={"weights_1d": "ab"})
    facts = replace(SD15, fingerprint=lambda: {"weights_1d": "ab"})
    chosen, why = choose([stopped], facts)
    assert chosen is None and "its training is unfinished" in why
    finished = preset("finished")
    assert choose([stopped, finished], facts)[0] is finished
    levels = stopped.tables["calls6"].sigmas
    assert "(unfinished: its training was stopped)" in table_for(levels, facts, stopped).words()


def test_what_a_preset_records_of_a_model_is_what_a_host_sees():
    facts = replace(FLUX, fingerprint=lambda: {"weights_1d": "ab"})
    assert facts.model.hashes == {"weights_1d": "ab"} and SD15.model.hashes == {}
    assert ModelFacts.of(facts.model) == FLUX and replace(SD15, family=None).model.family == "unknown"


def test_a_hash_does_not_make_a_preset_valid():
    facts = replace(SD15, prediction="v", fingerprint=lambda: {"weights_1d": "ab"})
    chosen, why = choose([preset(hashes={"weights_1d": "ab"})], facts)
    assert chosen is None and "no preset is for this model" in why and "it is for eps prediction" in why


def test_weights_are_hashed_only_where_a_preset_that_suits_has_a_hash():
    def asked():
        raise AssertionError("asked for the fingerprint")
    facts = replace(SD15, fingerprint=asked)
    assert choose([preset(), preset(prediction="v", hashes={"weights_1d": "ab"})], facts)[0] is not None
    with pytest.raises(AssertionError, match="asked for the fingerprint"):
        choose([preset(hashes={"weights_1d": "ab"})], facts)


def test_not_recommended_presets_wait_to_be_asked_for():
    ours = replace(SD15, fingerprint=lambda: {"weights_1d": "ab"})
    for hashes in ({}, {"weights_1d": "ab"}):                              # not even on the weights it was made for
        chosen, why = choose([preset("slow", recommended=False, hashes=hashes)], ours)
        assert chosen is None and "slow" in why and "it is marked as not recommended" in why


def test_only_the_table_that_lost_its_race_is_avoided():
    held = preset("mixed", calls=(4, 6))
    window = classical.dpmpp_2m(schedules.karras(4, 0.03, 3.0))
    held = replace(held, tables={**held.tables, "calls4_from3": window}, scores={
        "calls4": {"ratio": 0.9, "recommended": False}, "calls6": {"ratio": 1.2, "recommended": True},
        "calls4_from3": {"ratio": 1.1, "recommended": True}})
    assert held.recommended and held.lost == ["calls4"]
    assert choose([held], SD15, calls=6)[0] is held and choose([held], SD15)[0] is held
    chosen, why = choose([held], SD15, calls=4)
    assert chosen is None and "its table calls4 is marked as not recommended" in why
    assert choose([held], SD15, calls=4, start=2.8)[0] is held
    other = preset("other", calls=(4,))
    assert choose([held, other], SD15, calls=4)[0] is other
    clause = "not recommended: a classical solver did better in its race"
    for table, said in (("calls4", True), ("calls6", False), ("calls4_from3", False)):
        assert (clause in table_for(held.tables[table].sigmas, SD15, held).words()) == said


def test_a_file_with_one_verdict_means_all_its_tables():
    old = replace(preset("old", calls=(4, 6), recommended=False), scores={"calls4": {"ratio": 0.9}})
    assert old.lost == ["calls4", "calls6"] and choose([old], SD15, calls=6)[0] is None


def test_another_familys_preset_needs_latents_known_to_be_alike():
    for facts, family in ((replace(SD15, channels=None), "sdxl"), (replace(SD15, family=None, channels=None), "sd15")):
        chosen, why = choose([preset(family=family)], facts)
        assert chosen is None and "whether their latents are alike is not known" in why
    assert choose([preset(family="SD15", channels=None)], SD15)[0] is not None


@pytest.mark.parametrize("worse, better", [
    ({"training": {"cfg": [1.0, 4.0]}, "calls": (4, 5, 6)}, {"training": {"cfg": [5.0, 9.0]}}),
    ({"calls": (6,)}, {"calls": (4, 6)}),
    ({"training": {"created": "2026-01-31"}}, {"training": {"created": "2026-02-01"}}),
    ({"training": {}}, {"training": {"created": "2026-02-01"}})])
def test_among_equals_cfg_then_tables_then_age_decide(worse, better):
    one, other = preset("one", **worse), preset("other", **better)
    assert choose([one, other], SD15, 7.0)[0] is other and choose([other, one], SD15, 7.0)[0] is other


def test_among_true_equals_the_first_is_taken():
    first, second = preset("first"), preset("second")
    assert choose([first, second], SD15)[0] is first and choose([second, first], SD15)[0] is second


def test_a_cfg_outside_the_trained_range_is_said_and_not_refused():
    assert "(trained at cfg 2 to 5, not at 7)" in choose([preset(training={"cfg": [2.0, 5.0]})], SD15, 7.0)[1]
    assert "(trained at cfg 3, not at 7)" in choose([preset(training={"cfg": 3})], SD15, 7.0)[1]
    assert "cfg" not in choose([preset(training={"cfg": [2.0, 8.0]})], SD15, 7.0)[1]
    assert "cfg" not in choose([preset(training={"cfg": "high"})], SD15, 7.0)[1]


def test_everything_passed_over_is_named_with_its_reason():
    presets = [preset("a"), preset("b", prediction="v"), preset("c", recommended=False), preset("d", family="sdxl")]
    chosen, why = choose(presets, SD15)
    assert chosen is presets[0]
    for name, reason in (("b", "it is for v prediction"), ("c", "it is marked as not recommended"), ("d", "it fits")):
        assert f"{name} ({presets[0].short_hash if name != 'b' else presets[1].short_hash}): {reason}" in why
    assert choose([], SD15) == (None, "no preset is installed")


def test_facts_that_make_no_model_are_refused():
    with pytest.raises(ValueError, match="prediction is 'epsilon': use one of eps, v, flow, x0"):
        ModelFacts("epsilon", 0.03, 14.6)
    with pytest.raises(ValueError, match="levels from 14.6 to 0.03"):
        ModelFacts("eps", 14.6, 0.03)


def test_of_two_presets_for_the_same_weights_the_one_with_a_table_of_these_calls_is_taken():
    """However well the other's cfg fits: without a table it could only fall back."""
    four, six = preset("four", (4,), {"cfg": 7.0}), preset("six", (6,), {"cfg": 3.0})
    for calls, wanted in ((4, four), (6, six)):
        assert choose([four, six], SD15, 7.0, calls)[0] is wanted
    assert choose([four, six], SD15, 7.0, 9)[0] is four


def test_of_two_presets_for_the_same_weights_the_one_with_a_window_from_this_level_is_taken():
    """A full table of as many calls would not run from there: the other's window does."""
    full, windows = preset("full", (4, 5, 6)), preset("windows", (6,))
    window = classical.dpmpp_2m(schedules.karras(5, 0.03, 2.0))
    windows = replace(windows, tables={**windows.tables, "calls5_from2": window})
    for start, wanted in ((2.0, windows), (2.6, windows), (6.0, full), (14.6, full), (None, full)):
        assert choose([full, windows], SD15, 7.0, 5, start=start)[0] is wanted, start


def test_a_record_of_any_numbers_is_no_danger():
    assert "cfg" not in choose([preset(training={"cfg": 10 ** 400})], SD15, 7.0)[1]


# --- published numbers without a race -------------------------------------------------------------------------

def published(name="ays", calls=(4, 6), **more) -> Preset:
    return preset(name, calls, {"imported": "a schedule"}, **more)


def test_published_numbers_run_on_their_family_only():
    chosen, why = choose([published()], SD15, calls=6)
    assert chosen is not None and "is for the family sd15" in why
    assert "(published numbers, not measured on this checkpoint)" in why
    for family in ("sdxl", "sd20", None):
        chosen, why = choose([published()], replace(SD15, family=family), calls=6)
        assert chosen is None and "its published numbers were not measured elsewhere" in why


def test_published_numbers_run_at_their_numbers_of_calls_only():
    chosen, why = choose([published()], SD15, calls=20)
    assert chosen is None and "it has no table for 20 calls" in why
    assert choose([published()], SD15)[0] is not None                      # a host that does not know the calls yet


@pytest.mark.parametrize("calls", [4, 9])
def test_a_measured_preset_beats_published_numbers_whatever_these_have(calls):
    own = replace(preset("own", (6,)), scores={"calls6": {"rmse": 0.1}})
    trained = preset("trained", (6,))                                      # a training without a race is no import
    for mine in (own, trained):
        assert choose([published(calls=(4, 6, 8, 9)), mine], SD15, calls=calls)[0] is mine


def test_published_numbers_that_were_raced_are_published_no_longer():
    raced = replace(published(), scores={"calls6": {"rmse": 0.1}})
    chosen, why = choose([published(), raced], SD15, calls=6)
    assert chosen is raced and "not measured" not in why.partition(". Passed over")[0]


def test_published_numbers_that_lost_a_race_on_these_weights_are_not_taken_there():
    lost = {"calls4": {"ratio": 0.9, "recommended": False}, "calls6": {"ratio": 1.2, "recommended": True}}
    raced = replace(published("ays raced", hashes={"weights_1d": "ab"}), scores=lost)
    ours = replace(SD15, fingerprint=lambda: {"weights_1d": "ab"})
    others = replace(SD15, fingerprint=lambda: {"weights_1d": "cd"})
    chosen, why = choose([published(), raced], ours, calls=4)
    assert chosen is None and "ays (" in why and "its numbers lost a race on these weights" in why
    assert choose([published(), raced], ours, calls=6)[0] is raced
    assert choose([published(), raced], others, calls=4)[0].name == "ays"


def test_published_numbers_for_these_weights_are_theirs():
    ours = replace(SD15, family=None, fingerprint=lambda: {"weights_1d": "ab"})
    chosen, why = choose([published(hashes={"weights_1d": "ab"})], ours, calls=20)
    assert chosen is not None and "is made for these weights" in why


def test_strict_matching_leaves_other_families_out_and_says_so():
    other = preset("other", family="sdxl")
    assert choose([other], SD15)[0] is other
    chosen, why = choose([other], SD15, strict=True)
    assert chosen is None and "it is for sdxl, the model's family is sd15, and matching is strict" in why
    ours = replace(SD15, fingerprint=lambda: {"weights_1d": "ab"})
    assert choose([preset(family="sdxl", hashes={"weights_1d": "ab"})], ours, strict=True)[0] is not None


@pytest.mark.parametrize("theirs, made_for", [
    ({"weights_1d": "ab", "file": "other"}, True), ({"weights_1d": "cd", "file": "model"}, False),
    ({"sha256_10": "12", "file": "model"}, True), ({"tensors_sha256": "99", "file": "model"}, True)])
def test_the_most_telling_hash_that_both_sides_have_decides(theirs, made_for):
    """Two checkpoints are both called model.safetensors; their weights differ."""
    ours = replace(SD15, family="other", fingerprint=lambda: {"weights_1d": "ab", "sha256_10": "12", "file": "model"})
    chosen, why = choose([preset(hashes=theirs)], ours)
    assert chosen is not None and ("made for these weights" in why) == made_for


def test_published_numbers_are_said_to_be_unmeasured_where_they_run():
    made = published()
    words = table_for(made.table(6).sigmas, SD15, made).words()
    assert words.endswith("these are its levels (published numbers, not measured on this checkpoint)")
