"""The table that ran comes back out of an image's metadata, to the digit, and nothing else does."""

import json
import os
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from s4s.s4s_nodes import metadata
from s4s.s4s_nodes.core import Model, Preset, PresetError, classical, preset_file, schedules
from s4s.s4s_nodes.library import Library, ModelFacts, Request, select
from tests.bench.proof.forked import Child

MODEL = Model("sd15", "eps", 0.0292, 14.6146, channels=4, hashes={"weights_1d": "ab" * 32, "file": "private name"})
FACTS = replace(ModelFacts.of(MODEL), fingerprint=lambda: MODEL.hashes)
CUT = schedules.karras(12, 0.03, 14.6146)[6:]
MINE = Preset("portraits", {"calls6": classical.unipc(schedules.karras(6, 0.03, 14.6146)),
                            "calls6_from1": classical.dpmpp_2m(CUT)},
              MODEL, {"cfg": [4, 6], "resolution": [64, 64], "created": "2026-01-01", "teacher": "long"})


def ran(preset=MINE, **request):
    return select(Request(FACTS, [preset] if preset else [], **{"steps": 6, "cfg": 5.0, **request}))


def text(**changed) -> str:
    return json.dumps({**json.loads(metadata.to_text(ran(), FACTS)), **changed})


@pytest.mark.parametrize("found", [
    ran(), ran(levels=CUT, steps=None), ran(levels=np.linspace(14.6146, 0, 8), steps=None), ran(None),
    ran(None, steps=40)])
def test_what_ran_comes_back_to_the_digit(found):
    back = metadata.from_text(metadata.to_text(found, FACTS))
    (table,) = back.tables.values()
    assert table.same_as(found.table)
    assert back.model.prediction == "eps" and back.model.sigma_max == MODEL.sigma_max


def test_a_zero_keeps_its_sign():
    table = replace(ran().table, carry=np.where(ran().table.carry == 0, -0.0, ran().table.carry))
    assert metadata.from_text(metadata.to_text(replace(ran(), table=table), FACTS)).tables["calls6"].same_as(table)


def test_it_runs_by_name_as_the_table_it_was():
    back = metadata.from_text(metadata.to_text(ran(), FACTS))
    again = ran(back, named=back)
    assert again.kind == "exact" and again.belongs and not again.warns and again.table.same_as(ran().table)


def test_six_calls_take_two_thousand_characters_and_no_file_name():
    made = metadata.to_text(ran(), FACTS)
    assert len(made) < 2000 and "private" not in made


def test_a_table_too_large_for_an_image_is_left_out():
    whole = classical.dpmpp_2m(schedules.karras(300, 0.03, 14.6146))
    dense = np.tril(np.random.default_rng(0).normal(size=(300, 300)))
    found = replace(ran(), table=replace(whole, weights=dense, keeps_constants=False))
    assert metadata.to_text(found, FACTS) is None


@pytest.mark.parametrize("changed", [
    {"s4s_table": 2}, {"s4s_table": True}, {"name": ""}, {"name": 3}, {"table": "../x"}, {"model": {"family": "x"}},
    {"model": {**{"family": "x", "prediction": "eps", "sigma_min": 0, "sigma_max": 1}, "more": 1}}, {"sigmas": []},
    {"sigmas": [1, 2, 0]}, {"sigmas": ["14", 0]}, {"weights": [[1]]}, {"weights": [[1, 2]] * 6}, {"weights": []},
    {"carry": [True] * 6}, {"carry": [1e308] * 6}, {"carry": [10 ** 400] * 6}, {"query": [1] * 5}, {"scale": None},
    {"hash": "0123456789"}, {"training": []}, {"recommended": 1}])
def test_a_changed_record_is_refused_with_a_reason(changed):
    with pytest.raises(PresetError, match="."):
        metadata.from_text(text(**changed))


@pytest.mark.parametrize("made", ["", "null", "[" * 100_000, "{" * 50, '{"s4s_table":1,"s4s_table":1}', "x" * 2 ** 18,
                                  '{"s4s_table":1,"sigmas":NaN}', '{"s4s_table":' + "9" * 5000 + "}"])
def test_another_text_is_refused(made):
    with pytest.raises(PresetError):
        metadata.from_text(made)


@settings(max_examples=200, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda x: st.lists(x, max_size=4)),
       st.sampled_from(["name", "table", "model", "sigmas", "carry", "weights", "query", "scale", "hash", "training"]))
def test_whatever_stands_in_an_entry_gives_a_preset_or_a_refusal(value, entry):
    try:
        metadata.from_text(text(**{entry: value}))
    except PresetError:
        pass


