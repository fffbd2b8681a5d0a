"""The user's own presets over HTTP: all of them shown, renamed, deleted only when meant, joined."""

import json
from dataclasses import replace

import pytest
import s4s_host
import s4s_tools as t
from test_server import done, node, ran

pytestmark = pytest.mark.server


@pytest.fixture
def folder(base, installed):
    return base / "models" / "s4s_presets"


def asked(preset: str, action: str = "list", name: str = "") -> dict:
    return {"all": node("S4SPresets", preset=preset, action=action, name=name)}


def text(run) -> str:
    return done(run).outputs("all")["text"][0]


def refusal(run) -> str:
    """The words of a refused prompt; the host's own refusal of a list's value is none of them."""
    words = json.dumps(run.error, ensure_ascii=False)
    assert run.error is not None and "not in list" not in words.lower(), words
    return words.replace('\\"', '"')


def names(comfy) -> list:
    spec = comfy.get("/object_info/S4SPresets")["S4SPresets"]["input"]["required"]["preset"]
    return spec[0] if isinstance(spec[0], list) else spec[1]["options"]


def test_the_list_has_every_preset_in_words_and_what_cannot_be_read(comfy, folder, installed, models):
    mine = installed(t.preset_for(models("sd3"), name="mine", family="sd3", scores={
        "calls4": {"ratio": 1.25, "recommended": True}, "calls6": {"ratio": 0.9, "recommended": False}}))
    (folder / "broken.safetensors").write_bytes(b"half of a file")
    blocks = text(comfy.run(asked("mine"))).split("\n\n")
    assert blocks[0].startswith(f"1 of yours in {folder}, ")
    assert blocks[1].splitlines() == [
        f"mine {mine.short_hash}: yours", "for sd3, flow; 4, 6 calls; cfg 3",
        "measured: 1.11 times further to 1.25 times closer; recommended: not calls6", str(folder / "mine.safetensors")]
    shipped = next(block for block in blocks if block.startswith("gits-sd15 "))
    assert "ships with S4S" in shipped and not [block for block in blocks if block.startswith("digits-")]
    assert blocks[-1].startswith("! ") and str(folder / "broken.safetensors") in blocks[-1]


def test_the_list_is_made_again_only_when_it_changed(comfy, folder, installed, models):
    installed(t.preset_for(models("sd3"), name="first"))
    assert ran(done(comfy.run(asked("first"))), "all") == 1 and ran(done(comfy.run(asked("first"))), "all") == 0
    installed(t.preset_for(models("sd3"), name="second"))
    again = comfy.run(asked("first"))
    assert "second" in text(again) and ran(again, "all") == 1
    (folder / "first.safetensors").unlink()                     # the list asks for no preset's name
    assert "first" not in text(comfy.run(asked("first")))


def test_rename_changes_the_file_and_its_name_once(comfy, folder, installed, models):
    made = installed(t.preset_for(models("sd3"), name="old"))
    prompt = asked("old", "rename", " portraits ")
    assert "write the new name of 'old' into name" in refusal(comfy.run(asked("old", "rename")))
    there = folder / "portraits.safetensors"
    assert f"is now {there}" in text(comfy.run(prompt))
    assert sorted(folder.iterdir()) == [there]
    found = t.core().preset_file.load(there)
    assert found.name == "portraits" and made.short_hash == found.short_hash
    assert "preset 'old' does not exist" in refusal(comfy.run(prompt))           # queued once more
    assert "portraits" in names(comfy) and "old" not in names(comfy)
    installed(made)                                             # the old name again: neither skipped nor overwritten
    assert "already exists" in refusal(comfy.run(prompt)) and (folder / "old.safetensors").exists()


def test_delete_wants_the_name_and_the_numbers(comfy, folder, installed, models):
    made = installed(t.preset_for(models("sd3"), name="mine"))
    wanted, file = f"mine {made.short_hash}", folder / "mine.safetensors"
    for name in ("", "mine", made.short_hash, f"other {made.short_hash}"):
        words = refusal(comfy.run(asked("mine", "delete", name)))
        assert f"to delete {file} for good, write into name: {wanted}" in words
    assert file.exists()
    prompt = asked("mine", "delete", wanted)
    assert f"deleted {file}" in text(comfy.run(prompt)) and not file.exists()
    assert "preset 'mine' does not exist" in refusal(comfy.run(prompt))


def test_a_node_left_on_delete_spares_a_new_preset_of_the_name_and_takes_the_same_again(comfy, folder, installed,
                                                                                        models):
    made = installed(t.preset_for(models("sd3"), name="mine"))
    prompt, file = asked("mine", "delete", f"mine {made.short_hash}"), folder / "mine.safetensors"
    text(comfy.run(prompt))
    other = installed(t.preset_for(models("sd3"), calls=(5,), name="mine"))
    assert f"write into name: mine {other.short_hash}" in refusal(comfy.run(prompt)) and file.exists()
    installed(made)
    run = comfy.run(prompt)
    assert f"deleted {file}" in text(run) and ran(run, "all") == 1 and not file.exists()


