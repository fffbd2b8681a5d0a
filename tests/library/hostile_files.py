"""Small files that ask a reader for much memory or time: {name: content}, the same on every machine.

`read_under_limits.py` reads them under limits. Pickles are written as opcodes here: pickle itself would not make them.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import random
import struct
import types
import zipfile

import numpy as np
import safetensors.numpy
import torch

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules

PRIME = 2 ** 61 - 1             # Python's hash of an integer is its remainder by this
_ENCODE = b"c_codecs\nencode\n"
_TENSOR = b"ctorch._utils\n_rebuild_tensor_v2\n"
_PERSISTENT = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n"


def _text(content: str) -> bytes:
    raw = content.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _bytes(content: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(content)) + content


def _integer(value: int) -> bytes:
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return (b"\x8a" + bytes([len(raw)]) if len(raw) < 256 else b"\x8b" + struct.pack("<i", len(raw))) + raw


def _dict(**entries: bytes) -> bytes:
    """A dictionary whose values are given as opcodes."""
    return b"}(" + b"".join(_text(key) + value for key, value in entries.items()) + b"u"


def _pickle(value: bytes) -> bytes:
    return b"\x80\x03" + value + b"."


def _list_of(value: bytes, count: int) -> bytes:
    """A list of one and the same value."""
    return value + b"q\x090](" + b"h\x09" * count + b"e"


def _calls(function: bytes, arguments: bytes, count: int) -> bytes:
    """A list of the results of one and the same call."""
    return function + b"q\x010" + arguments + b"q\x020](" + b"h\x01h\x02R" * count + b"e"


def _laughs(opcodes: bytes = b"(h\x09h\x09t", depth: int = 60) -> bytes:
    """A value that holds the last one twice, `depth` times over."""
    return b"K\x01q\x09" + (b"0" + opcodes + b"q\x09") * depth


def _persistent(name: str, **state: bytes) -> bytes:
    return _PERSISTENT + _dict(class_name=_text(name), state=_dict(**state)) + b"\x85R"


def _storage(key: str, count: int, kind: bytes = b"FloatStorage") -> bytes:
    return b"(" + _text("storage") + b"ctorch\n" + kind + b"\n" + _text(key) + _text("cpu") + _integer(count) + b"tQ"


def _sizes(*numbers: int) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


def _tensor(size: bytes, stride: bytes, key: str = "0", count: int = 4) -> bytes:
    return _TENSOR + b"(" + _storage(key, count) + b"K\x00" + size + stride + b"\x89NtR"


def _zip(value: bytes, method=zipfile.ZIP_STORED, **entries: bytes) -> bytes:
    """torch's archive of a pickle and its storages."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("a/data.pkl", _pickle(value))
        for key, content in entries.items():
            archive.writestr(f"a/data/{key}", content)
    return buffer.getvalue()


def _numbers(*values: float) -> bytes:
    return _dict(best_t_steps=b"](" + b"".join(b"G" + struct.pack(">d", value) for value in values) + b"e")


