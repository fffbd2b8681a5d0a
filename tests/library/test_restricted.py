"""The reader of downloaded pickles: right about tensors, deaf to everything else.

Every hostile file here would act on a plain `pickle.load`; each first proves that it would, where that is harmless.
"""

from __future__ import annotations

import collections
import io
import os
import pickle
import struct
import sys
import tracemalloc
import types
import zipfile

import numpy as np
import pytest
import torch

from s4s.s4s_nodes import importers
from s4s.s4s_nodes.core import Model, preset_file
from s4s.s4s_nodes.importers import UnreadableFile, restricted

SD15 = Model("sd15", "eps", 0.0292, 14.6, channels=4)


def torch_bytes(value, new_format=True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=new_format)
    return buffer.getvalue()


# ---------------------------------------------------------------------------- what it reads

VALUES = {
    "float32": torch.randn(3, 4), "float64": torch.randn(2, dtype=torch.float64), "half": torch.randn(5).half(),
    "bfloat16": torch.randn(5).bfloat16(), "long": torch.arange(7), "bool": torch.tensor([True, False]),
    "scalar": torch.tensor(2.5), "empty": torch.zeros(0), "parameter": torch.nn.Parameter(torch.randn(4, 4)),
    "transposed": torch.randn(3, 5).T, "a view": torch.arange(20.)[3:15:2], "expanded": torch.ones(1, 3).expand(4, 3),
}


@pytest.mark.parametrize("save", [lambda v: torch_bytes(v), lambda v: torch_bytes(v, False), pickle.dumps])
def test_tensors_come_out_as_torch_has_them(save):
    found = restricted.loads(save({"list": [1, 2.5, None, True, "text"], **VALUES}))
    assert found["list"] == [1, 2.5, None, True, "text"]
    for name, value in VALUES.items():
        wanted = value.detach().double().numpy()
        assert restricted.array(found[name]).shape == wanted.shape, name
        np.testing.assert_array_equal(restricted.array(found[name]), wanted, err_msg=name)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_of_every_pickle_protocol(protocol):
    value = {"a": [1, -2, 2 ** 70, 0.25, "ü", b"x", None, True], "b": (), "c": {"d": (1,), "e": (1, 2, 3, 4)}}
    assert restricted.loads(pickle.dumps(value, protocol)) == value
    assert restricted.loads(pickle.dumps({"s": {"x", 1}}, max(protocol, 4)))["s"] == {"x", 1}


def test_shared_tensors_share_and_order_is_kept():
    one = torch.arange(6.)
    found = restricted.loads(torch_bytes(collections.OrderedDict(z=one, a=one[2:])))
    assert list(found) == ["z", "a"] and found["a"].tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize("value", [np.arange(6.).reshape(2, 3), np.float64(0.5), np.arange(4, dtype=np.int16),
                                   np.asfortranarray(np.arange(6.).reshape(2, 3)), np.float32(3)])
def test_numpy_arrays_and_scalars_come_out(value):
    found = restricted.array(restricted.loads(pickle.dumps({"x": value}, 2))["x"])
    np.testing.assert_array_equal(found, value)


def test_a_tensor_alone_comes_out_too():
    for save in (torch_bytes, pickle.dumps, lambda value: torch_bytes(value, new_format=False)):
        assert restricted.loads(save(torch.arange(3.))).tolist() == [0, 1, 2]


def test_objects_become_records_of_what_they_were():
    found = restricted.loads(pickle.dumps({"o": types.SimpleNamespace(weight=torch.ones(2))}))["o"]
    assert found.what == "types.SimpleNamespace" and restricted.array(found.state["weight"]).tolist() == [1, 1]


# ---------------------------------------------------------------------------- what it must not do

