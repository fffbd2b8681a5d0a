"""Small preset files that ask a reader for much memory or time: {name: content}, the same on every machine.

`read_under_limits.py` reads them under limits.
"""

import json
import random
import struct

import numpy as np
import safetensors.numpy

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules


def _preset(tables: dict) -> Preset:
    return Preset("p", tables, Model("sd15", "eps", 0.03, 14.6, channels=4))


def with_description(text: str) -> bytes:
    """A preset's tensors under another description."""
    tensors = safetensors.numpy.load(preset_file.to_bytes(_preset({"calls2": classical.euler(schedules.karras(
        2, 0.03, 14.6))})))
    return safetensors.numpy.save(tensors, metadata={"s4s_preset": text})


def hostile() -> dict[str, bytes]:
    """All of them."""
    def header(content: dict, size: int) -> bytes:
        text = json.dumps(content).encode()
        return struct.pack("<Q", len(text)) + text + bytes(size)
    empty = {f"t{k}/sigmas": {"dtype": "F64", "shape": [0], "data_offsets": [0, 0]} for k in range(18_000)}
    return {
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
        "40 tables of 150 calls, changed": preset_file.to_bytes(_preset({
            f"t{k}": classical.euler(np.linspace(14.6 + k, 0, 151)) for k in range(40)}))[:-8] + b"\1" * 8,
        "a whole preset of 40 tables of 150 calls": preset_file.to_bytes(_preset({
            f"t{k}": classical.euler(np.linspace(14.6 + k, 0, 151)) for k in range(40)})),
        "a tensor of 2^63 bytes": header({"a/weights": {"dtype": "F64", "shape": [2 ** 60],
                                                        "data_offsets": [0, 2 ** 63]}}, 64),
    }


def real() -> bytes:
    """A preset as it should be."""
    return preset_file.to_bytes(_preset({"calls4": classical.euler(schedules.karras(4, 0.03, 14.6))}))


def damaged(count: int) -> list[bytes]:
    """A whole preset after an accident: cut off, bits flipped, a piece lost or repeated."""
    chance, whole, made = random.Random(0), real(), []
    for _ in range(count):
        data = bytearray(whole)
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