def _torch_bytes(value, new_format: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


def _predictor(**state: bytes) -> bytes:
    return _pickle(_dict(predictor=_persistent("DyWeight_predictor", **state)))


def _student(parameters: bytes) -> bytes:
    return _dict(ema=_dict(shadow_params=parameters))


# ---------------------------------------------------------------------------- text, bytes and integers

def long_values() -> dict[str, bytes]:
    """One long text, or its copies."""
    megabyte, ten = (_text("a" * size) + _text("latin1") + b"\x86" for size in (10 ** 6, 10 ** 7))
    digits = b"9" * 4_000_000
    return {
        "1 MB encoded 5,900 times": _pickle(_dict(x=_calls(_ENCODE, megabyte, 5900))),
        "10 MB encoded 2,000 times": _pickle(_dict(x=_calls(_ENCODE, ten, 2000))),
        "encodings that are dropped": _pickle(_ENCODE + b"q\x010" + megabyte + b"q\x02" + b"0h\x01h\x02R" * 20000),
        "text of 16 MB, wide": _pickle(_text("a" * 15_000_000 + "\U0001f600")),
        "raw text of 16 MB": b"V" + b"a" * 15_000_000 + b"\\U0001f600\n.",
        "escaped text of 16 MB": b"S'" + b"\\x41" * 3_900_000 + b"'\n.",
        "bytes of 16 MB": _pickle(_bytes(bytes(16_000_000))),
        "an integer of 16 MB": _pickle(_integer(1 << 8 * 15_000_000)),
        "an integer of 4 million digits": b"L" + digits + b"L\n.",
        "a plain integer of 4 million digits": b"I" + digits + b"\n.",
        "a real number of 4 million digits": b"F" + digits + b"\n.",
        "sizes of 4 MB": _zip(_tensor(*[_sizes(*[1 << 8 * 500_000] * 7)] * 2), **{"0": bytes(16)}),
        "names of 8 MB": _pickle(b"c" + b"m" * 8_000_000 + b"\nx\n"),
    }


def collisions() -> dict[str, bytes]:
    """Keys of equal hash."""
    keys = [_integer(k * PRIME) for k in range(1, 60_001)]
    return {
        "60,000 keys of equal hash": _pickle(b"}(" + b"".join(key + b"K\x00" for key in keys) + b"u"),
        "40,000 elements of equal hash": _pickle(b"\x8f(" + b"".join(keys[:40_000]) + b"\x90"),
        "30,000 keys of equal hash": _pickle(b"}(" + b"".join(key + b"K\x00" for key in keys[:30_000]) + b"u"),
        "40,000 memo places of equal hash": b"N" + b"".join(b"p%d\n" % (k * PRIME) for k in range(1, 40_001)) + b".",
        "40,000 keys that share 43 bits": _pickle(b"}(" + b"".join(_integer(k << 43) + b"N" for k in range(40_000))
                                                  + b"u"),
        "40,000 real keys": _pickle(b"}(" + b"".join(
            b"G" + struct.pack(">d", (2 * k + 1) * 2.0 ** e) + b"N" for k in range(1200)
            for e in range(-1030, 950, 61)) + b"u"),
    }


# ---------------------------------------------------------------------------- sharing and nesting

def shared() -> dict[str, bytes]:
    """Values that are small as long as they are shared."""
    laugh = {"tuples": b"(h\x09h\x09t", "lists": b"](h\x09h\x09e", "dictionaries": b"}(K\x00h\x09K\x01h\x09u"}
    made = {f"laughing {name}": _pickle(_dict(best_t_steps=_laughs(opcodes))) for name, opcodes in laugh.items()}
    floats = b"](" + (b"G" + struct.pack(">d", 0.5)) * 40_000 + b"e"
    return {
        **made,
        "a laughing data set": _predictor(dataset_name=_laughs(), num_steps=b"K\x05"),
        "a laughing schedule": _predictor(dataset_name=_text("cifar10"), num_steps=b"K\x05", schedule_type=_laughs()),
        "a laughing order": _pickle(_dict(model=_persistent("EPD_predictor", num_steps=_laughs()))),
        "a laughing kind of storage": _zip(b"(" + _text("storage") + _laughs() + _text("0") + _text("cpu")
                                           + b"K\x04tQ"),
        "a laughing count": _zip(b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu")
                                 + _laughs() + b"tQ"),
        "a laughing key": _pickle(b"}" + _laughs() + b"K\x01s"),
        "one tensor 90,000 times": _zip(_student(_list_of(_tensor(_sizes(2 ** 20), _sizes(0)), 90_000)),
                                        **{"0": bytes(16)}),
        "one list of numbers 40,000 times": _pickle(_student(_list_of(floats, 40_000))),
        "one list within itself": _pickle(_dict(best_t_steps=b"]q\x09h\x09a")),
        "one storage read 8,000 times": _zip(b"](" + _storage("0", 2 ** 20) * 8000 + b"e",
                                             **{"0": bytes(4 * 2 ** 20)}),
        "one file in the file 20,000 times": _pickle(_calls(
            b"ctorch.storage\n_load_from_bytes\n", _bytes(_torch_bytes(torch.ones(9), False)) + b"\x85", 20_000)),
        "one archive in the file 20,000 times": _pickle(_calls(
            b"ctorch.storage\n_load_from_bytes\n",
            _bytes(_zip(b"N", **{str(k): b"" for k in range(3000)})) + b"\x85", 20_000)),
        "30,000 small tensors": _zip(_storage("0", 4) + b"q\x030" + _calls(
            _TENSOR, b"(h\x03K\x00" + _sizes(2) + _sizes(1) + b"\x89Nt", 30_000), **{"0": bytes(16)}),
        "sizes of 30,000 dimensions": _zip(_storage("0", 4) + b"q\x030(" + b"K\x01" * 30_000 + b"tq\x040" + _calls(
            _TENSOR, b"(h\x03K\x00h\x04h\x04\x89Nt", 20_000), **{"0": bytes(16)}),
    }


def nested() -> dict[str, bytes]:
    """Values within values within values."""
    return {
        "lists 40,000 deep": _pickle(_dict(best_t_steps=b"](" * 40_000 + b"e" * 40_000)),
        "tuples 90,000 deep": _pickle(_dict(best_t_steps=b")" + b"\x85" * 90_000)),
        "an order 90,000 deep": _predictor(dataset_name=b")" + b"\x85" * 90_000, num_steps=b")" + b"\x85" * 90_000),
        "a schedule 90,000 deep": _predictor(dataset_name=_text("cifar10"), num_steps=b"K\x05",
                                             schedule_type=b")" + b"\x85" * 90_000),
        "90,000 marks": b"(" * 90_000 + b"t" * 90_000 + b".",
        "objects 20,000 deep": _pickle(_dict(predictor=b"cx\ny\nq\x090N" + b"q\x010h\x09h\x01\x85R" * 15_000)),
        "90,000 opcodes": b"\x80\x02" + b"N0" * 45_000 + b"N.", "16 million opcodes": b"N0" * 8_000_000 + b"N.",
    }


# ---------------------------------------------------------------------------- archives

def archives() -> dict[str, bytes]:
    """Zip files that are more than they seem."""
    def entries(count: int, name: str = "") -> bytes:
        return _zip(b"N", **{f"{k}{name}": b"" for k in range(count)})
    stored = _zip(_dict(x=_storage("0", 4)), **{"0": bytes(16)})
    return {
        "a compressed archive": _zip(_text("a" * 10 ** 9), zipfile.ZIP_DEFLATED),
        "a compressed storage": _zip(_dict(x=_storage("0", 2 ** 20)), zipfile.ZIP_DEFLATED, **{"0": bytes(2 ** 28)}),
        "100,000 entries": entries(100_000), "120 entries of long names": entries(120, "n" * 60_000),
        "an entry that claims 2 GB": stored.replace(struct.pack("<II", 16, 16), struct.pack("<II", 2 ** 31, 2 ** 31)),
        "sizes that disagree": stored.replace(struct.pack("<II", 16, 16), struct.pack("<II", 16, 2 ** 20)),
        "a comment of 64 KB": stored[:-2] + struct.pack("<H", 65535) + b"PK\x05\x06" * 16383 + b"xyz",
    }


# ---------------------------------------------------------------------------- whole files of other projects

def tables() -> dict[str, bytes]:
    """Files of the known kinds whose tables are absurd."""
    def parameters(steps: int) -> bytes:
        return _dict(hybrid_weights=_tensor(_sizes(steps, steps), _sizes(0, 0)),
                     t_scale=_tensor(_sizes(steps), _sizes(0)))

    def archive(loss: bytes = b"N", **state: bytes) -> bytes:
        predictor = _persistent("DyWeight_predictor", dataset_name=_text("cifar10"), **state)
        return _zip(_dict(predictor=predictor, loss_fn=loss), **{"0": np.ones(4, "<f4").tobytes()})

    def points(count: int) -> bytes:
        rows = _tensor(_sizes(5, count), _sizes(0, 0))
        parts = {key: rows for key in ("r_params", "weight_s", "scale_dir_params", "scale_time_params")}
        state = _persistent("EPD_predictor", num_steps=b"K\x06", _parameters=_dict(**parts),
                            dataset_name=_text("cifar10"), scale_dir=b"K\x00", scale_time=b"K\x00")
        return _zip(_dict(model=state), **{"0": np.ones(4, "<f4").tobytes()})
    mask = _dict(mask=_tensor(_sizes(2 ** 20, 1, 1), _sizes(0, 0, 0)))
    flow = _dict(dyweight_weights_raw=_tensor(_sizes(1000, 1000), _sizes(0, 0)),
                 dyweight_t_scales=_tensor(_sizes(1000), _sizes(0)))
    ones = np.ones(4, "<f4").tobytes()
    widest = _zip(_dict(dyweight_weights_raw=_tensor(_sizes(200, 200), _sizes(0, 0)),
                        dyweight_t_scales=_tensor(_sizes(200), _sizes(0), "1")),
                  **{"0": np.full(4, 0.005, "<f4").tobytes(), "1": ones})
    return {
        "a whole table of 200 calls": widest, "a whole table of 200 calls in parallel": points(39),
        "500 million steps": archive(num_steps=_integer(5 * 10 ** 8), _parameters=_dict(
            hybrid_weights=_tensor(_sizes(4, 4), _sizes(0, 0)))),
        "a mask of 10 billion numbers": archive(num_steps=b"K\x64", _parameters=parameters(99), _buffers=mask),
        "1,000 steps": archive(_persistent("loss", t_steps=_tensor(_sizes(1001), _sizes(0))),
                               num_steps=_integer(1001), _parameters=parameters(1000)),
        "1,000 steps of a flow": _zip(flow, **{"0": np.ones(4, "<f4").tobytes()}),
        "100,000 middle points": points(100_000), "199 middle points": points(199),
        "a window of a million digits": _zip(_dict(
            dyweight_weights_raw=_tensor(_sizes(2, 2), _sizes(0, 0)),
            dyweight_t_scales=_tensor(_sizes(2), _sizes(0)), window_size=_text("9" * 10 ** 6)), **{"0": bytes(16)}),
    }


# ---------------------------------------------------------------------------- presets

def _preset(tables: dict) -> Preset:
    return Preset("p", tables, Model("sd15", "eps", 0.03, 14.6, channels=4))


def with_description(text: str) -> bytes:
    """A preset's tensors under another description."""
    tensors = safetensors.numpy.load(preset_file.to_bytes(_preset({"calls2": classical.euler(schedules.karras(
        2, 0.03, 14.6))})))
    return safetensors.numpy.save(tensors, metadata={"s4s_preset": text})


def presets() -> dict[str, bytes]:
    """Preset files; the names end as such files do."""
    def header(content: dict, size: int) -> bytes:
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text)) + text + bytes(size)
    empty = {f"t{k}/sigmas": {"dtype": "F64", "shape": [0], "data_offsets": [0, 0]} for k in range(18_000)}
    made = {
        "1.2 MB of objects": with_description("[" + '{"":0},' * 90_000 + "0]"),
        "1.2 MB of lists": with_description("[" + "[]," * 400_000 + "0]"),
        "1.2 MB of digits": with_description("9" * 1_200_000),
        "1.2 MB of fractions": with_description("0." + "9" * 1_200_000),
        "1.2 MB of numbers of 4,000 digits": with_description("[" + ("9" * 4000 + ",") * 300 + "0]"),
        "30 MB of lists": with_description("[" + "[]," * 10_000_000 + "0]"),
        "18,000 empty tensors": header(empty, 0),
        "a tensor of 30 MB": header({"a/weights": {"dtype": "F64", "shape": [3_900_000],
                                                   "data_offsets": [0, 31_200_000]}}, 31_200_000),
        "an empty tensor of 2^60 rows": header({"a/weights": {"dtype": "F64", "shape": [2 ** 60, 0, 2 ** 60],
                                                              "data_offsets": [0, 0]}}, 0),
        "3 tables of 1000 calls, changed": preset_file.to_bytes(_preset({
            f"t{k}": classical.euler(np.linspace(14.6 + k, 0, 1001)) for k in range(3)}))[:-8] + b"\1" * 8,
        "a whole preset of 3 tables of 1000 calls": preset_file.to_bytes(_preset({
            f"t{k}": classical.euler(np.linspace(14.6 + k, 0, 1001)) for k in range(3)})),
        "a tensor of 2^63 bytes": header({"a/weights": {"dtype": "F64", "shape": [2 ** 60],
                                                        "data_offsets": [0, 2 ** 63]}}, 64),
    }
    return {f"{name}.safetensors": content for name, content in made.items()}


