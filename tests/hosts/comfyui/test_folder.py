"""The folder of presets: where it is, what it shows, and paths the user configured."""

import os

import folder_paths
import pytest
import s4s_host
import s4s_tools as t

folder = s4s_host.pack("s4s_nodes.hosts.comfyui.folder")


def test_the_folder_is_models_s4s_presets(base):
    assert folder.home() == base / "models" / "s4s_presets"
    assert folder_paths.folder_names_and_paths["s4s_presets"][1] == {".safetensors"}
    folder.register()
    paths = folder_paths.get_folder_paths("s4s_presets")
    assert len(paths) == len(set(paths)) == 2


def test_presets_that_ship_are_there_and_other_files_are_not(base, installed):
    (base / "models" / "s4s_presets" / "notes.txt").write_text("no preset")
    assert "digits-eps-cfg3" in folder.presets().named()
    parts = s4s_host.pack("s4s_nodes.hosts.comfyui.parts")
    options = parts.combo("auto").options
    assert "gits-sd15" in options and "digits-eps-cfg3" not in options          # for no model of the host
    assert parts.unknown("digits-eps-cfg3") is None                             # a saved workflow may name it
    assert "digits-" not in parts.unknown("other") and "gits-sd15" in parts.unknown("other")
    assert folder_paths.get_filename_list("s4s_presets") and not any(
        name.endswith((".txt", ".md")) for name in folder_paths.get_filename_list("s4s_presets"))


def test_a_new_file_and_a_changed_one_are_seen_at_once(models, installed):
    installed(t.preset_for(models("sd3"), calls=(4,), name="fresh"))
    assert folder.presets().get("fresh").counts == [4]
    installed(t.preset_for(models("sd3"), calls=(4, 6), name="fresh"))
    assert folder.presets().get("fresh").counts == [4, 6]


@pytest.mark.parametrize("node", ["S4SFromImage", "S4SLoadPreset"])
def test_another_content_of_the_same_size_and_time_is_read_again(base, node):
    """Or the host would answer from what it kept of the file before."""
    nodes = s4s_host.pack("s4s_nodes.hosts.comfyui.nodes_presets")
    path = base / "input" / "one.png"
    path.write_bytes(b"a picture")
    before = path.stat()
    given = {"S4SFromImage": {"image": path.name}, "S4SLoadPreset": {"preset": "auto", "path": str(path)}}[node]
    marks = [getattr(nodes, node).fingerprint_inputs(**given)]
    path.with_suffix(".new").write_bytes(b"b picture")
    os.replace(path.with_suffix(".new"), path)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
    assert getattr(nodes, node).fingerprint_inputs(**given) not in marks
    path.unlink()


def test_a_long_list_reads_the_folders_no_oftener_than_a_short_one(installed, models, monkeypatch):
    listed, library, reads = s4s_host.pack("s4s_nodes.hosts.comfyui.nodes_collection")._listed, folder.presets(), []
    paths = type(library)._paths
    monkeypatch.setattr(type(library), "_paths", lambda self: reads.append(self) or paths(self))
    before, once = listed(library), len(reads)
    for i in range(12):
        installed(t.preset_for(models("sd3"), name=f"more {i}"))
    assert listed(library).count("yours") == before.count("yours") + 12 and len(reads) == 2 * once


def test_a_damaged_file_is_named_and_hides_no_other(base, installed, models):
    installed(t.preset_for(models("sd3"), name="whole"))
    (base / "models" / "s4s_presets" / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    assert "whole" in folder.presets().named() and "broken" not in folder.presets().named()
    assert any("broken" in problem for problem in folder.presets().problems())
    parts = s4s_host.pack("s4s_nodes.hosts.comfyui.parts")
    assert "broken" in parts.unknown("broken") and "auto" in parts.unknown("nothing", "auto")


def test_a_file_of_a_newer_format_is_logged_once_with_what_to_do(base, installed, models, monkeypatch, caplog):
    core = t.core()
    monkeypatch.setattr(core.preset_file, "FORMAT_VERSION", 2)
    installed(t.preset_for(models("sd3"), name="tomorrow"))
    monkeypatch.undo()
    installed(t.preset_for(models("sd3"), name="today"))
    combo = s4s_host.pack("s4s_nodes.hosts.comfyui.parts").combo
    for _ in range(2):                                                  # a browser asks whenever it is refreshed
        options = combo("").options
    assert "today" in options and "tomorrow" not in options
    said = [record.getMessage() for record in caplog.records if "tomorrow" in record.getMessage()]
    assert len(said) == 1 and "has format version 2, this program reads 1: update S4S" in said[0]


def test_a_path_of_extra_model_paths_comes_first(tmp_path, monkeypatch, models):
    """The host reads that file before it imports packs."""
    import importlib.util
    spec = importlib.util.spec_from_file_location("extra_config", s4s_host.folder() / "utils" / "extra_config.py")
    extra = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(extra)
    names = dict(folder_paths.folder_names_and_paths)
    del names["s4s_presets"]
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", names)
    (tmp_path / "mine").mkdir()
    (tmp_path / "paths.yaml").write_text(f"me:\n  base_path: {tmp_path}\n  s4s_presets: mine\n")
    extra.load_extra_path_config(str(tmp_path / "paths.yaml"))
    folder.register()
    assert folder.home() == tmp_path / "mine"
    assert folder_paths.folder_names_and_paths["s4s_presets"][1] == {".safetensors"}
    made = t.preset_for(models("sd3"), name="elsewhere")
    t.core().preset_file.save(made, tmp_path / "mine" / "elsewhere.safetensors")
    assert "elsewhere" in folder.presets().named()