@settings(max_examples=100, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_text_with_a_few_other_characters_never_gives_other_numbers(chance: random.Random):
    made = list(text())
    for _ in range(chance.randint(1, 3)):
        made[chance.randrange(len(made))] = chance.choice('0123456789.-e,[]{}"')
    try:
        back = metadata.from_text("".join(made))
    except PresetError:
        return
    assert next(iter(back.tables.values())).same_as(ran().table) or back.model.prediction != "eps"


def saved(tmp_path, ending: str = ".png", **texts):
    path = tmp_path / f"image{ending}"
    if ending == ".png":
        info = PngInfo()
        for key, value in texts.items():
            info.add_text(key, value)
        Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    else:
        exif = Image.Exif()
        for tag, (key, value) in enumerate(texts.items()):
            exif[0x010F - tag] = f"{key}:{value}"
        Image.new("RGB", (8, 8)).save(path, exif=exif)
    return path


@pytest.mark.parametrize("ending", [".png", ".webp", ".jpg"])
def test_an_image_gives_each_preset_once_with_all_its_tables(tmp_path, ending):
    first, second = metadata.to_text(ran(), FACTS), metadata.to_text(ran(levels=CUT, steps=None), FACTS)
    notes = [{"node": "3", "numbers": first}, {"node": "4", "numbers": json.loads(second)}]
    made = saved(tmp_path, ending, s4s=json.dumps(notes), workflow=json.dumps({"extra": {"s4s": notes}}), prompt="{}")
    (back,) = metadata.from_image(made)
    assert back.name == "portraits" and set(back.tables) == {"calls6", "calls6_from1"}
    assert back.tables["calls6"].same_as(MINE.tables["calls6"])


def test_the_preset_of_an_image_can_be_saved_and_is_the_models_own(tmp_path):
    made = saved(tmp_path, s4s=metadata.to_text(ran(), FACTS))
    preset_file.save(metadata.from_image(made)[0], tmp_path / "back.safetensors")
    kept = Library([tmp_path]).get("back")
    assert ran(kept).kind == "exact" and ran(kept).table.same_as(ran().table)


@pytest.mark.parametrize("texts", [{}, {"prompt": "{}"}, {"s4s": "[]"}, {"s4s": '[{"s4s_table"'}])
def test_an_image_without_a_table_says_so(tmp_path, texts):
    with pytest.raises(PresetError, match="carries no table"):
        metadata.from_image(saved(tmp_path, **texts))


@pytest.mark.parametrize("content", [b"", b"not an image", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_another_file_is_refused(tmp_path, content):
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(PresetError, match="not a readable image"):
        metadata.from_image(path)


def test_a_packed_table_comes_back_and_fits_an_infotext():
    wanted = metadata.to_text(ran(), FACTS)
    letters = metadata.pack(wanted)
    assert metadata.unpack(letters) == wanted and len(letters) < 0.8 * len(wanted)
    assert not set(letters) - set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    for damaged in (letters[:-9], letters[9:], "", "AAAA", "é", metadata.pack("1" * (metadata.MAX_TEXT + 1))):
        with pytest.raises(PresetError, match="packed table"):
            metadata.unpack(damaged)


def test_a_picture_of_webui_holds_its_tables_in_its_parameters(tmp_path):
    letters = [metadata.pack(metadata.to_text(found, FACTS)) for found in (ran(), ran(levels=CUT, steps=None))]
    line = f"Steps: 6, S4S: portraits, S4S table: {letters[0]}, Hires S4S table: {letters[1]}, Version: 1.10"
    [made] = metadata.from_image(saved(tmp_path, parameters=f"a cat\n{line}"))
    assert set(made.tables) == {"calls6", "calls6_from1"} and made.name == "portraits"


def test_what_ran_from_an_image_keeps_the_first_presets_hash():
    first = metadata.from_text(metadata.to_text(ran(), FACTS))
    second = metadata.from_text(metadata.to_text(ran(first), FACTS))
    assert metadata.origin_of(second) == metadata.origin_of(first) == {"name": "portraits", "preset": MINE.long_hash}


def packed(number: int) -> str:
    record = {"s4s_table": 1, "n": number, "p": [[]] * 40_000}
    return f"S4S table: {metadata.pack(json.dumps(record, separators=(',', ':')))}"


HOSTILE = {"packed lists": ", ".join(map(packed, range(2000))),
           "small packed texts": ", ".join(f"S4S table: {metadata.pack(str(number))}" for number in range(100_000)),
           "lists": '{"s4s_table_":[' + "[]," * 1_200_000 + "0]}",
           "numbers": '{"s4s_table_":[' + "1e1," * 900_000 + "0]}",
           "records": json.dumps([{"s4s_table": 1, "i": number} for number in range(100_000)]),
           "a record of many numbers": text(query=[0] * 1_500_000),
           "texts in texts": json.dumps(["s4s_table" + json.dumps(["[]," * 1_000_000])] * 2)}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="limits are set in a fork")
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_image_takes_no_second_and_no_100_mb(tmp_path, kind):
    made = saved(tmp_path, s4s=HOSTILE[kind])
    with pytest.raises(PresetError):
        metadata.from_image(saved(tmp_path, ".jpg"))            # what is imported on first use counts for none

    def refuse() -> str:
        try:
            return f"read {metadata.from_image(made)}"
        except PresetError:
            return "refused"
    done = Child(refuse, megabytes=100).result()
    assert done.get("result") == "refused" and done["seconds"] < 1 and done["megabytes"] < 100, done


def test_deep_nesting_is_refused():
    with pytest.raises(PresetError, match="nested too deeply"):
        metadata.from_text(text(training={"x": json.loads("[" * 100 + "]" * 100)}))
