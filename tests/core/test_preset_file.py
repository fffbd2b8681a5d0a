"""The preset file: what is written is what is read, bit for bit, or the old file stays."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from s4s.s4s_nodes.core import Model, Preset, PresetError, Table, classical, files, preset_file, schedules
from s4s.s4s_nodes.core.model import PREDICTIONS

PARTS = ("sigmas", "query", "scale", "carry", "weights")


def example(**changed) -> Preset:
    """Two tables of a Stable Diffusion model, one of them for the second half of the way."""
    tables = {"calls6": classical.dpmpp_2m(schedules.karras(6, 0.03, 14.6)),
              "calls3_from2.4": classical.unipc(schedules.karras(3, 0.03, 2.4))}
    content = {
        "name": "sd15 portrait", "tables": tables, "licence": "CC0-1.0", "source": "trained here",
        "model": Model("sd15", "eps", 0.0292, 14.6146, channels=4, hashes={"file": "sd15.safetensors"}),
        "training": {"teacher": "unipc_bh2_3, 40 calls", "cfg": 7.5, "pairs": 128, "seconds": 301.5},
        "scores": {"calls6": {"rmse": 0.12, "best classical": "dpmpp_2m 0.18"}}}
    return Preset(**{**content, **changed})


def same(first: Preset, second: Preset) -> bool:
    return set(first.tables) == set(second.tables) and all(
        table.same_as(second.tables[key]) for key, table in first.tables.items())


def bits(table: Table) -> bytes:
    return b"".join(getattr(table, part).tobytes() for part in PARTS)


@st.composite
def tables(draw):
    """Any valid table of 1 to 4 calls, down to the smallest positive double (of levels: float32) and signed zeros."""
    calls = draw(st.integers(1, 4))
    positive = st.floats(5e-324, 1e3)
    number = st.floats(-1e3, 1e3)
    levels = st.floats(2.0 ** -149, 1e3, width=32)          # hosts must be able to tell them apart
    sigmas = sorted(draw(st.lists(levels, min_size=calls, max_size=calls)), reverse=True)
    below = np.tril_indices(calls)
    weights = np.zeros((calls, calls))
    weights[below] = draw(st.lists(number, min_size=len(below[0]), max_size=len(below[0])))
    lists = {"query": positive, "scale": st.floats(5e-324, 10.0), "carry": number}
    rest = {name: draw(st.lists(kind, min_size=calls, max_size=calls)) for name, kind in lists.items()}
    end = draw(st.sampled_from([0.0, sigmas[-1]]))
    return Table([*sigmas, end], weights=weights, keeps_constants=False, **rest)


@settings(max_examples=40)
@given(drawn=st.lists(tables(), min_size=1, max_size=3), prediction=st.sampled_from(PREDICTIONS))
def test_what_is_read_is_what_was_written_bit_for_bit(drawn, prediction, tmp_path):
    model = Model("any", prediction, 0.0, 1.0)
    written = Preset("drawn", {f"t{i}": table for i, table in enumerate(drawn)}, model)
    read = preset_file.load(preset_file.save(written, tmp_path / "p.safetensors"))
    for key, table in written.tables.items():
        assert bits(read.tables[key]) == bits(table) and read.tables[key].same_as(table)
    assert preset_file.to_bytes(read) == preset_file.to_bytes(written)
    assert read.model == model and preset_file.verify(read) == 0


def test_every_field_comes_back(tmp_path):
    written = example(recommended=False)
    read = preset_file.load(preset_file.save(written, tmp_path / "p.safetensors"))
    assert same(read, written)
    assert read.training.pop("self_test") == preset_file.self_test(written)
    assert replace(read, tables=written.tables) == written


def test_the_curve_is_the_longest_full_tables_each_level_once():
    heun = classical.heun(schedules.karras(4, 0.03, 14.6))               # two calls at most levels
    made = example(tables={"a": heun, **example().tables})
    assert made.curve.tolist() == schedules.karras(4, 0.03, 14.6).tolist()
    assert example().curve.tolist() == schedules.karras(6, 0.03, 14.6).tolist()


def test_the_same_preset_gives_the_same_bytes_in_any_order(tmp_path):
    first = example()
    turned = replace(first, tables=dict(reversed(first.tables.items())),
                     training=dict(reversed(first.training.items())))
    assert preset_file.to_bytes(first) == preset_file.to_bytes(turned) == preset_file.to_bytes(example())
    saved = preset_file.save(first, tmp_path / "p.safetensors")
    assert saved.read_bytes() == preset_file.to_bytes(preset_file.load(saved))


@pytest.mark.parametrize("part", PARTS)
def test_the_hash_changes_with_any_number(part):
    table = example().tables["calls6"]
    hashes = {example().short_hash}
    usable = np.tril(np.ones_like(table.weights)) if part == "weights" else np.ones_like(getattr(table, part))
    for index in np.argwhere(usable):
        values = getattr(table, part).copy()
        values[tuple(index)] = np.nextafter(values[tuple(index)], 100)
        numbers = {**{name: getattr(table, name) for name in PARTS}, part: values}
        moved = Table(**numbers, keeps_constants=False)
        hashes.add(example(tables={**example().tables, "calls6": moved}).short_hash)
    assert len(hashes) == 1 + int(usable.sum())


def test_the_hash_names_the_numbers_and_not_the_story():
    assert example(name="other", training={}, scores={}, recommended=False).short_hash == example().short_hash
    flow = replace(example().model, prediction="flow")
    assert example(model=flow).short_hash != example().short_hash


def test_the_table_for_a_number_of_calls_is_the_full_one():
    held = example()
    assert held.counts == [6] and held.table(6) is held.tables["calls6"]
    with pytest.raises(PresetError, match=r"no table for 3 calls; it has \[6\]"):
        held.table(3)


def test_describe_tells_what_a_person_decides_by():
    text = preset_file.describe(example(recommended=False))
    for told in ("sd15 portrait", example().short_hash, "NOT RECOMMENDED", "eps prediction",
                 "0.0292 to 14.6146", "unipc_bh2_3, 40 calls", "7.5", "128", "calls6: 6 calls",
                 "calls3_from2.4: 3 calls", "rmse", "0.12", "best classical", " 14.6 ", " 0.03 0"):
        assert told in text, told
    assert "NOT RECOMMENDED" not in preset_file.describe(example())
    assert text.index("calls3") < text.index("calls6")                      # by the number of calls


@pytest.mark.parametrize(("recorded", "told"), [([1.0, 1.0], "1"), ([3.0, 7.0], "3 to 7"), (7.5, "7.5"), ([], "[]")])
def test_describe_tells_the_cfg_as_a_number_or_a_range(recorded, told):
    assert f"\n  cfg        {told}\n" in preset_file.describe(example(training={"cfg": recorded}))


def test_describe_prints_no_terminal_commands():
    told = preset_file.describe(example(training={"teacher": "\x1b[2Jheun"}, scores={"calls6": {"a\tb": "\x07"}}))
    assert "?[2Jheun" in told and "\x1b" not in told and "a?b" in told and "\x07" not in told


def test_verify_replays_the_self_test(tmp_path):
    read = preset_file.load(preset_file.save(example(), tmp_path / "p.safetensors"))
    assert preset_file.verify(read) == 0
    for change in (1e-6, -0.1):
        answers = {key: list(row) for key, row in read.training["self_test"].items()}
        answers["calls6"][2] += change
        with pytest.raises(PresetError, match="self-test deviates by .* do not do what their maker saw"):
            preset_file.verify(replace(read, training={**read.training, "self_test": answers}))


def test_verify_refuses_a_table_that_answers_nan():
    overflows = Table([2.0, 1.0, 0.0], [2.0, 1.0], [1.0, 1.0], [1e308, -1e308], [[1e308, 0], [1e308, 1]],
                       keeps_constants=False)
    for others in ({}, example().tables):
        held = Preset("bad", {**others, "zz": overflows}, example().model)
        answers = {**preset_file.self_test(held), "zz": [0.0] * 4}
        with pytest.raises(PresetError, match="self-test deviates"):
            preset_file.verify(replace(held, training={"self_test": answers}))
        with pytest.raises(PresetError, match="'bad' cannot be written"):
            preset_file.to_bytes(held)


def test_a_preset_that_was_never_saved_has_no_self_test():
    with pytest.raises(PresetError, match="carries no self-test"):
        preset_file.verify(example())


def test_with_scores_changes_only_scores_and_verdict():
    held = example()
    scored = preset_file.with_scores(held, {"calls6": {"rmse": 1.0, "lost": True}})
    assert scored.score("calls6") == {"rmse": 1.0, "lost": True} and scored.lost == ["calls6"] and scored.recommended
    assert not preset_file.with_scores(scored, {name: {"lost": True} for name in held.tables}).recommended
    assert replace(scored, scores=held.scores) == held


UNUSABLE = {
    "no table": ({"tables": {}}, "holds no table"),
    "too many tables": ({"tables": dict.fromkeys(map(str, range(201)), example().tables["calls6"])},
                        "holds 201 tables: expected 1 to 200"),
    "a table too large": ({"tables": {"calls151": classical.euler(np.linspace(14.6, 0, 152))}}, "has 151 calls"),
    "an empty name": ({"name": ""}, "1 to 100 printable characters"),
    "a name with a line break": ({"name": "a\nb"}, "printable"),
    "a name that is a number": ({"name": 7}, "printable"),
    "a table name that is a path": ({"tables": {"../x": example().tables["calls6"]}}, "table name '../x'"),
    "scores of a wrong shape": ({"scores": {"calls6": 0.12}}, "scores must be"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_content_is_refused_when_it_is_made(case):
    changed, message = UNUSABLE[case]
    with pytest.raises(PresetError, match=message):
        example(**changed)


@pytest.mark.parametrize("changed, message", [
    ({"prediction": "noise"}, "model.prediction is 'noise': use one of eps, v, flow, x0"),
    ({"sigma_max": 0.01}, "sigma_min 0.0292 is not below sigma_max 0.01"),
    ({"sigma_min": -1.0}, "sigma_min is '-1.0'"), ({"sigma_min": True}, "sigma_min is 'True'"),
    ({"sigma_max": float("inf")}, "sigma_max is 'inf'"), ({"sigma_max": 10 ** 400}, "sigma_max is '1000"),
    ({"shift": 0.0}, "shift is '0.0': expected null or a number above"), ({"shift": ""}, "model.shift"),
    ({"channels": 2.5}, "channels is '2.5'"), ({"channels": True}, "channels is 'True'"),
    ({"family": 15}, "family is '15'"), ({"zero_terminal_snr": 1}, "true or false"),
    ({"hashes": []}, "hashes"),
])
def test_a_model_is_checked(changed, message):
    with pytest.raises(PresetError, match=message):
        replace(example().model, **changed)


@pytest.mark.parametrize("training", [{"loss": float("nan")}, {"loss": np.float32(1)}, {"when": object()}])
def test_records_that_are_no_json_are_refused_before_anything_is_written(training, tmp_path):
    with pytest.raises(PresetError, match="'sd15 portrait' cannot be written"):
        preset_file.save(example(training=training), tmp_path / "p.safetensors")
    assert not list(tmp_path.iterdir())


# --- a disk that fails --------------------------------------------------------------------------------------

class FullDisk:
    """A file that takes half of what it is given."""

    def __init__(self, path, mode):
        self.file = open(path, mode)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, content):
        self.file.write(content[:len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def fail(error):
    def raises(*_):
        raise error
    return raises


FAILURES = {
    "the disk is full while writing": lambda patch: patch.setattr(files, "open", FullDisk, raising=False),
    "the disk is full at the end": lambda patch: patch.setattr(os, "fsync", fail(OSError(errno.ENOSPC, ""))),
    "the place is locked": lambda patch: patch.setattr(os, "replace", fail(PermissionError(13, "in use"))),
    "the user interrupts": lambda patch: patch.setattr(os, "fsync", fail(KeyboardInterrupt())),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(case, tmp_path, monkeypatch):
    path = preset_file.save(example(), tmp_path / "p.safetensors")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        FAILURES[case](patch)
        with pytest.raises((OSError, KeyboardInterrupt)):
            preset_file.save(example(name="newer"), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["p.safetensors"]
    assert path.read_bytes() == before
    assert preset_file.load(preset_file.save(example(name="newer"), path)).name == "newer"


def test_missing_folders_are_made(tmp_path):
    assert preset_file.load(preset_file.save(example(), tmp_path / "a" / "b" / "p.safetensors")).name == "sd15 portrait"


@settings(max_examples=10)
@given(name=st.text(st.characters(codec="utf-8"), min_size=1, max_size=100).filter(str.isprintable))
def test_any_printable_name_survives(name, tmp_path):
    assert preset_file.load(preset_file.save(example(name=name), tmp_path / "p.safetensors")).name == name