class Calls:
    """Pickles as a call of `function(*args)`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.fixture
def trap(tmp_path):
    """A file that must not appear."""
    place = tmp_path / "executed"
    yield place
    assert not place.exists()


def hostile(place) -> dict[str, bytes]:
    """name -> a pickle that runs something when it is unpickled."""
    touch = f"touch {place}"
    python = f"open({str(place)!r}, 'w').close()"
    chain = b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR(S'" + touch.encode() + b"'\ntR."
    made = {
        "os.system": pickle.dumps({"ema": Calls(os.system, touch)}),
        "eval": pickle.dumps(Calls(eval, python)), "exec": pickle.dumps(Calls(exec, python)),
        "getattr chain": chain,
        "import": pickle.dumps(Calls(__import__, "this")),
        "torch.load inside": pickle.dumps(Calls(torch.load, str(place))),
        "a call through map": pickle.dumps(Calls(list, Calls(map, eval, [python]))),
        "inside a storage": pickle.dumps(Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, touch)))),
        "inside torch's zip": torch_bytes({"x": Calls(os.system, touch)}),
        "inside torch's old format": torch_bytes({"x": Calls(os.system, touch)}, new_format=False),
        "global by name": b"cposix\nsystem\n(S'" + touch.encode() + b"'\ntR.",
        "inst": b"(S'" + touch.encode() + b"'\niposix\nsystem\n.",
        "obj": b"(cposix\nsystem\nS'" + touch.encode() + b"'\no.",
        "setstate": b"ctypes\nSimpleNamespace\n)\x81}S'__setstate__'\ncposix\nsystem\nsbS'" + touch.encode() + b"'\nb.",
        "slots": b"\x80\x02cnumpy\nndarray\n)\x81(N}S'__class__'\ncposix\nsystem\nstb.",
        "newobj_ex": b"\x80\x04cposix\nsystem\n(S'" + touch.encode() + b"'\nt}\x92.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent id": b"Psystem\n.",
        "reduce on a tensor rebuilder": (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(cposix\nsystem\nK\x00K\x01\x85"
                                         b"K\x01\x85\x89NtR."),
        "build on a rebuilder": b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}S'__code__'\nK\x01sb.",
        "call of a call": b"cposix\nsystem\n)RS'" + touch.encode() + b"'\n\x85R.",
    }
    return made


def test_the_hostile_files_would_work_on_pickle(tmp_path):
    """Else the tests below prove nothing."""
    place = tmp_path / "there"
    pickle.loads(hostile(place)["exec"])
    assert place.exists()


@pytest.mark.parametrize("name", hostile(""))
def test_a_hostile_file_does_nothing(name, trap, tmp_path):
    content = hostile(trap)[name]
    modules = set(sys.modules)
    try:
        restricted.loads(content)
    except UnreadableFile as refusal:
        assert 10 < len(str(refusal)) < 400
    path = tmp_path / "network-snapshot-000010.pkl"
    path.write_bytes(content)
    for kind in ("auto", *importers.KINDS):
        with pytest.raises(UnreadableFile):
            importers.read(path, kind)
    assert set(sys.modules) == modules


def test_a_call_is_only_recorded(trap):
    found = restricted.loads(hostile(trap)["os.system"])["ema"]
    assert type(found) is restricted.Stub and found.what.endswith("system") and found.args[0].startswith("touch")


def bombs() -> dict[str, bytes]:
    """name -> a small file that asks for much memory or time."""
    deep = b"(" + b"(" * 200_000 + b"t" * 200_000 + b"t."
    key = b"}" + b")" + b"\x85" * 100_000 + b"K\x01s."
    huge = zipfile_of({"a/data.pkl": b"\x80\x02}."}, zipfile.ZIP_DEFLATED, pad=2 ** 24)
    return {
        "bytes of 8 EB": b"\x80\x04\x8e" + struct.pack("<Q", 2 ** 62) + b"x.",
        "bytes of 2 GB": b"\x80\x03B" + struct.pack("<I", 2 ** 31 - 1) + b"x.",
        "text of 2 GB": b"\x80\x03X" + struct.pack("<I", 2 ** 31 - 1) + b"x.",
        "memo at 2 billion": b"\x80\x02Nr" + struct.pack("<I", 2 ** 31) + b".",
        "a long frame": b"\x80\x04\x95" + struct.pack("<Q", 2 ** 60) + b"N.",
        "nested 200,000 deep": deep, "a deep key": key,
        "a million opcodes": b"\x80\x02" + b"N0" * 500_000 + b"N.",
        "a long integer": b"\x80\x02\x8b" + struct.pack("<i", 2 ** 31 - 1) + b"\xff.",
        "a tensor of 2^60": tensor_pickle((2 ** 60,), (0,)),
        "a tensor of 2^20 x 2^20": tensor_pickle((2 ** 20,) * 2, (0, 0)),
        "a tensor out of bounds": tensor_pickle((4,), (1,), offset=2), "a negative stride": tensor_pickle((2,), (-1,)),
        "compressed zip": huge, "zips in zips": nested_zips(6),
    }


def tensor_pickle(size, stride, offset=0) -> bytes:
    """torch's zip of one float storage of four numbers, described as somebody likes."""
    class Storage:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Persistent(), offset, size, stride, False, None)

    class Persistent:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", 4) if isinstance(value, Persistent) else None
    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"x": Storage()})
    return zipfile_of({"a/data.pkl": buffer.getvalue(), "a/data/0": b"\0" * 16})


