"""The command line: what a user types, reads and gets."""

import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.core.preset_file import load, save
from s4s.training.cli.main import main


def s4s(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def preset_file(tmp_path):
    table = classical.dpmpp_2m(schedules.karras(4, 0.03, 14.6))
    made = Preset("two", {"calls4": table}, Model("digits-eps", "eps", 0.03, 14.6))
    return save(made, tmp_path / "two.safetensors")


@pytest.mark.parametrize("command", ["demo", "train", "race", "show"])
def test_every_command_explains_itself(command):
    answer = s4s(command, "--help")
    assert answer.exit_code == 0 and "Usage" in answer.output and len(answer.output) > 250


def test_help_names_every_setting_with_its_default():
    from s4s.training.config import SETTINGS
    text = s4s("train", "--help").output
    assert all(f"--{name.replace('_', '-')} " in text for name in SETTINGS)
    assert "my-preset" in text and "unipc_bh2_3" in text


def test_show_describes_and_replays(preset_file, tmp_path):
    answer = s4s("show", preset_file, "--plot", tmp_path)
    assert answer.exit_code == 0
    assert "calls4: 4 calls" in answer.output and "deviation 0" in answer.output
    assert (tmp_path / "two-calls4.png").stat().st_size > 10_000


def test_show_as_json_is_every_number(preset_file):
    content = json.loads(s4s("show", preset_file, "--json").output)
    assert content["tables"]["calls4"]["sigmas"] == schedules.karras(4, 0.03, 14.6).tolist()


@pytest.mark.parametrize("words, said", [
    (("show", "nowhere.safetensors"), "cannot read preset nowhere.safetensors: No such file"),
    (("train", "--calls", "0"), "0 calls asked for"),
    (("train", "--calls", "1000"), "1 to 50"),
    (("train", "--calls", "six"), "not a list of whole numbers"),
    (("train", "--model", "sd15.safetensors"), "sd15.safetensors"),
    (("train", "--device", "tpu9"), "--device cpu"),
    (("train", "--teacher-cfg", "7"), "--teacher-cfg 7 is for --teacher-checkpoint, and none is given: add it"),
    (("demo", "--calls", "0"), "0 calls asked for"),
])
def test_wrong_input_is_answered_in_words_without_a_traceback(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = s4s(*words)
    assert answer.exit_code in (1, 2) and said in answer.output.replace("\n", " ")
    assert "Traceback" not in answer.output
    assert not list(tmp_path.iterdir())                     # a refused command leaves nothing behind


def test_memory_that_runs_out_is_told_without_a_traceback(preset_file, monkeypatch):
    from s4s.s4s_nodes.core import preset_file as module

    def greedy(path):
        raise MemoryError
    monkeypatch.setattr(module, "load", greedy)
    answer = s4s("show", preset_file)
    assert answer.exit_code == 1 and answer.output == "Error: memory ran out\n"


def test_a_truncated_preset_is_refused(preset_file):
    preset_file.write_bytes(preset_file.read_bytes()[:200])
    answer = s4s("race", preset_file)
    assert answer.exit_code == 1 and "not a whole .safetensors file" in answer.output


def test_racing_a_preset_for_an_unknown_model_says_what_can_be_raced(preset_file):
    made = load(preset_file)
    save(Preset("three", made.tables, Model("sdxl", "eps", 0.03, 14.6)), preset_file)
    answer = s4s("race", preset_file)
    assert answer.exit_code == 1 and "digits-eps" in answer.output


def test_resuming_takes_no_settings(tmp_path):
    answer = CliRunner().invoke(main, ["train", "--resume", str(tmp_path), "--calls", "6", "--seed", "7"])
    assert answer.exit_code != 0 and "leave out" in answer.output
    assert "--calls" in answer.output and "--seed" in answer.output


def test_a_budget_may_have_a_name():
    from s4s.training.config import BUDGETS, Config
    assert [Config.of(budget=name).budget for name in BUDGETS] == [3_000, 10_000, 40_000]
    assert Config.of(budget="77").budget == 77
    answer = CliRunner().invoke(main, ["train", "--budget", "huge"])
    assert answer.exit_code != 0 and "quick, normal, thorough" in answer.output


def test_the_help_lists_the_commands_as_click_would_and_imports_none():
    import_and_ask = ("import sys; from click.testing import CliRunner; from s4s.training.cli.group import main; "
                      "print(CliRunner().invoke(main, ['--help']).output); assert 'torch' not in sys.modules")
    done = subprocess.run([sys.executable, "-c", import_and_ask], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    plain = click.Group("main", main.commands, params=main.params, help=main.help,
                        context_settings=main.context_settings)
    assert done.stdout.strip() == CliRunner().invoke(plain, ["--help"]).output.strip()
