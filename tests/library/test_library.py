"""The presets on a machine: found, hidden, broken, changed, renamed; no question raises for a bad file."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from s4s.s4s_nodes import library
from s4s.s4s_nodes.core import Model, Preset, PresetError, classical, preset_file, schedules
from s4s.s4s_nodes.library import Library, measured_text, recommended_text, save_new, save_scores, save_version


def preset(name="mine", calls=6) -> Preset:
    tables = {f"calls{calls}": classical.dpmpp_2m(schedules.karras(calls, 0.03, 14.6))}
    return Preset(name, tables, Model("sd15", "eps", 0.0292, 14.6146, channels=4))


@pytest.fixture
def shipped(tmp_path):
    save_new(preset("base"), tmp_path / "shipped")
    return tmp_path / "shipped"


@pytest.fixture
def mine(tmp_path):
    return tmp_path / "mine"


def test_the_presets_that_ship_are_there_and_whole():
    found = Library([])
    assert {"digits-eps-cfg3", "digits-flow-cfg3"} <= set(found.named()) and found.problems() == []
    assert found.get("digits-eps-cfg3").counts == [4, 5, 6, 8, 10]


def test_names_are_paths_in_their_folders_the_users_first(mine, shipped):
    save_new(preset("zoo"), mine)
    save_new(preset("one"), mine / "portraits" / "close")
    found = Library([mine], shipped)
    assert list(found.named()) == ["zoo", "portraits/close/one", "base"]
    assert found.get("portraits/close/one").name == "one" and len(found.named()) == 3


def test_what_ships_for_one_channel_is_not_offered_and_a_users_own_is(mine, shipped):
    for folder, name in ((shipped, "digits"), (mine, "grey")):
        save_new(replace(preset(name), model=replace(preset().model, channels=1)), folder)
    found = Library([mine], shipped)
    assert list(found.offered()) == found.listed() == ["grey", "base"]
    assert list(found.named()) == ["grey", "base", "digits"] and found.get("digits").name == "digits"


def test_the_users_own_hides_a_shipped_one_and_it_is_said(mine, shipped):
    own = save_new(preset("base", calls=4), mine)
    found = Library([mine], shipped)
    assert list(found.named()) == ["base"] and found.get("base").counts == [4]
    assert found.problems() == [f"{shipped / 'base.safetensors'} is hidden by {own}, which has the same name"]


def test_a_hidden_preset_can_still_be_selected(mine, shipped):
    """A user's file by the name of a shipped schedule changes no image: names are for people."""
    save_new(preset("base", calls=4), mine)
    found = Library([mine], shipped)
    assert len(found.named()) == 1 and [each.counts for each in found.candidates()] == [[4], [6]]



def test_a_broken_file_is_a_problem_and_no_exception(mine, shipped):
    mine.mkdir()
    (mine / "cut.safetensors").write_bytes(preset_file.to_bytes(preset())[:200])
    (mine / "folder.safetensors").mkdir()
    (mine / "notes.txt").write_text("no preset")
    found = Library([mine], shipped)
    assert list(found.named()) == ["base"]
    problem, = found.problems()
    assert str(mine / "cut.safetensors") in problem and "not a whole .safetensors file" in problem
    with pytest.raises(PresetError, match="not a whole .safetensors file"):
        found.get("cut")


def test_folders_that_are_not_there_are_empty(tmp_path, shipped):
    found = Library([tmp_path / "nowhere"], shipped)
    assert list(found.named()) == ["base"] and found.problems() == []
    assert Library([], tmp_path / "nowhere").named() == {}


def test_a_file_is_read_again_only_when_it_changed(mine, shipped, monkeypatch):
    path = save_new(preset("one"), mine)
    monkeypatch.setattr(library, "TICK", 0)                 # the files are older than the file system's clock is coarse
    reads = []
    load = preset_file.load
    monkeypatch.setattr(preset_file, "load", lambda path: reads.append(path.name) or load(path))
    found = Library([mine], shipped)
    for _ in range(3):
        found.named(), found.get("one"), found.problems()
    assert sorted(reads) == ["base.safetensors", "one.safetensors"]
    preset_file.save(preset("one", calls=5), path)
    os.utime(path, ns=(1, 1))
    assert found.get("one").counts == [5] and reads[2:] == ["one.safetensors"]
    path.unlink()
    assert list(found.named()) == ["base"]