def zipfile_of(entries: dict, method=zipfile.ZIP_STORED, pad=0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(name, content + b"\0" * pad)
    return buffer.getvalue()


def nested_zips(depth) -> bytes:
    content = torch_bytes({"x": 1})
    for _ in range(depth):
        content = torch_bytes({"x": Calls(torch.storage._load_from_bytes, content)})
    return content


@pytest.mark.parametrize("name", bombs())
def test_a_bomb_costs_little_and_is_refused(name):
    content = bombs()[name]
    tracemalloc.start()
    try:
        if name in ("nested 200,000 deep", "memo at 2 billion", "a long frame"):      # cost nothing here
            try:
                restricted.loads(content)
            except UnreadableFile:
                pass
        else:
            with pytest.raises(UnreadableFile):
                restricted.loads(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 ** 27


def test_a_file_too_large_is_not_opened(tmp_path):
    path = tmp_path / "big.pt"
    with open(path, "wb") as file:
        file.truncate(restricted.MAX_BYTES + 1)
    with pytest.raises(UnreadableFile, match="has 16777217 bytes"):
        restricted.content_of(path)
    with pytest.raises(OSError):
        restricted.content_of(tmp_path / "absent.pt")


def test_every_cut_and_every_flipped_byte_is_read_or_refused():
    """No other exception, whatever the damage."""
    whole = [torch_bytes({"best_t_steps": torch.linspace(1, 0.001, 6)}),
             pickle.dumps({"x": torch.ones(2), "y": [1, "a"]}), torch_bytes({"x": torch.ones(2)}, new_format=False)]
    random = np.random.default_rng(0)
    for content in whole:
        damaged = [content[:cut] for cut in range(0, len(content), 7)]
        for _ in range(300):
            at, value = random.integers(len(content)), random.integers(256)
            damaged.append(content[:at] + bytes([value]) + content[at + 1:])
        for each in damaged:
            try:
                restricted.loads(each)
            except UnreadableFile:
                pass


# ---------------------------------------------------------------------------- whole files, made here

def persistent(name, state) -> Calls:
    """What NVIDIA's torch_utils.persistence pickles an object as; its source is code a plain unpickler would run."""
    return Calls(_reconstruct, {"type": "class", "version": 6, "module_src": "raise SystemExit", "class_name": name,
                                "state": state})


def _reconstruct(meta):
    raise SystemExit("the file's code was run")


_reconstruct.__module__, _reconstruct.__qualname__ = "torch_utils.persistence", "_reconstruct_persistent_obj"


@pytest.fixture
def persistence(monkeypatch):
    module = types.ModuleType("torch_utils.persistence")
    module._reconstruct_persistent_obj = _reconstruct
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, "torch_utils.persistence", module)


def parameters(**tensors):
    return collections.OrderedDict((key, torch.nn.Parameter(value)) for key, value in tensors.items())


def dyweight_file(steps=5, dataset="ms_coco", **state):
    weights = torch.eye(steps - 1) * 0.9 + 0.01
    predictor = {"_parameters": parameters(hybrid_weights=weights, t_scale=torch.ones(steps - 1)),
                 "_buffers": {"mask": torch.tril(torch.ones(steps - 1, steps - 1))}, "num_steps": steps, "afs": False,
                 "guidance_rate": 7.5, **state}
    loss = {"schedule_type": "discrete", "schedule_rho": 1.0, "dataset_name": dataset, "t_steps": None}
    return pickle.dumps({"predictor": persistent("DyWeight_predictor", predictor),
                         "loss_fn": persistent("DyWeight_loss", loss)})


def epd_file(steps=4, **state):
    rows = {key: torch.randn(steps - 1, 2, generator=torch.Generator().manual_seed(1))
            for key in ("r_params", "scale_dir_params", "scale_time_params", "weight_s")}
    predictor = {"_parameters": parameters(**rows), "dataset_name": "cifar10", "num_steps": steps, "sampler_stu": "epd",
                 "schedule_type": "time_uniform", "schedule_rho": 1.0, "afs": True, "scale_dir": 0.05,
                 "scale_time": 0.05, "max_order": 3, "fcn": False, "_modules": {"sigmoid": torch.nn.Sigmoid()}, **state}
    return pickle.dumps({"model": persistent("EPD_predictor", predictor)})


def gas_file(calls=4):
    shadow = [torch.zeros(calls - 1), *[torch.zeros(calls) for _ in range(2 * calls + 1)], torch.randn(3, 3)]
    return torch_bytes({"ema": {"decay": 0.999, "num_updates": 7, "shadow_params": shadow, "collected_params": None},
                        "model": [], "optim": {"state": {}}, "step": 500})


def ld3_file(top=1.0, low=1e-3, calls=5):
    at = torch.linspace(top, low, calls + 1)
    return torch_bytes({"params1": torch.ones(calls + 1), "best_t_steps": torch.cat([at, at])})


def flux_file(calls=3):
    return torch_bytes({"window_size": 2, "dyweight_weights_raw": torch.eye(calls),
                        "dyweight_t_scales": torch.ones(calls)})


@pytest.mark.parametrize("kind, make, calls, family, cfg", [
    ("dyweight", dyweight_file, 4, "sd15", 7.5), ("epd", epd_file, 8, "edm-cifar10", None),
    ("gas", gas_file, 4, "sd15", None), ("ld3", ld3_file, 5, "sd15", None), ("dyweight", flux_file, 3, "flux", None)])
def test_a_file_of_each_kind_becomes_a_preset(kind, make, calls, family, cfg, persistence, tmp_path):
    path = tmp_path / "a run" / "network-snapshot-000010.pkl"
    path.parent.mkdir()
    path.write_bytes(make())
    made = importers.read(path)
    assert made.training["imported"] == kind and made.counts == [calls] and made.model.family == family
    assert made.name == f"{kind}-a-run" and made.training.get("cfg") == cfg and "not measured" in made.training["note"]
    assert made.table(calls).sigmas[-1] == 0
    again = preset_file.load(preset_file.save(made, tmp_path / "p.safetensors"))
    assert again.short_hash == made.short_hash and preset_file.verify(again) < 1e-12
    assert importers.read(path, kind, model=SD15).model == SD15
    others = [each for each in importers.KINDS if each != kind]
    with pytest.raises(UnreadableFile, match=f"is not a file of {others[0]}"):
        importers.read(path, others[0])


def test_a_file_says_in_words_what_is_wrong_with_it(persistence, tmp_path):
    path = tmp_path / "x.pkl"
    for content, words in [(dyweight_file(dataset="my_cats"), "a model not known here"),
                           (dyweight_file(num_steps=9), r"8 steps and 8 calls need \(8, 8\)"),
                           (epd_file(schedule_type="mine"), "known are polynomial, logsnr, time_uniform, discrete"),
                           (epd_file(num_steps="four"), "need one row a step"),
                           (epd_file(sampler_stu="ipndm", max_order=9), "uses order 9"),
                           (torch_bytes({"state_dict": {"w": torch.ones(1)}}), "not a file of dyweight, epd, gas, ld3"),
                           (torch_bytes({"best_t_steps": torch.ones(7)}), r"expected 2 \(N \+ 1\) positive numbers"),
                           (torch_bytes({"ema": {"shadow_params": [torch.ones(3)]}}), "not a GS student's"),
                           (b"", "ends within a pickle|damaged"), (b"hello", "damaged")]:
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match=words):
            importers.read(path)
    with pytest.raises(ValueError, match="unknown kind of file"):
        importers.read(path, "s4s")


