"""A run on disk survives Ctrl-C, a damaged file and a full disk, and goes on bit for bit."""

import errno
import json
from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import preset_file
from s4s.training import run_folder
from s4s.training.progress import RunProgress
from s4s.training.run import Run, Stopped
from s4s.training.source import NaNFromModel
from tests.toy import OnApple, small, toy_source


def run_in(folder, resume=False, source=None, **changes):
    return Run(small(**changes), folder, resume, source or toy_source(), RunProgress(quiet=True))


def interrupt_after(count):
    """A network that is stopped like Ctrl-C in its count-th call."""
    source = toy_source()
    network, calls = source.network, []

    def stopping(x, sigma, **extra):
        calls.append(1)
        if len(calls) == count:
            raise KeyboardInterrupt
        return network(x, sigma, **extra)
    source.network = stopping
    return source


def test_a_run_leaves_a_preset_a_state_and_a_log(tmp_path):
    made = run_in(tmp_path, calls=(3, 4)).train()
    again = preset_file.load(tmp_path / "my-preset.safetensors")
    assert again.short_hash == made.short_hash and again.counts == [3, 4]
    assert preset_file.verify(again) == 0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {row["table"] for row in rows} == {"calls3", "calls4"} and rows[-1]["iteration"] == 2
    assert again.training["model_calls"] == rows[-1]["model_calls"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("moment", [5, 30, 60, 75, 110, 141])    # check or teacher, choice of the start, learning
def test_ctrl_c_saves_and_resuming_gives_the_same_bits(tmp_path, moment):
    whole = run_in(tmp_path / "whole").train()
    with pytest.raises(Stopped, match="--resume"):
        run_in(tmp_path / "parts", source=interrupt_after(moment)).train()
    resumed = run_in(tmp_path / "parts", resume=True).train()
    assert resumed.short_hash == whole.short_hash


def test_a_stop_in_the_first_measurement_of_a_table_is_a_stop_like_any_other(tmp_path):
    calls = []

    def first_measurement(self, *args):
        calls.append(1)
        raise KeyboardInterrupt
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr("s4s.training.optimizers.gauss_newton._measure", first_measurement)
        run_in(tmp_path).train()
    assert calls
    assert run_in(tmp_path, resume=True).train().counts == [4]


def test_resuming_does_not_make_the_teacher_pairs_again(tmp_path):
    run_in(tmp_path).train()
    again = run_in(tmp_path, resume=True)
    again.train()
    assert again.source.model_calls == 0


def test_a_folder_with_a_run_is_not_overwritten(tmp_path):
    run_in(tmp_path)
    with pytest.raises(ValueError, match="already holds a run"):
        run_in(tmp_path)


def test_a_full_disk_is_reported_once_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    run = run_in(tmp_path)
    run.progress.quiet = False

    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(run_folder, "write_atomically", full)
    run.train()                                             # the preset itself is written by the core
    said = capsys.readouterr().out
    assert said.count("cannot write") == 1 and "No space left on device" in said
    assert preset_file.load(run.preset_path).counts == [4]


def test_a_preset_without_room_goes_to_the_temporary_folder_or_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    run = run_in(tmp_path / "run")
    run.train()
    run.progress.quiet, save, spare = False, preset_file.save, tmp_path / "spare"
    spare.mkdir()
    monkeypatch.setattr(run_folder.tempfile, "gettempdir", lambda: str(spare))

    def full_here(made, path):
        if spare not in path.parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save(made, path)
    monkeypatch.setattr(preset_file, "save", full_here)
    made = run.train()
    assert preset_file.load(run.preset_path).short_hash == made.short_hash and spare in run.preset_path.parents
    assert f"The preset is in {spare}" in capsys.readouterr().out
    monkeypatch.setattr(run_folder.tempfile, "gettempdir", lambda: str(tmp_path / "elsewhere"))   # no room there either
    with pytest.raises(OSError, match="Free some space, then: s4s train --resume"):
        run.train()


def test_a_damaged_state_is_refused_in_words(tmp_path):
    run_in(tmp_path).train()
    state = tmp_path / "state.safetensors"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        run_in(tmp_path, resume=True)


def test_damaged_cached_pairs_are_made_again(tmp_path):
    whole = run_in(tmp_path).train()
    (tmp_path / "state.safetensors").unlink()
    pairs = sorted((tmp_path / "pairs").iterdir())
    pairs[0].write_bytes(b"not a file of tensors")
    assert run_in(tmp_path, resume=True).train().short_hash == whole.short_hash


def test_a_device_without_float64_learns_the_same_table(tmp_path, monkeypatch):
    made, source = run_in(tmp_path / "cpu").train(), toy_source()
    monkeypatch.setattr(source, "noise", lambda *given: toy_source().noise(*given).as_subclass(OnApple))
    assert run_in(tmp_path / "apple", source=source).train().short_hash == made.short_hash


def test_a_model_that_answers_nan_is_named(tmp_path):
    source = toy_source(network=lambda x, sigma, label: x * torch.where(sigma < 1, torch.nan, 1.0)[:, None])
    with pytest.raises(NaNFromModel, match="NaN or infinity at sigma 0."):
        run_in(tmp_path, source=source).train()


def test_a_model_that_breaks_in_the_middle_leaves_the_best_so_far_and_a_run_to_go_on_with(tmp_path):
    whole = run_in(tmp_path / "whole").train()
    source = toy_source()
    network, run = source.network, run_in(tmp_path / "broken", source=source)

    def breaking(x, sigma, **extra):
        if any(state.iteration for state in run.states.values()):
            raise RuntimeError("the driver went away")
        return network(x, sigma, **extra)
    source.network = breaking
    with pytest.raises(RuntimeError, match="driver went away"):
        run.train()
    assert run.states["calls4"].iteration > 0 and preset_file.load(run.preset_path).counts == [4]
    assert run_in(tmp_path / "broken", resume=True).train().short_hash == whole.short_hash


@pytest.mark.parametrize("settings, words", [
    ({"calls": (0,)}, "0 calls"), ({"calls": (1000,)}, "1 to 50"), ({"calls": ()}, "calls is empty"),
    ({"calls": (4, 4)}, "twice"), ({"pairs": 0}, "pairs is 0"),
    ({"mode": "gradient"}, "unknown settings mode"),
])
def test_settings_that_cannot_work_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        small(**settings)


def test_unknown_names_are_refused_with_those_there_are(tmp_path):
    for changes, words in (({"schedule": "nope"}, "auto, karras"), ({"teacher": "nope"}, "euler")):
        with pytest.raises(ValueError, match=words):
            run_in(tmp_path / words, **changes).train()


def test_a_run_of_version_0_4_says_that_it_cannot_be_resumed(tmp_path):
    run_in(tmp_path).train()
    (tmp_path / "config.json").write_text(small().to_json())                # no identity, no checksum
    with pytest.raises(ValueError, match="was made by version 0.4 or older.*start a new run in another folder"):
        run_in(tmp_path, resume=True)


def test_targets_of_another_model_are_made_again(tmp_path):
    """Whoever loses config.json and trains another model in the folder must not learn from the old targets."""
    run_in(tmp_path).train()
    for name in ("config.json", "state.safetensors"):
        (tmp_path / name).unlink()
    other = replace(toy_source(), name="another")
    whole = run_in(tmp_path / "fresh", source=other).train()
    assert run_in(tmp_path, source=replace(other, model_calls=0), resume=True).train().short_hash == whole.short_hash


def test_a_run_stopped_in_any_call_ends_as_one_that_was_never_stopped(tmp_path):
    """In its validations, too: the last one's numbers are those that are kept."""
    changes = dict(calls=(3,), teacher_calls=8, pairs=8, validation=8, iterations=2)
    source = toy_source()
    network, calls = source.network, []
    source.network = lambda *given, **extra: calls.append(1) or network(*given, **extra)
    whole = run_in(tmp_path / "whole", source=source, **changes)
    made, curve = whole.train(), [row[:3] for row in whole.states["calls3"].curve]
    for call in range(len(calls) - 24, len(calls)):
        with pytest.raises(Stopped):
            run_in(tmp_path / f"{call}", source=interrupt_after(call), **changes).train()
        resumed = run_in(tmp_path / f"{call}", resume=True, **changes)
        assert resumed.train().hash == made.hash, call
        assert [row[:3] for row in resumed.states["calls3"].curve][1:] == curve[1:], call
