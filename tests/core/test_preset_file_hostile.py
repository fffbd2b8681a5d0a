"""Files somebody else made: every one of them is a valid preset or a PresetError that says what is wrong."""

import json
import os
import pickle
import random
import struct
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings, strategies as st
from safetensors.torch import save as save_torch

from s4s.s4s_nodes.core import Model, Preset, PresetError, Table, classical, container, preset_file, schedules

TABLES = {"calls2": classical.dpmpp_2m(schedules.karras(2, 0.03, 14.6)),
          "calls3": classical.unipc(schedules.karras(3, 0.03, 14.6))}
GOOD = Preset("good", TABLES, Model("sd15", "eps", 0.03, 14.6, channels=4, hashes={"file": "a"}),
              {"teacher": "heun", "seed": 1}, {"calls3": {"rmse": 0.1}}, licence="MIT", source="here")
BYTES = preset_file.to_bytes(GOOD)
HEADER = struct.unpack("<Q", BYTES[:8])[0]


def parts() -> tuple[dict, dict]:
    """(description, tensors) of the good preset, free to be changed."""
    header = json.loads(BYTES[8:8 + HEADER])
    return json.loads(header["__metadata__"]["s4s_preset"]), safetensors.numpy.load(BYTES)


def packed(content, tensors: dict) -> bytes:
    """A file of these parts, with the right checksum where it says one: whoever edits a file can do the same."""
    if isinstance(content, dict) and "sha256" in content:
        content = json.loads(json.dumps(content))
        with suppress(ValueError):                          # NaN in it, which has none
            content["sha256"] = container.checksum(content, tensors)
    text = content if isinstance(content, str) else json.dumps(content)
    return safetensors.numpy.save(tensors, metadata={"s4s_preset": text})


def with_content(**changed) -> bytes:
    content, tensors = parts()
    return packed({**content, **changed}, tensors)


def without(key: str) -> bytes:
    content, tensors = parts()
    return packed({name: value for name, value in content.items() if name != key}, tensors)


def with_model(**changed) -> bytes:
    return with_content(model={**parts()[0]["model"], **changed})


def with_training(**changed) -> bytes:
    return with_content(training={**parts()[0]["training"], **changed})


def with_scores(**result) -> bytes:
    return with_content(scores={"calls3": {"cfg 3": result}})


def with_answers(answer) -> bytes:
    return with_content(training={"self_test": {"calls2": [answer] * 4, "calls3": [0.0] * 4}})


def with_text(text: str) -> bytes:
    return packed(text, parts()[1])


def with_tensors(**changed) -> bytes:
    """Tensors by name, "/" written as "__"; None takes one away."""
    content, tensors = parts()
    tensors.update({name.replace("__", "/"): value for name, value in changed.items()})
    return packed(content, {name: value for name, value in tensors.items() if value is not None})


def of_torch(kind) -> bytes:
    content, tensors = parts()
    converted = {name: torch.from_numpy(array).to(kind) for name, array in tensors.items()}
    return save_torch(converted, metadata={"s4s_preset": json.dumps(content)})


def with_entry(part: str, index, value) -> bytes:
    array = parts()[1][f"calls2/{part}"].copy()
    array[index] = value
    return with_tensors(**{f"calls2__{part}": array})


def with_repeat(name: str) -> bytes:
    """The good file with one entry of its description there twice, the second one telling another story."""
    text = json.dumps(parts()[0])
    return with_text(text.replace(f'"{name}": ', f'"{name}": 1, "{name}": ', 1))


def with_twice_in_header() -> bytes:
    """The good file whose header names the tensor calls2/carry twice."""
    header = BYTES[8:8 + HEADER].decode()
    at = header.index('"calls2/carry"')
    entry = header[at:header.index("}", at) + 1]
    header = header.replace(entry, f"{entry},{entry}").encode()
    return struct.pack("<Q", len(header)) + header + BYTES[8 + HEADER:]


