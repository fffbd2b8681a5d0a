"""Where a training in the WebUI saves what it learned, in the stand-in for a host."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib import import_module

import pytest

from s4s.s4s_nodes.core import preset_file
from tests.hosts.webui_double import Host, module
from tests.hosts.webui_presets import eps_preset


@pytest.fixture
def training(monkeypatch, tmp_path):
    """(the module that trains, the host's presets folder)"""
    host = Host(monkeypatch, tmp_path / "models")
    package = sys.modules["modules"]
    package.paths.data_path = str(tmp_path)
    for name in ("call_queue", "processing"):
        monkeypatch.setitem(sys.modules, f"modules.{name}", module(f"modules.{name}"))
        setattr(package, name, sys.modules[f"modules.{name}"])
    host.load()
    return import_module("s4s_webui_clone.s4s_nodes.hosts.webui.train"), tmp_path / "models" / "s4s_presets"


@pytest.mark.parametrize("name", ["../x", "/x", "CON", "a:b", "a\nb", "a" * 101, "state", ""])
def test_a_name_is_checked_before_anything_is_sampled(training, name):
    train, _ = training
    with pytest.raises(ValueError, match="Choose another name"):
        train.train(train.Wish(("a cat",), name=name), train.Show())


def test_a_stopped_training_is_saved_beside_another_preset_and_over_its_own(training, tmp_path):
    train, shelf = training
    finished = preset_file.save(eps_preset("mine"), shelf / "mine.safetensors")
    before = finished.read_bytes()
    for calls in ("calls4", "calls6"):
        some = {calls: eps_preset().tables[calls]}
        preset_file.save(replace(eps_preset("mine"), tables=some), tmp_path / "run" / "mine.safetensors")
        words = train.shelf.without_places(train.keep_partial("mine", tmp_path / "run", "aa"))
        assert words == ("stopped; the best tables so far are saved as s4s_presets/mine-2.safetensors, the same again "
                         "goes on")
    assert finished.read_bytes() == before and list(preset_file.load(shelf / "mine-2.safetensors").tables) == ["calls6"]


def test_a_finished_training_leaves_another_preset_of_the_name_and_says_so(training, monkeypatch):
    train, shelf = training
    finished = preset_file.save(eps_preset("mine"), shelf / "mine.safetensors")
    before, show = finished.read_bytes(), train.Show()
    theirs = sys.modules[train.Preset.__module__].load(finished)            # of the clone's own classes
    made = replace(theirs, training={"run": "aa", "created": "today"})
    monkeypatch.setattr(train, "hold", lambda *_: type("Held", (), {"preset": made}))
    work = train.Work(train.Wish(("a cat",), name="mine"), train.Outcome(), show)
    assert [work._judged(None, made).name for _ in range(2)] == ["mine-2", "mine-2"]
    assert show.words[-1] == "saved as s4s_presets/mine-2.safetensors: another preset is called mine, and stays"
    assert finished.read_bytes() == before and len(list(shelf.iterdir())) == 2
