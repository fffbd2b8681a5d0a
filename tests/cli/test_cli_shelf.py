"""The commands for the presets one has: what a user types, reads and gets."""

from dataclasses import replace

import pytest
from click.testing import CliRunner

from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.cli.main import main


def s4s(*words, **options):
    return CliRunner().invoke(main, [str(word) for word in words], **options)


@pytest.fixture
def mine(tmp_path):
    table = classical.dpmpp_2m(schedules.karras(4, 0.03, 14.6))
    made = Preset("mine", {"calls4": table}, Model("sd15", "eps", 0.0292, 14.6146), licence="CC0-1.0", source="here")
    return preset_file.save(made, tmp_path / "presets" / "mine.safetensors")


@pytest.mark.parametrize("command", ["list", "join"])
def test_every_command_explains_itself(command):
    answer = s4s(command, "--help")
    assert answer.exit_code == 0 and "Usage" in answer.output and len(answer.output) > 150


def test_list_shows_mine_and_what_ships_and_names_broken_files(mine):
    (mine.parent / "cut.safetensors").write_bytes(mine.read_bytes()[:100])
    preset_file.save(replace(preset_file.load(mine), scores={"calls4": {"ratio": 0.9}}, recommended=False),
                mine.with_name("lost.safetensors"))
    answer = s4s("list", mine.parent)
    assert answer.exit_code == 0
    rows = {line.split()[0]: line for line in answer.output.splitlines()}
    assert rows["mine"].split() == f"mine {preset_file.load(mine).short_hash} sd15, eps 4 no not raced".split()
    assert rows["lost"].endswith("1.11 times further         no")
    shipped = preset_file.load(shipped_folder() / "digits-eps-cfg3.safetensors")
    ratios = [shipped.score(name)["ratio"] for name in shipped.tables]
    assert f"{min(ratios):.2f} to {max(ratios):.2f} times closer" in rows["digits-eps-cfg3"]
    assert "cut.safetensors" in answer.output and "not a whole .safetensors file" in answer.output


def test_a_preset_s_licence_and_source_are_shown(mine):
    text = s4s("show", mine).output
    assert "  licence     CC0-1.0\n  source      here\n" in text


def test_presets_of_several_cfgs_are_joined_into_one_and_nothing_is_overwritten(mine):
    one = preset_file.load(mine)
    files = [preset_file.save(replace(one, name=f"at-{cfg}", training={"cfg": cfg}),
                              mine.with_name(f"at-{cfg}.safetensors"))
             for cfg in (3, 7)]
    answer = s4s("join", "both", *files, "--folder", mine.parent)
    assert answer.exit_code == 0 and "2 tables of 4 calls, for cfg 3 to 7" in answer.output
    assert sorted(preset_file.load(mine.with_name("both.safetensors")).tables) == ["calls4_cfg3", "calls4_cfg7"]
    again = s4s("join", "both", *files, "--folder", mine.parent)
    assert again.exit_code != 0 and "exists: choose another name" in again.output
    assert "says cfg None" in s4s("join", "more", mine, *files, "--folder", mine.parent).output


def test_a_table_that_lost_is_named_in_the_list(mine):
    made = preset_file.load(mine)
    two = {**made.tables, "calls5": classical.dpmpp_2m(schedules.karras(5, 0.03, 14.6))}
    lost = {"seeds": 16, "rmse": 0.2, "median": 0.2, "best_classical": "euler, beta", "best_rmse": 0.1, "ratio": 0.5,
            "ratio_95": [0.4, 0.6], "best_classical_by_median": "euler, beta", "best_median": 0.1, "ratio_median": 0.5,
            "ratio_median_95": [0.4, 0.6], "cfg": 1.0, "recommended": False}         # as a host's race has it
    preset_file.save(replace(made, tables=two, scores={"calls4": lost}), mine)
    assert "not calls4" in s4s("list", mine.parent).output


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "CON", "a:b", ".hidden", "state", "a\nb", "a" * 101, ""])
def test_a_name_that_is_no_preset_s_is_refused_by_every_command(name, mine, monkeypatch):
    monkeypatch.chdir(mine.parent)
    for words in (("join", "--folder", mine.parent, "--", name, mine, mine),
                  ("import", "ays-sdxl", "--name", name), ("train", "--name", name)):
        answer = s4s(*words)
        assert answer.exit_code == 1 and "preset name" in answer.output and "Choose another name" in answer.output
    assert [path.name for path in mine.parent.iterdir()] == [mine.name] and len(list(mine.parents[1].iterdir())) == 1


def test_force_is_what_overwrites(mine):
    one = preset_file.load(mine)
    files = [preset_file.save(replace(one, name=f"at-{cfg}", training={"cfg": cfg}),
                              mine.with_name(f"at-{cfg}.safetensors")) for cfg in (3, 7)]
    words, before = ("join", "mine", *files, "--folder", mine.parent), mine.read_bytes()
    answer = s4s(*words)
    assert answer.exit_code == 1 and mine.read_bytes() == before
    assert s4s(*words, "--force").exit_code == 0 and mine.read_bytes() != before


def test_a_picture_s_file_is_in_its_folder_whatever_the_preset_calls_itself(mine, tmp_path):
    hostile = preset_file.save(replace(preset_file.load(mine), name="../../pwned"), mine)
    folder = tmp_path / "a" / "b" / "pictures"
    assert s4s("show", hostile, "--plot", folder).exit_code == 0
    drawn, = folder.iterdir()
    assert drawn.name == "_.._pwned-calls4.png" and not [p for p in tmp_path.rglob("pwned*")]
    drawn.write_bytes(b"mine")
    answer = s4s("show", hostile, "--plot", folder)
    assert answer.exit_code == 1 and "overwrite it with --force" in answer.output and drawn.read_bytes() == b"mine"
    assert s4s("show", hostile, "--plot", folder, "--force").exit_code == 0 and drawn.read_bytes() != b"mine"


def test_a_training_leaves_a_preset_of_its_name_in_the_folder(mine):
    before = mine.read_bytes()
    answer = s4s("train", "--name", "mine", "--out", mine.parent)
    assert answer.exit_code == 1 and "choose another folder with --out, or another --name" in answer.output
    assert mine.read_bytes() == before and len(list(mine.parent.iterdir())) == 1
