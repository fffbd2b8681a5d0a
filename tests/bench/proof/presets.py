"""A small preset file, what becomes of it on its way between strangers, and what has to hold of what is read."""

import json
import random
import struct
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.numpy

from s4s.s4s_nodes.core import Model, Preset, PresetError, classical, container, experts, preset_file, schedules

_K = partial(schedules.karras, sigma_min=0.03, sigma_max=14.6)
_RACED = {"cfg": 3.0, "size": [64, 64], "where": "cpu", "seeds": 24, "rmse": 0.1, "rmse_95": [0.1, 0.2], "ratio": 1.2,
          "ratio_95": [1.1, 1.3], "best_rmse": 0.12, "best_classical": "heun, karras", "median": 0.1,
          "classical_calls_to_match": 9, "verdict": "better", "recommended": True, "lost": False}
_RECORD = {"teacher": "heun, karras, 32 calls", "cfg": [3.0, 7.0], "resolution": [4, 64, 64], "size": [512, 512],
           "guidance": 3.5, "held_out_rmse": {"calls3": [0.2, 0.1]}, "baseline": {"calls3": "heun, karras"},
           "denoise": {"calls3_from5": 0.5}, "model_calls": 100, "seconds": 1.5, "run": "r", "created": "2026-01-01"}
GOOD = Preset("good", {"calls2": classical.dpmpp_2m(_K(2)), "calls3": classical.unipc(_K(3)),
                       "calls4_cfg3": classical.dpmpp_2m(_K(4)), "calls4_cfg7": classical.unipc(_K(4)),
                       "calls3_from5": classical.euler(_K(3, sigma_max=5.0))},
              Model("sd15", "eps", 0.03, 14.6, channels=4, hashes={"file": "a", "weights_1d": "0" * 64}), _RECORD,
              {name: {"cfg 3": {**_RACED, "cfg": cfg}} for name, cfg in (("calls3", 3.0), ("calls4_cfg3", 3.0),
                                                                         ("calls4_cfg7", 7.0))},
              licence="MIT", source="here")
_TURN = float(_K(4)[2])
TWO = replace(GOOD, name="two", scores={},
              tables={"calls4": experts.restarted(classical.dpmpp_2m, _K(4), _TURN, False)},
              training={**_RECORD, "experts": {"boundary": _TURN, "cfg": 3.0}},
              model=replace(GOOD.model, hashes={**GOOD.model.hashes, "low_noise": {"weights_1d": "1" * 64}}))
BYTES = preset_file.to_bytes(GOOD)
TENSORS = safetensors.numpy.load(BYTES)
_HEADER = struct.unpack("<Q", BYTES[:8])[0]


def _description(content: bytes) -> dict:
    size = struct.unpack("<Q", content[:8])[0]
    return json.loads(json.loads(content[8:8 + size])["__metadata__"][container.KEY])


DESCRIPTION = _description(BYTES)
_BASES = [(DESCRIPTION, TENSORS)] * 3 + [(_description(preset_file.to_bytes(TWO)),
                                          safetensors.numpy.load(preset_file.to_bytes(TWO)))]
_KEYS = sorted({*_RACED, *_RECORD, "ratio_median", "ratio_median_95", "low_noise", "experts", "from_image", "patches",
                "teacher_levels", "loras", "imported", "unfinished", "note", "nothing_gained", "x"})
_VALUES = [None, True, False, 0, -1, 1, 2 ** 63, 10 ** 299, 10 ** 400, 1e-320, 0.5, 1e308, float("inf"), float("nan"),
           "", "x" * 9000, "\ud800", "\x1b[2J", "\u202e", "../../x", "<script>alert(1)</script>", [], {}, [[]], [1],
           [1.0, 2.0], [1e9] * 50, {"": {}}, {"a": 1}, {"cfg": "x"}, [[1, 2], [3, 4]], json.loads("[" * 60 + "]" * 60),
           json.loads("[" * 600 + "]" * 600)]
_NUMBERS = [0.0, -0.0, 1.0, -1.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), 2 ** -1074, 14.6, 1 + 1e-16]