def hostile() -> dict[str, bytes]:
    """All of them."""
    made = {}
    for part in (long_values, collisions, shared, nested, archives, tables, presets):
        made.update(part())
    return made


# ---------------------------------------------------------------------------- accidents

def real() -> list[bytes]:
    """Files as the other projects write them, and one preset."""
    def parameters(**tensors):
        return collections.OrderedDict((key, torch.nn.Parameter(value)) for key, value in tensors.items())
    state = {"_parameters": parameters(hybrid_weights=torch.eye(4), t_scale=torch.ones(4)), "num_steps": 5,
             "_buffers": {"mask": torch.tril(torch.ones(4, 4))}, "afs": False, "dataset_name": "ms_coco"}
    shadow = [torch.zeros(3), *[torch.zeros(4) for _ in range(9)], torch.ones(3, 3)]
    flow = {"window_size": 2, "dyweight_weights_raw": torch.eye(3), "dyweight_t_scales": torch.ones(3)}
    at = torch.linspace(1.0, 1e-3, 6)
    predictor = pickle.dumps({"predictor": types.SimpleNamespace(**state)})
    return [_torch_bytes({"best_t_steps": torch.cat([at, at])}, True), pickle.dumps(flow), predictor,
            _torch_bytes({"ema": {"decay": 0.999, "shadow_params": shadow}, "step": 5}, False),
            _predictor(dataset_name=_text("cifar10"), num_steps=b"K\x05"), _pickle(_numbers(1, 0.5, 1e-3) + b"0N")]


def damaged(count: int) -> list[bytes]:
    """Those files after an accident: cut off, bits flipped, a piece lost or repeated."""
    chance, whole, made = random.Random(0), real(), []
    for k in range(count):
        data = bytearray(whole[k % len(whole)])
        start, end = sorted(chance.randrange(len(data)) for _ in range(2))
        kind = chance.randrange(5)
        if kind == 0:
            del data[start:]
        elif kind == 1:
            del data[start:end]
        elif kind == 2:
            data[start:start] = data[start:end]
        else:
            for _ in range(chance.choice([1, 1, 2, 4, 16])):
                data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        made.append(bytes(data))
    return made