def with_levels(*sigmas: float) -> bytes:
    """A whole preset of Euler's method on these levels."""
    last = [b / a for a, b in zip(sigmas, sigmas[1:])]
    table = Table(np.array(sigmas), np.array(sigmas[:-1]), np.ones(len(last)), np.array(last),
                   np.diag(1 - np.array(last)))
    return preset_file.to_bytes(Preset("near", {"calls": table}, GOOD.model))


class Bomb:
    def __reduce__(self):
        return os.mkdir, (os.environ["S4S_TEST_BOMB"],)


REFUSED = {
    "empty": (lambda: b"", "not a whole .safetensors file"),
    "a text": (lambda: b"hello, this is a preset\n" * 9, "not a whole .safetensors file"),
    "a header of 2^63 bytes": (lambda: struct.pack("<Q", 2 ** 63) + BYTES[8:], "header too large"),
    "something after the end": (lambda: BYTES + b"x", "not a whole .safetensors file"),
    "a model, not a preset": (lambda: safetensors.numpy.save({"weight": np.zeros(3)}), "not an S4S preset"),
    "float32": (lambda: of_torch(torch.float32), "of type float32: only float64 tensors"),
    "integers": (lambda: of_torch(torch.int64), "of type int64"),
    "bfloat16": (lambda: of_torch(torch.bfloat16), "only float64|not a whole"),
    "float8": (lambda: of_torch(torch.float8_e4m3fn), "only float64|not a whole"),
    "a missing part": (lambda: with_tensors(calls2__query=None), "table 'calls2' lacks query"),
    "no table": (lambda: packed(parts()[0], {}), "holds no table"),
    "an extra tensor": (lambda: with_tensors(calls2__image=np.zeros(2)), "holds tensor 'calls2/image'"),
    "a tensor without table": (lambda: with_tensors(sigmas=np.zeros(2)), "table '' lacks query"),
    "a table that is a path": (lambda: with_tensors(**{f"../x__{p}": parts()[1][f"calls2/{p}"] for p in
                               ("sigmas", "query", "scale", "carry", "weights")}), "table name '../x'"),
    "a ratio that is a list": (lambda: with_scores(ratio=[1]), "calls3: ratio is '\\[1\\]': expected a number"),
    "an interval of one": (lambda: with_scores(ratio=1.0, ratio_95=[1]), "ratio_95 is .*expected two numbers"),
    "an error of 401 digits": (lambda: with_scores(rmse=10 ** 400), "rmse is .*expected a number"),
    "calls that are no number": (lambda: with_training(model_calls="x"), "model_calls is 'x': expected a number"),
    "a size without numbers": (lambda: with_training(size=[]), "size is .*expected a width and a height"),
    "errors that are no pairs": (lambda: with_training(held_out_rmse={"a": 1}), "held_out_rmse .*two numbers for each"),
    "a newer format": (lambda: with_content(format_version=2), "version 2, this program reads 1: update S4S"),
    "no format": (lambda: without("format_version"), "version None.*damaged"),
    "a format that is true": (lambda: with_content(format_version=True), "version True"),
    "a huge format": (lambda: with_content(format_version=10 ** 4000), "update S4S|format version"),
    "no JSON": (lambda: with_text("{"), "description is damaged"),
    "a list": (lambda: with_text("[1]"), "not a JSON object"),
    "NaN": (lambda: with_text(json.dumps({**parts()[0], "scores": {"calls2": {"rmse": float("nan")}}})),
            "damaged.*NaN is not a number"),
    "deep nesting": (lambda: with_text("[" * 10 ** 6), "description is damaged"),
    "deep objects": (lambda: with_text('{"a":' * 10 ** 5 + "1" + "}" * 10 ** 5), "description is damaged"),
    "a number of 5000 digits": (lambda: with_text(json.dumps(parts()[0]).replace("14.6", "9" * 5000)),
                                "damaged|sigma_max"),
    "a hash of other numbers": (lambda: with_content(hash="0123456789"), "hash '0123456789', but they have"),
    "no hash": (lambda: without("hash"), "hash 'None'"),
    "a changed number": (lambda: with_entry("query", 1, 0.5), "changed or damaged"),
    "rising levels": (lambda: with_entry("sigmas", 1, 99.0), "rise from 14.6 to 99"),
    "a row from the future": (lambda: with_entry("weights", (0, 1), 0.1), r"weights\[0, 1\] is not zero"),
    "a broken law": (lambda: with_entry("weights", (1, 1), 1.1), "constant law by 0.1"),
    "NaN in a table": (lambda: with_entry("carry", 0, np.nan), "NaN or infinity"),
    "an overflow": (lambda: with_tensors(calls3__carry=np.array([1e308, 1e308, 0.0])), "constant law"),
    "a wrong shape": (lambda: with_tensors(calls2__weights=np.eye(3)), r"weights has shape \(3, 3\)"),
    "a million levels": (lambda: with_tensors(calls2__sigmas=np.linspace(1, 0, 10 ** 6)), "at most 1000"),
    "no level": (lambda: with_tensors(calls2__sigmas=np.zeros(0)), "N >= 1 calls"),
    "no self-test": (lambda: with_content(training={}), "self-test is missing"),
    "a self-test of texts": (lambda: with_answers("a"), "self-test is missing or damaged"),
    "a self-test beyond floats": (lambda: with_answers(10 ** 400), "self-test is missing or damaged"),
    "a name that is a list": (lambda: with_content(name=["good"]), "name is .* expected a str"),
    "a verdict in words": (lambda: with_content(recommended="yes"), "recommended is 'yes': expected a bool"),
    "scores of numbers": (lambda: with_content(scores={"calls2": 3}), "scores must be"),
    "terminal commands as name": (lambda: with_content(name="\x1b[2Jgood"), "printable"),
    "a model without family": (lambda: with_content(model={"prediction": "eps"}), "model has the entries"),
    "a model with more": (lambda: with_model(colour="red"), "model has the entries"),
    "a model beyond floats": (lambda: with_model(sigma_max=10 ** 400), "model.sigma_max is '1000"),
    "a model of infinity": (lambda: with_text(json.dumps(parts()[0]).replace("14.6", "1e999")),
                            "damaged.*1e999 is not a number"),
    "an entry that is there twice": (lambda: with_repeat("licence"), "has two entries 'licence'"),
    "a model's entry that is there twice": (lambda: with_repeat("sigma_max"), "has two entries 'sigma_max'"),
    "a tensor that is there twice": (with_twice_in_header, "file .has two entries 'calls2/carry'"),
    "a description of 2 MB": (lambda: with_text("[" + "[]," * 700_000 + "0]"), "header too large"),
    "1,001 tensors": (lambda: packed(parts()[0], {f"t{k}/sigmas": np.zeros(1) for k in range(1001)}),
                      "table 't0' lacks query"),
    "a tensor of 16 MB": (lambda: with_tensors(calls2__weights=np.zeros((2, 10 ** 6))), r"shape \(2, 1000000\)"),
    "levels that fall by rounding": (lambda: with_levels(14.6, 5 * (1 + 3e-16), 5.0, 0.0),
                                     "levels 1 and 2 of table 'calls' are both 5 after rounding to float32"),
    "levels that differ in float64 only": (lambda: with_levels(14.6, 5 * (1 + 1e-8), 5.0, 0.0), "levels further apart"),
    "a last level that is 0 in a host": (lambda: with_levels(14.6, 1e-50, 0.0), "after rounding to float32"),
    "a level beyond float32": (lambda: with_levels(1e39, 1.0, 0.0), "more than float32 can hold"),
    "a weight beyond float32": (lambda: with_tensors(calls3__carry=np.array([1e39, 1e-39, 0.0])),
                                "beyond 3.4e.38, the most float32 can hold"),
    "a pickle": (lambda: pickle.dumps(Bomb()), "not a whole .safetensors file"),
    "a pickle in the description": (lambda: with_text(pickle.dumps(Bomb(), 0).decode("latin1")), "damaged"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_file_is_refused_with_the_reason_and_executes_nothing(case, tmp_path, monkeypatch):
    monkeypatch.setenv("S4S_TEST_BOMB", str(tmp_path / "exploded"))
    make, message = REFUSED[case]
    path = tmp_path / "theirs.safetensors"
    path.write_bytes(make())
    with pytest.raises(PresetError, match=message) as caught:
        preset_file.load(path)
    assert str(caught.value).startswith("theirs.safetensors: ") and len(str(caught.value)) < 600
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("place", ["missing.safetensors", "", "a\0b"])
def test_what_is_no_file_is_refused(place, tmp_path):
    with pytest.raises(PresetError, match="No such file|is not a file|null byte"):
        preset_file.load(f"{tmp_path}/{place}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PresetError, match="is not a file"):
        preset_file.load(tmp_path / "pipe")


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "large.safetensors"
    with open(path, "wb") as file:
        file.truncate(container.MAX_BYTES + 1)                                  # sparse: takes no room on the disk
    with pytest.raises(PresetError, match="33554433 bytes: .* 33554432 bytes at most"):
        preset_file.load(path)


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "short.safetensors"
    for length in [*range(0, 64), *range(64, len(BYTES), 37), len(BYTES) - 1]:
        path.write_bytes(BYTES[:length])
        with pytest.raises(PresetError, match="not a whole .safetensors file"):
            preset_file.load(path)


# --- anything at all ----------------------------------------------------------------------------------------

def outcome(content: bytes, path: Path) -> Preset | None:
    """The preset, used in every way, or None where it was refused; other errors and slowness are failures."""
    path.write_bytes(content)
    start = time.perf_counter()
    try:
        held = preset_file.load(path)
    except PresetError as error:
        assert 0 < len(str(error)) < 600
        held = None
    assert time.perf_counter() - start < 2                                  # a whole one takes a millisecond
    if held is not None:
        assert all(isinstance(table, Table) for table in held.tables.values()) and held.counts
        assert preset_file.describe(held) and preset_file.verify(held) < 1e-9 and held.short_hash == GOOD.short_hash
    return held


def mutated(chance: random.Random) -> bytes:
    """The good file after one of the accidents that happen to files."""
    data, kind = bytearray(BYTES), chance.randrange(6)
    start, end = sorted(chance.randrange(len(BYTES)) for _ in range(2))
    if kind == 0:                                                           # flipped bytes
        for _ in range(chance.randrange(1, 5)):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == 1:                                                         # a piece lost
        del data[start:end]
    elif kind == 2:                                                         # a piece repeated
        data[start:start] = data[start:end]
    elif kind == 3:                                                         # another header length
        wrong = chance.choice([0, 1, HEADER - 1, HEADER + 1, len(BYTES), 2 ** 31, chance.randrange(2 ** 64)])
        data[:8] = struct.pack("<Q", wrong)
    else:                                                           # the description edited, its length right
        at = chance.randrange(8, 8 + HEADER)
        data[at:at + chance.choice([0, 1, 4])] = chance.choice(
            [b"null", b"[]", b"1e999", b"-1", b"9" * 400, b"true", b"\\\\ud800", b"\xff", b",", b"{", b"0"])
        data[:8] = struct.pack("<Q", HEADER + len(data) - len(BYTES))
    return bytes(data)


def same_or_refused(content: bytes, path: Path) -> None:
    held = outcome(content, path)
    assert held is None or preset_file.to_bytes(held) == BYTES


def test_thousands_of_damaged_files_are_all_refused_or_say_the_same(tmp_path):
    chance, path = random.Random(0), tmp_path / "damaged.safetensors"
    for _ in range(2500):
        same_or_refused(mutated(chance), path)


def test_a_flipped_bit_anywhere_is_refused_or_changes_nothing(tmp_path):
    chance, path = random.Random(1), tmp_path / "flipped.safetensors"
    for at in chance.sample(range(8 * len(BYTES)), 1500):
        flipped = bytearray(BYTES)
        flipped[at // 8] ^= 1 << at % 8
        same_or_refused(bytes(flipped), path)


def test_every_entry_of_the_description_is_under_the_checksum(tmp_path):
    changed = {"name": "other", "model": {**parts()[0]["model"], "sigma_max": 15.0}, "scores": {}, "recommended": False,
               "training": {**parts()[0]["training"], "seed": 2}, "licence": "CC0-1.0", "source": "there", "more": 1}
    for key, value in changed.items():
        text = json.dumps({**parts()[0], key: value})
        (tmp_path / "edited.safetensors").write_bytes(packed(text, parts()[1]))
        with pytest.raises(PresetError, match="has checksum .* changed or damaged"):
            preset_file.load(tmp_path / "edited.safetensors")


def test_a_preset_of_version_0_4_has_no_checksum_and_no_other_entry(tmp_path):
    content, tensors = parts()
    old = {key: value for key, value in content.items() if key != "sha256"}
    path = tmp_path / "old.safetensors"
    path.write_bytes(packed(old, tensors))
    assert preset_file.to_bytes(preset_file.load(path)) == BYTES
    path.write_bytes(packed({**old, "sha257": content["sha256"]}, tensors))
    with pytest.raises(PresetError, match="unknown entry 'sha257' and no checksum"):
        preset_file.load(path)


def nested(depth: int) -> bytes:
    """The good file with lists in each other among the model's hashes, and the right checksum."""
    content, tensors = parts()
    content["model"]["hashes"]["file"] = json.loads("[" * depth + "]" * depth)
    return packed(content, tensors)


def test_a_record_nested_deeply_is_refused_and_one_that_is_not_can_be_written_again(tmp_path):
    path = tmp_path / "deep.safetensors"
    for depth in (62, 100, 300, 600, 800):
        path.write_bytes(nested(depth))
        with pytest.raises(PresetError, match="nested too deeply"):
            preset_file.load(path)
    path.write_bytes(nested(61))
    assert preset_file.to_bytes(preset_file.load(path)) == nested(61)


def test_a_record_whose_names_are_numbers_is_read_as_it_was_written(tmp_path):
    for names in ((9, 10), (10, 9)):
        made = Preset("n", TABLES, GOOD.model, {"seeds": dict.fromkeys(names, (1, 2.5))})
        again = preset_file.load(preset_file.save(made, tmp_path / "n.safetensors"))
        assert again.training["seeds"] == {"9": [1, 2.5], "10": [1, 2.5]}
    with pytest.raises(PresetError, match="cannot be written"):
        preset_file.to_bytes(Preset("n", TABLES, GOOD.model, {"seeds": {1: 0, "1": 0}}))


TEXT = st.text(max_size=9)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-10 ** 20, 10 ** 320) | st.floats() | TEXT,
                    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(TEXT, inside, max_size=3),
                    max_leaves=6)


@st.composite
def edited_descriptions(draw):
    """The good description with one or two values, at any depth, replaced by any JSON or taken away."""
    content = parts()[0]
    for _ in range(draw(st.integers(1, 2))):
        place = content
        while True:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
            if not (isinstance(place[key], (dict, list)) and place[key] and draw(st.booleans())):
                break
            place = place[key]
        if draw(st.integers(0, 4)):
            place[key] = draw(JSON)
        else:
            del place[key]
    return content


@settings(max_examples=600)
@given(content=edited_descriptions())
def test_a_description_with_any_value_anywhere_is_refused_or_whole(content, tmp_path):
    outcome(packed(content, parts()[1]), tmp_path / "edited.safetensors")


def test_levels_that_a_host_tells_apart_are_read(tmp_path):
    path = tmp_path / "near.safetensors"
    for sigmas in ((14.6, 5 * (1 + 1e-6), 5.0, 0.0), (14.6, 5.0, 5.0, 0.0)):         # equal ones are equal everywhere
        path.write_bytes(with_levels(*sigmas))
        assert preset_file.load(path).table(3).sigmas.tolist() == list(sigmas)


def test_the_good_file_is_good(tmp_path):
    assert outcome(BYTES, tmp_path / "good.safetensors").training["teacher"] == "heun"