def load(content: bytes, path: Path) -> Preset | None:
    """The preset in these bytes, or None where the reader refused them in words."""
    path.write_bytes(content)
    try:
        return preset_file.load(path)
    except PresetError as error:
        assert 0 < len(str(error)) < 700, f"words of {len(str(error))} characters"
        return None


def flipped(chance: random.Random) -> bytes:
    """One bit is another."""
    content, at = bytearray(BYTES), chance.randrange(8 * len(BYTES))
    content[at // 8] ^= 1 << at % 8
    return bytes(content)


def battered(chance: random.Random) -> bytes:
    """Bytes are lost, repeated, changed."""
    content = bytearray(BYTES)
    for _ in range(chance.choice([1, 1, 2, 5])):
        start, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
        kind = chance.randrange(5)
        if kind == 0:
            del content[start:end]
        elif kind == 1:
            content[start:start] = content[start:end]
        elif kind == 2:
            content[start:start + 8] = chance.randbytes(8)
        elif kind == 3:
            wrong = [0, 1, _HEADER - 1, _HEADER + 1, 2 ** 31, chance.getrandbits(64)]
            content[:8] = struct.pack("<Q", chance.choice(wrong))
        else:
            del content[start:]
        content = content or bytearray(b"\0")
    return bytes(content)


def forged(chance: random.Random) -> bytes:
    """Anything anywhere, with the right checksum and hash: whoever makes a file can do that."""
    description, arrays = chance.choice(_BASES)
    content, tensors = json.loads(json.dumps(description)), {name: array.copy() for name, array in arrays.items()}
    for _ in range(chance.choice([1, 1, 2, 4])):
        _edit(content, chance) if chance.random() < 0.6 else _edit_tensor(tensors, chance)
    return _sealed(content, tensors)


def sealed_with(text: bytes) -> bytes:
    """A preset with this description; where it is a JSON object, with the right hash and checksum."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict):
        return _sealed(content, TENSORS)
    return safetensors.numpy.save(TENSORS, metadata={container.KEY: text.decode("utf-8", "replace")})


def _sealed(content: dict, tensors: dict) -> bytes:
    with suppress(Exception):
        content["hash"] = _hash(content, tensors)
    with suppress(Exception):
        content[container.CHECKSUM] = container.checksum(json.loads(json.dumps(content)), tensors)
    try:
        return safetensors.numpy.save(tensors, metadata={container.KEY: json.dumps(content)})
    except Exception:                               # what the library cannot write
        return BYTES


def _edit(content, chance: random.Random) -> None:
    """Another value at a random place of the description."""
    place = content
    while True:
        key = chance.choice(sorted(place) if isinstance(place, dict) else range(len(place)))
        if not (isinstance(place[key], (dict, list)) and place[key] and chance.random() < 0.7):
            break
        place = place[key]
    if (way := chance.random()) < 0.15:
        del place[key]
    else:
        place[chance.choice(_KEYS) if way < 0.4 and isinstance(place, dict) else key] = chance.choice(_VALUES)


def _edit_tensor(tensors: dict, chance: random.Random) -> None:
    name = chance.choice(sorted(tensors))
    array, kind = tensors[name], chance.randrange(5)
    if kind == 0 and array.size and array.dtype == np.float64:
        array.flat[chance.randrange(array.size)] = chance.choice(_NUMBERS)
    elif kind == 1:
        with np.errstate(over="ignore", invalid="ignore"):
            tensors[name] = array.astype(chance.choice(["<f4", "<f2", "<i8", "?"]))
    elif kind == 2:
        tensors[name] = array.reshape(-1)[:chance.randrange(array.size + 1)]
    elif kind == 3:
        tensors[chance.choice(["x", "../x/sigmas", "CON/query", f"{name}x"])] = tensors.pop(name)
    else:
        tensors[name] = np.resize(array, chance.choice([(1,), (1000,), (30, 30), (2, 2, 2), (0,)]))


def _hash(content: dict, tensors: dict) -> str:
    tables = preset_file._tables(tensors, content["breaks_constants"])
    return Preset(content["name"], tables, preset_file.model_of(content["model"])).short_hash
