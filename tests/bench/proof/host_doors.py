"""The hosts' doors for names, in the tests' stand-ins for a host: uploads, nodes, presets that an image brings back."""

import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.hosts import runs
from s4s.s4s_nodes.library import save_new
from tests.bench.proof.presets import GOOD
from tests.hosts import comfyui_double, webui_double

NODES = "s4s.s4s_nodes.hosts.comfyui"


@cache
def webui() -> SimpleNamespace:
    """Modules of the tab, as the stand-in for a WebUI imports them; nothing of it stays in sys.modules."""
    with tempfile.TemporaryDirectory() as models, pytest.MonkeyPatch.context() as patch:
        host = webui_double.Host(patch, Path(models))
        host.load()
        return SimpleNamespace(collection=host.part("collection"), shelf=host.part("shelf"))


@cache
def comfyui() -> SimpleNamespace:
    """Modules of the nodes, as the stand-in for ComfyUI imports them; nothing of it stays in sys.modules."""
    before = set(sys.modules)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        comfyui_double.install(patch, Path(folder), Path(folder))
        made = SimpleNamespace(paths=sys.modules["folder_paths"], **{
            name: import_module(f"{NODES}.{name}") for name in ("nodes_presets", "nodes_collection", "recorded")})
        for name in {name for name in sys.modules if name.startswith(NODES)} - before:
            del sys.modules[name]
        return made


def uploaded(name: str, home: Path) -> None:
    """WebUI's tab: a file of this name, one that holds this name, and a request for a file that nobody uploaded."""
    tab = webui()
    tab.shelf.folder = lambda: home
    tab.shelf.library.cache_clear()
    with tempfile.TemporaryDirectory() as uploads, pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", uploads)
        asked = [os.path.join(uploads, name), os.path.join(uploads, f"{name}.safetensors")]
        with suppress(ValueError):                              # no preset can hold this name
            asked.append(preset_file.save(replace(GOOD, name=name), Path(uploads) / "theirs.safetensors"))
        with suppress(OSError, ValueError):                     # no file can have it
            if Path(asked[1]).parent == Path(uploads):
                Path(asked[1]).write_bytes(preset_file.to_bytes(GOOD))
        tab.collection.add(list(map(str, asked)))


def saved_by_a_node(name: str, home: Path) -> None:
    """ComfyUI's S4S Save Preset: this name in the node; then in the preset."""
    node = _nodes(home).nodes_presets.S4SSavePreset
    with suppress(ValueError):
        node.execute(GOOD, name, False)
    node.execute(replace(GOOD, name=name), "", False)


def renamed_by_a_node(name: str, home: Path) -> None:
    save_new(replace(GOOD, name="old"), home)
    _nodes(home).nodes_collection.S4SPresets.execute("old", "rename", name)


def imported_by_a_node(name: str, home: Path) -> None:
    node = _nodes(home).nodes_presets.S4SImport
    assert node.validate_inputs(source=name) is not True
    node.execute(source=name)


def dropped_in(record: dict, name: str, home: Path) -> None:
    """ComfyUI's endpoint, which saves again the tables of an image that was dropped in."""
    notes = [{"numbers": {**record, "name": name}}]
    _nodes(home).recorded.answer(json.dumps({"notes": notes, "save": True}).encode())


def trained(name: str, home: Path) -> None:
    """What the hosts' trainings ask of the disk before anything is loaded."""
    runs.check_places(name, home)
    assert runs.run_folder(home, name, "0123456789", 1)[0].parent == home


def _nodes(home: Path) -> SimpleNamespace:
    host = comfyui()
    host.paths.get_folder_paths = lambda _: [str(home)]
    return host


DOORS = (uploaded, saved_by_a_node, renamed_by_a_node, imported_by_a_node, trained)