def test_what_ships_stays_and_what_is_damaged_can_go(comfy, folder, models):
    for action in ("rename", "delete"):
        refused = refusal(comfy.run(asked("digits-eps-cfg3", action, "other")))
        assert "ships with S4S: save a copy under another name instead. Or set action to list" in refused
    whole = t.core().preset_file.to_bytes(t.preset_for(models("sd3"), name="broken"))
    (folder / "broken.safetensors").write_bytes(whole[:-9])
    assert "broken" in names(comfy)
    assert "not a whole .safetensors file" in refusal(comfy.run(asked("broken", "rename", "whole")))
    words = refusal(comfy.run(asked("broken", "delete")))
    wanted = words.split("write into name: ")[1][:len("broken 0123456789")]
    assert "deleted" in text(comfy.run(asked("broken", "delete", wanted))) and not list(folder.iterdir())


def test_what_is_no_preset_or_lies_elsewhere_stays(comfy, folder, models, tmp_path):
    t.core().preset_file.save(t.preset_for(models("sd3"), name="far"), tmp_path / "far.safetensors")
    folder.mkdir(exist_ok=True)
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    (folder / "model.safetensors").write_bytes(b"half of a file")
    assert not {"link/far", "model"} & set(names(comfy))
    for name, why in (("link/far", "is behind a link"), ("model", "is not an S4S preset")):
        for action in ("rename", "delete"):
            assert why in refusal(comfy.run(asked(name, action, "other")))
    assert (tmp_path / "far.safetensors").exists() and (folder / "model.safetensors").exists()
    (folder / "link").unlink()
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("name", ["../x", "a:b", "CON", "state", "x" * 101])
def test_a_name_that_is_no_presets_is_refused_before_anything_runs(comfy, folder, installed, models, name):
    installed(t.preset_for(models("sd3"), name="mine"))
    assert "Choose another name" in refusal(comfy.run(asked("mine", "rename", name)))
    save = {"load": node("S4SLoadPreset", preset="mine", path=""),
            "kept": node("S4SSavePreset", preset=["load", 0], name=name, overwrite=True)}
    assert "Choose another name" in refusal(comfy.run(save)) and len(list(folder.iterdir())) == 1


def test_an_unknown_action_is_refused_in_words(comfy):
    """Beside the host's own words: validate_inputs names one input, so that no other refusal is said twice."""
    assert "use list, rename or delete" in json.dumps(comfy.run(asked("digits-eps-cfg3", "erase")).error)


# --- joining --------------------------------------------------------------------------------------------------------

def joining(*presets: str, name: str = "both") -> dict:
    inputs = {key: [preset, 0] for key, preset in zip(("preset", "preset_2", "preset_3", "preset_4"), presets)}
    return {preset: node("S4SLoadPreset", preset=preset, path="") for preset in presets} | {
        "joined": node("S4SJoinPresets", name=name, **inputs), "kept": node("S4SSavePreset", preset=["joined", 0],
                                                                             name="", overwrite=False)}


@pytest.fixture
def at(installed, models):
    """at(cfg): the name of an installed preset learned at this cfg."""
    def install(cfg: float, name: str = "sd3", **more) -> str:
        made = t.preset_at(models(name), cfg, name=f"at{cfg:g}")
        return installed(replace(made, **more)).name
    return install


def test_presets_are_joined_as_on_the_command_line(comfy, folder, at):
    joined = s4s_host.pack("s4s_nodes.select.cfg").join_presets
    run = done(comfy.run(joining(at(6.0), at(2.0), at(4.0))))
    assert run.outputs("joined")["text"][0].startswith("for cfg 2 to 6: tables are interpolated between")
    load = t.core().preset_file.load
    made = load(folder / "both.safetensors")
    assert made.short_hash == joined([load(folder / f"at{cfg}.safetensors") for cfg in (6, 2, 4)], "both").short_hash
    assert made.training["cfg"] == [2.0, 6.0] and len(made.tables) == 6
    unnamed = joining("at2", "at6", name=" ")
    assert str(folder / "at2 joined.safetensors") in done(comfy.run(unnamed)).outputs("kept")["text"][0]


@pytest.mark.parametrize("other, words", [
    ({"name": "sd15"}, "only presets for one model can be joined"),
    ({"training": {}}, "says cfg None: expected a preset learned at one cfg above 0"),
    ({"training": {"cfg": 2}}, "at2 and at2.5 were both learned at cfg 2")])
def test_what_cannot_be_joined_is_said(comfy, at, other, words):
    assert words in refusal(comfy.run(joining(at(2.0), at(2.5, **other))))


@pytest.mark.parametrize("denoise, kind", [(1.0, "calls4, exact"), (0.5, "calls4_from0.6, window"), (0.0, "nothing")])
def test_s4s_preset_takes_a_joined_one(comfy, at, models, denoise, kind):
    for cfg in (2.0, 6.0):
        at(cfg, tables=t.preset_at(models("sd3"), cfg, "windows", starts=((4, 0.6),)).tables)
    done(comfy.run(joining("at2", "at6")))
    prompt = {"preset": node("S4SPreset", preset="both", calls=4, denoise=denoise, strict=False),
              "shown": node("PreviewAny", source=["preset", 5]), "picture": node("PreviewImage", images=["preset", 6])}
    run = done(comfy.run(prompt))
    words = run.outputs("shown")["text"][0]
    assert kind in words and "cfg: 2 to 6, with a table for each cfg between" in words
    assert run.outputs("picture")["images"]