def test_ld3_takes_its_solver_from_the_run_beside_it(tmp_path):
    path = tmp_path / "best_v2.pt"
    path.write_bytes(ld3_file())
    assert importers.read(path).training["solver"] == "uni_pc, order 2, bh2"
    (tmp_path / "config.yml").write_text("solver_name: ipndm\norder: 3\nscale: 7.5\nckp_path: a/b\nprior:\n  - x\n")
    made = importers.read(path)
    assert made.training["solver"] == "ipndm, order 3" and made.training["cfg"] == 7.5 and made.training["solver_known"]
    (tmp_path / "config.yml").write_text("solver_name: dpm_solver\norder: 2\n")
    with pytest.raises(UnreadableFile, match="only uni_pc, ipndm and euler can be read"):
        importers.read(path)


def test_an_exploding_ld3_schedule_is_known_by_its_times(tmp_path):
    path = tmp_path / "best_v2.pt"
    path.write_bytes(ld3_file(top=80.0, low=0.002))
    made = importers.read(path)
    assert made.model.family == "edm" and made.table(5).sigmas[0] == 80 and (made.table(5).scale == 1).all()


def test_several_files_of_one_model_become_one_preset(persistence, tmp_path):
    made = []
    for steps in (5, 7):
        path = tmp_path / f"{steps}.pkl"
        path.write_bytes(dyweight_file(steps))
        made.append(importers.read(path))
    both = importers.merged(made, "dyweight-sd15")
    assert both.counts == [4, 6] and len(both.training["file_sha256"]) == 2
    with pytest.raises(ValueError, match="holds calls4 once more"):
        importers.merged([made[0], made[0]], "x")
    path.write_bytes(flux_file())
    with pytest.raises(ValueError, match="import them one by one"):
        importers.merged([made[0], importers.read(path)], "x")