@pytest.mark.parametrize("years_back", [0, 3])
@pytest.mark.parametrize("renamed", [True, False])
def test_another_content_of_the_same_size_and_time_is_read(mine, shipped, renamed, years_back, monkeypatch):
    """Also where the clock was set back after the file was written."""
    path, now = save_new(preset("one"), mine), library.time.time_ns
    monkeypatch.setattr(library.time, "time_ns", lambda: now() - int(years_back * 3e16))
    found, before = Library([mine], shipped), path.stat()
    assert found.get("one").licence == ""
    content = preset_file.to_bytes(replace(preset("one"), licence="x"))
    for licence in "xyz":
        content = preset_file.to_bytes(replace(preset("one"), licence=licence))
        if renamed:
            (mine / "other").write_bytes(content)
            os.replace(mine / "other", path)
        else:
            path.write_bytes(content)
        os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))
        assert found.get("one").licence == licence


def test_two_trainings_that_end_at_once_get_two_names(tmp_path, monkeypatch):
    """Whoever looked before the other wrote must not overwrite it."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "exists", lambda path: False)
        saved = [save_version(preset("one", calls=calls), tmp_path)[0].name for calls in (4, 5)]
    assert saved == ["one", "one-2"]
    assert [preset_file.load(tmp_path / f"{name}.safetensors").counts for name in saved] == [[4], [5]]


def test_a_mended_file_is_read(mine, shipped):
    mine.mkdir()
    path = mine / "one.safetensors"
    path.write_bytes(b"broken")
    found = Library([mine], shipped)
    assert len(found.problems()) == 1
    preset_file.save(preset("one"), path)
    assert found.problems() == [] and "one" in found.named()


@pytest.mark.parametrize("name", [
    "../secret", "a/../../secret", "/etc/passwd", "..\\secret", "", ".", "secret\0", "base/"])
def test_a_name_reaches_nothing_outside_the_folders(name, tmp_path, mine, shipped):
    save_new(preset("secret"), tmp_path)
    (mine / "a").mkdir(parents=True)
    found = Library([mine], shipped)
    for ask in (found.get, found.path, found.delete, lambda name: found.rename(name, "x")):
        with pytest.raises(PresetError, match="there is no preset .*; installed are: base"):
            ask(name)
    assert (tmp_path / "secret.safetensors").exists()


def test_a_link_to_a_folder_is_followed_once(mine, shipped, tmp_path):
    save_new(preset("far"), tmp_path / "elsewhere")
    mine.mkdir()
    try:
        (mine / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere" / "back").symlink_to(mine, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    assert list(Library([mine], shipped).named()) == ["link/far", "base"]


def test_one_preset_is_read_without_the_others(mine, shipped, monkeypatch):
    for name in ("one", "two"):
        save_new(preset(name), mine)
    read, load = [], preset_file.load
    monkeypatch.setattr(preset_file, "load", lambda path: read.append(path.stem) or load(path))
    assert Library([mine], shipped).get("two").name == "two" and read == ["two"]


# --- saving, renaming, deleting -----------------------------------------------------------------------------

def test_a_saved_preset_is_found_under_its_name(mine, shipped):
    path = save_new(preset("my model, cfg 7.5"), mine)
    assert path.parent == mine
    assert Library([mine], shipped).get(path.stem).name == "my model, cfg 7.5"


def test_saving_overwrites_only_when_told(mine):
    path = save_new(preset("one"), mine)
    with pytest.raises(PresetError, match="already exists: give the preset another name"):
        save_new(preset("one", calls=4), mine)
    assert preset_file.load(path).counts == [6]
    save_new(preset("one", calls=4), mine, overwrite=True)
    assert preset_file.load(path).counts == [4] and [p.name for p in mine.iterdir()] == ["one.safetensors"]


@pytest.mark.parametrize("name, file", [
    ("../../etc/passwd", "_.._etc_passwd"), ("a/b\\c:d", "a_b_c_d"), (" .hidden. ", "hidden"), ("...", "_"),
    ("con", "_con"), ("LPT1.x", "_LPT1.x"), ("émoji 絵文字", "émoji 絵文字"), ("a" * 100, "a" * 100),
    ("絵" * 100, "絵" * 66), ("a?*<>|\"b", "a______b")])
def test_a_file_is_named_as_every_system_takes_it(name, file, mine):
    path = save_new(preset(name), mine)
    assert path == mine / f"{file}.safetensors" and path.is_file()


def test_renaming_changes_the_file_and_what_is_in_it(mine, shipped):
    save_new(preset("old"), mine / "sub")
    found = Library([mine], shipped)
    path = found.rename("sub/old", "new")
    assert path == mine / "sub" / "new.safetensors" and list(found.named()) == ["sub/new", "base"]
    assert found.get("sub/new").name == "new"
    assert found.get("sub/new").short_hash == preset().short_hash


def test_a_file_renamed_by_hand_gets_its_name_inside_too(mine, shipped):
    save_new(preset("sent"), mine).rename(mine / "kept.safetensors")
    found = Library([mine], shipped)
    assert found.rename("kept", "kept") == mine / "kept.safetensors"
    assert found.get("kept").name == "kept" and list(found.named()) == ["kept", "base"]


def test_renaming_takes_nobodys_place(mine, shipped):
    save_new(preset("one"), mine)
    save_new(preset("two", calls=4), mine)
    found = Library([mine], shipped)
    for taken in ("two", "one"):
        with pytest.raises(PresetError, match="already exists"):
            found.rename("one", taken)
    with pytest.raises(PresetError, match="preset name ''"):
        found.rename("one", "")
    assert list(found.named()) == ["one", "two", "base"] and found.get("two").counts == [4]


def test_what_ships_is_neither_renamed_nor_deleted(mine, shipped):
    found = Library([mine], shipped)
    for change in (found.delete, lambda name: found.rename(name, "mine")):
        with pytest.raises(PresetError, match="preset 'base' ships with S4S: save a copy under another name"):
            change("base")
    assert list(found.named()) == ["base"]


def test_what_ships_ships_by_whatever_path_it_is_reached(shipped, monkeypatch):
    monkeypatch.chdir(shipped.parent)
    found = Library(["shipped"], shipped)
    assert list(found.named()) == ["base"] and found.problems() == []
    with pytest.raises(PresetError, match="preset 'base' ships with S4S"):
        found.delete("base")


def test_a_file_of_a_newer_format_is_named_with_what_to_do_and_hides_no_other(mine, shipped, monkeypatch):
    with monkeypatch.context() as future:
        future.setattr(preset_file, "FORMAT_VERSION", 2)
        path = save_new(preset("tomorrow"), mine)
    save_new(preset("today"), mine)
    found = Library([mine], shipped)
    assert list(found.named()) == ["today", "base"]
    assert found.problems() == [f"{path}: has format version 2, this program reads 1: update S4S"]
    with pytest.raises(PresetError, match="update S4S"):
        found.get("tomorrow")
    found.delete("tomorrow")
    assert found.problems() == []


def test_deleting_takes_the_users_file_and_shows_what_it_hid(mine, shipped):
    save_new(preset("base", calls=4), mine)
    (mine / "broken.safetensors").write_bytes(preset_file.to_bytes(preset())[:-9])
    found = Library([mine], shipped)
    found.delete("base")
    found.delete("broken")
    assert found.get("base").counts == [6] and found.problems() == [] and list(mine.iterdir()) == []


def test_a_full_disk_leaves_the_old_preset(mine, monkeypatch):
    path = save_new(preset("one"), mine)
    before = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_new(replace(preset("one"), licence="MIT"), mine, overwrite=True)
    assert path.read_bytes() == before and len(list(mine.iterdir())) == 1


@pytest.fixture
def linked(mine, tmp_path):
    """A folder of presets with links out of it: to a folder with a preset and a checkpoint, and to either."""
    far = tmp_path / "elsewhere"
    save_new(preset("far"), far)
    (far / "checkpoint.safetensors").write_bytes(safetensors.numpy.save({"weight": np.zeros(3)}))
    save_new(preset("own"), mine)
    try:
        (mine / "folder").symlink_to(far, target_is_directory=True)
        (mine / "near.safetensors").symlink_to(far / "far.safetensors")
        (mine / "big.safetensors").symlink_to(far / "checkpoint.safetensors")
        (mine / "gone.safetensors").symlink_to(far / "nothing.safetensors")
    except OSError:
        pytest.skip("no symbolic links here")
    return far


def test_what_a_link_leads_to_is_read_and_never_renamed_or_deleted(mine, shipped, linked):
    before = {path: path.read_bytes() for path in linked.iterdir()}
    found = Library([mine], shipped)
    assert list(found.named()) == ["near", "own", "folder/far", "base"]
    assert found.listed() == ["own", "base"]
    assert [name for name in found.named() if found.why_kept(name) is None] == ["own"]
    for name in ("near", "big", "gone", "folder/far", "folder/checkpoint"):
        for change in (found.delete, lambda name: found.rename(name, "x")):
            with pytest.raises(PresetError, match="is behind a link"):
                change(name)
    assert {path: path.read_bytes() for path in linked.iterdir()} == before and len(list(mine.iterdir())) == 5


def test_a_folder_that_is_itself_a_link_is_the_users(mine, shipped, tmp_path):
    save_new(preset("own"), mine)
    try:
        (tmp_path / "door").symlink_to(mine, target_is_directory=True)
    except OSError:
        pytest.skip("no symbolic links here")
    found = Library([tmp_path / "door"], shipped)
    assert found.rename("own", "new").is_file() and found.why_kept("new") is None
    found.delete("new")
    assert list(mine.iterdir()) == []


@pytest.mark.parametrize("content", [
    safetensors.numpy.save({"weight": np.zeros(3)}), safetensors.numpy.save({"weight": np.zeros(3)}, {"made": "by"}),
    b"", b"x", b"\xff" * 40, b"\2" + bytes(7) + b"[]", b"\x14" + bytes(7) + b'{"__metadata__": 3}   '])
def test_what_is_no_preset_is_neither_listed_nor_removed(content, mine, shipped):
    mine.mkdir()
    (mine / "model.safetensors").write_bytes(content)
    found = Library([mine], shipped)
    assert found.listed() == ["base"] and len(found.problems()) == 1
    for change in (found.delete, lambda name: found.rename(name, "x")):
        with pytest.raises(PresetError, match="is not an S4S preset"):
            change("model")
    assert (mine / "model.safetensors").read_bytes() == content


def test_a_hostile_name_in_a_file_is_shown_and_no_path(mine, shipped, tmp_path):
    preset_file.save(preset("../../pwned"), mine / "theirs.safetensors")
    found = Library([mine], shipped)
    assert found.get("theirs").name == "../../pwned"
    assert save_new(found.get("theirs"), mine).parent == mine
    with pytest.raises(PresetError, match="letters, digits"):
        found.rename("theirs", "../../pwned")
    assert not list(tmp_path.glob("**/pwned*"))


def test_an_unfinished_preset_is_listed_as_such():
    stopped = replace(preset("one"), training={"unfinished": True})
    assert recommended_text(stopped) == "unfinished" and measured_text(stopped) == "no"
    assert "UNFINISHED: its training was stopped" in preset_file.describe(stopped)


def test_a_training_replaces_its_own_preset_only(mine):
    """Partial gives way to the same run's; another run's, one without a run and a damaged one stay."""
    def saved(run, **more):
        made, path = save_version(replace(preset("one"), training={"run": run, **more}), mine)
        assert made.name == path.stem == preset_file.load(path).name
        return path.stem
    assert [saved("aa"), saved("aa"), saved("bb"), saved("bb", created="now")] == ["one", "one", "one-2", "one-2"]
    assert saved("bb") == "one-2" and "created" in preset_file.load(mine / "one-2.safetensors").training
    assert saved("bb", created="later") == "one-2"
    save_new(preset("two"), mine)
    (mine / "two-2.safetensors").write_bytes(b"damaged")
    assert save_version(replace(preset("two"), training={"run": "aa"}), mine)[1].stem == "two-3"
    assert (mine / "two-2.safetensors").read_bytes() == b"damaged"
    assert preset_file.load(mine / "one.safetensors").training["run"] == "aa"


def test_what_a_race_found_of_a_finished_preset_outlives_its_training_again(mine):
    """The same numbers keep their scores; other numbers of the same run stand beside them."""
    def saved(raced, calls=6):
        made = replace(preset("one", calls=calls), training={"run": "aa", "created": "now", "cfg": [4.0, 4.0]})
        return save_version(preset_file.with_scores(made, {f"calls{calls}": raced}), mine)[0]
    first = saved({"cfg": 4.0, "seeds": 64, "lost": True})
    assert not first.recommended and first.scores["calls6"]
    again = saved({"cfg": 4.0, "seeds": 8, "lost": False})
    assert sorted(again.scores["calls6"]) == ["cfg 4, 64 seeds", "cfg 4, 8 seeds"] and not again.recommended
    assert preset_file.load(mine / "one.safetensors").scores == again.scores
    other = saved({"cfg": 4.0, "seeds": 8, "lost": False}, calls=5)
    assert other.name == "one-2" and preset_file.load(mine / "one.safetensors").hash == first.hash


def test_files_has_the_unreadable_ones_too(mine, shipped):
    path = save_new(preset("half"), mine)
    path.write_bytes(path.read_bytes()[:100])
    found = Library([mine], shipped)
    assert list(found.named()) == ["base"] and found.files() == {"half": path, "base": shipped / "base.safetensors"}


@pytest.mark.parametrize("scores, words", [
    ({}, ("no", "not raced")), ({"calls6": {"ratio": 1.3, "recommended": True}}, ("1.30 times closer", "yes")),
    ({"calls6": {"ratio": 0.9, "recommended": False}}, ("1.11 times further", "not calls6")),
    ({"calls6": {"ratio": 0.7}, "calls8": {"ratio": 0.9}}, ("1.11 to 1.43 times further", "yes")),
    ({"calls6": {"ratio": 0.9}, "calls8": {"ratio": 1.2}}, ("1.11 times further to 1.20 times closer", "yes"))])
def test_what_was_measured_is_said_in_words(scores, words):
    one = replace(preset(), scores=scores)
    assert (library.measured_text(one), library.recommended_text(one)) == words


def test_the_library_repeats_what_a_host_needs():
    assert all(hasattr(library, name) for name in library.__all__)


def test_scores_go_into_the_file_that_holds_the_tables(mine, shipped):
    save_new(preset("copy"), mine)
    path = save_new(preset("one"), mine)
    library_here = Library([mine], shipped)
    scored = replace(preset("one"), scores={"calls6": {"ratio": 2.0}})
    assert save_scores(library_here, scored, mine) == f"scores written into {path}"
    assert library_here.get("one").scores == scored.scores and library_here.get("copy").scores == {}
    fresh = replace(preset("fresh", calls=4), scores={"calls4": {"ratio": 2.0}})
    assert "saved with its scores as" in save_scores(library_here, fresh, mine)
    assert library_here.get("fresh").scores == fresh.scores
    elsewhere = replace(preset("one"), scores={"calls6": {"ratio": 0.5, "cfg": 7.0, "lost": True}})
    save_scores(library_here, elsewhere, mine)              # of a race under other conditions: both are kept
    assert library_here.get("one").scores["calls6"] == {**scored.scores["calls6"], **elsewhere.scores["calls6"]}


def test_scores_of_what_ships_go_into_a_copy_for_the_raced_weights(mine, shipped):
    """A shipped file stays as it is; each checkpoint it is raced on gets a copy, and a second race the same one."""
    found, before = Library([mine], shipped), (shipped / "base.safetensors").read_bytes()

    def raced(weights, ratio):
        model = replace(preset().model, hashes={"weights_1d": weights})
        return replace(preset("base"), model=model, scores={"calls6": {"ratio": ratio}})
    once, again = "00ff" * 16, "00fe" * 16              # in another precision
    for weights, ratio in ((once, 1.1), ("bb" * 32, 1.2), (again, 1.3)):
        words = save_scores(found, raced(weights, ratio), mine)
    assert words == f"scores written into {mine / 'base raced.safetensors'}"
    ratios = {name: found.get(name).score("calls6").get("ratio") for name in found.named()}
    assert ratios == {"base raced": 1.3, "base raced 2": 1.2, "base": None} and found.problems() == []
    assert (shipped / "base.safetensors").read_bytes() == before
