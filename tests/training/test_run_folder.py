"""What a run's folder stores is what is read back, or it is said that it is not."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import preset_file
from s4s.training import run, run_folder, run_identity
from s4s.training.benchmark.report_run import draw_run
from s4s.training.lock import locked
from s4s.training.progress import RunProgress
from s4s.training.run import Run, Stopped
from s4s.training.run_identity import read_config
from tests.bench.proof.forked import Child
from tests.toy import small, toy_source
from tests.training.test_run import interrupt_after, run_in

SHORT = dict(pairs=128, iterations=3)


def stopped_in(folder, **changes):
    """A run that was stopped in the middle of its learning."""
    with pytest.raises(Stopped):
        run_in(folder, source=interrupt_after(300), **SHORT, **changes).train()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return stopped_in(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def copy(whole, tmp_path):
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def resumed(folder, said=None, **changes):
    """The run in the folder, opened to be resumed."""
    return Run(small(**SHORT, **changes), folder, resume=True, source=toy_source(),
               progress=RunProgress(say=(said if said is not None else []).append))


def what(opened) -> list:
    """All that a resumed run goes on from."""
    def plain(value):
        return value.tolist() if isinstance(value, torch.Tensor) else value
    states = [[name, plain(value)] for state in opened.states.values() for name, value in vars(state).items()
              if name != "memory"]
    memories = [[name, plain(value)] for state in opened.states.values() for name, value in state.memory.items()]
    noted = json.dumps([opened.facts, opened.tables.starts_record()], sort_keys=True)
    return [noted, opened.source.calls_before, repr(states), sorted(memories)]


@pytest.mark.parametrize("name", ["config.json", "state.safetensors"])
def test_a_flipped_bit_in_what_a_run_is_resumed_from_is_refused_or_changes_nothing(copy, name):
    chance, expected, path = random.Random(0), what(resumed(copy)), copy / name
    content, refused = path.read_bytes(), 0
    for at in chance.sample(range(8 * len(content)), 150):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        try:
            assert what(resumed(copy)) == expected
        except ValueError as error:
            assert type(error) is ValueError and str(path) in str(error) or "version 0.4" in str(error), error
            refused += 1
    assert refused > 100


def test_a_flipped_bit_in_a_teachers_target_is_seen_and_said(copy):
    said, chance = [], random.Random(0)
    opened, path = resumed(copy, said), next((copy / "pairs").iterdir())
    maker, count = run_folder.unsealed(path)[1]["maker"], len(run_folder.unsealed(path)[0]["target"])
    content = path.read_bytes()
    expected = opened.files.load_targets(path.stem, (count, 2), maker)
    assert expected is not None and not said
    for at in chance.sample(range(8 * len(content)), 150):
        flipped = bytearray(content)
        flipped[at // 8] ^= 1 << at % 8
        path.write_bytes(flipped)
        said.clear()
        target = opened.files.load_targets(path.stem, (count, 2), maker)
        assert torch.equal(target, expected) if target is not None else "are made again" in said[0]


def test_a_state_of_before_with_entries_that_are_gone_is_resumed_to_the_same_bits(copy):
    other, path = Path(shutil.copytree(copy, copy.parent / "other")), copy / "state.safetensors"
    expected = resumed(other).train().hash
    tensors, facts = run_folder.unsealed(path)
    state = facts["states"]["calls4"]
    score = (state["best_error"] * state["best_median"]) ** 0.5
    state |= {"iteration": len(state["curve"]) - 1, "best_score": score, "spent": 700, "finished": False}
    path.write_bytes(run_folder.sealed(tensors, facts))
    assert resumed(copy).train().hash == expected


def test_a_file_of_another_run_is_refused_or_made_again(copy, tmp_path):
    other = tmp_path / "other"
    stopped_in(other, seed=7)
    expected = resumed(copy).train().hash
    for name in ("state.safetensors", "config.json"):
        folder = Path(shutil.copytree(copy, tmp_path / name))
        shutil.copy(other / name, folder / name)
        with pytest.raises(ValueError, match="belongs to another run|with other settings"):
            resumed(folder)
    pairs = [sorted((folder / "pairs").iterdir()) for folder in (copy, other)]
    for mine, theirs in zip(*pairs):
        shutil.copy(theirs, mine)
    (copy / "state.safetensors").unlink()
    said = []
    assert resumed(copy, said).train().hash == expected
    assert sum("of another teacher, run or version: they are made again" in words for words in said) == len(pairs[0])


def test_pairs_of_other_seeds_of_the_same_run_are_made_again(copy):
    first, second = sorted((copy / "pairs").glob("train*"))
    expected, held = resumed(copy).train().hash, first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    (copy / "state.safetensors").unlink()
    assert resumed(copy).train().hash == expected


@pytest.mark.parametrize("text, words", [("", "is damaged"), ("{", "is damaged"), ("[1]", "is damaged"),
                                         ("{}", "version 0.4")])
def test_a_truncated_configuration_is_answered_in_words(copy, text, words):
    (copy / "config.json").write_text(text)
    with pytest.raises(ValueError, match=words):
        resumed(copy)


def test_an_edited_configuration_is_not_continued(copy):
    content = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**content, "cfg": [5.0]}))
    with pytest.raises(ValueError, match="was changed or is damaged"):
        read_config(copy)


def test_a_folder_without_its_configuration_is_no_place_for_another_run(copy):
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match="belongs to another run"):
        resumed(copy, seed=9)
    (copy / "config.json").unlink()
    with pytest.raises(ValueError, match="already exists"):
        run_in(copy, seed=9)


def test_a_second_training_in_the_folder_is_told(copy):
    with locked(copy, print), pytest.raises(ValueError, match="another training is running in"):
        resumed(copy)
    opened = resumed(copy)
    with locked(copy, print), pytest.raises(ValueError, match="another training is running in"):
        opened.train()
    opened.train()


def test_a_folder_that_is_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="is not a folder"):
            run_in(place)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
@pytest.mark.parametrize("name", ["state.safetensors", "config.json", ".lock", "pairs", "log.jsonl"])
def test_a_pipe_or_a_folder_in_place_of_a_file_is_refused_without_waiting(copy, name):
    place = copy / name
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    os.mkfifo(place)
    with pytest.raises(ValueError, match=f"{name} is not a plain file"):
        resumed(copy)
    if name == "config.json":
        with pytest.raises(ValueError, match="is damaged"):
            read_config(copy)
    if name in ("state.safetensors", "config.json"):
        place.unlink()
        place.mkdir()
        with pytest.raises(ValueError, match=f"{name} is not a plain file"):
            resumed(copy)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a limit as Linux has it")
@pytest.mark.parametrize("name", ["state.safetensors", "config.json"])
def test_a_file_of_40_gb_is_refused(copy, name):
    with open(copy / name, "r+b") as file:
        file.truncate(40_000_000_000)
    done = Child(lambda: what(resumed(copy)), megabytes=1000).result()
    assert done["words"] and f"{name} is damaged" in done["error"], done


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="making links needs a right there")
@pytest.mark.parametrize("name", ["state.safetensors", "log.jsonl", "pairs", "curve-calls4.png"])
def test_a_link_in_a_strangers_run_leads_nowhere(copy, tmp_path, name):
    place = copy / name
    shutil.rmtree(place) if place.is_dir() else place.unlink(missing_ok=True)
    (tmp_path / "elsewhere").mkdir()
    place.symlink_to(tmp_path / "elsewhere" / "x" if name != "pairs" else tmp_path / "elsewhere")
    with pytest.raises(ValueError, match=f"{name} is a link"):
        resumed(copy)
    (tmp_path / "whole").symlink_to(copy)                               # the folder itself may be one
    place.unlink()
    resumed(tmp_path / "whole").train()
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_lock_goes_with_the_process_that_held_it(copy):
    code = (f"import os, pathlib\nfrom s4s.training.lock import locked\n"
            f"with locked(pathlib.Path({str(copy)!r}), print):\n    print('held', flush=True)\n    input()")
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(ValueError, match="another training"):
            resumed(copy)
        other.kill()
    assert resumed(copy).train()


def test_a_file_system_without_locks_is_said_and_used(copy, monkeypatch):
    def none(number):
        raise OSError(38, "Function not implemented")
    monkeypatch.setattr("s4s.training.lock._take", none)
    said = []
    resumed(copy, said).train()
    assert any("cannot be locked (Function not implemented): do not start a second training there" in text
               for text in said)


def test_what_a_killed_run_left_half_written_is_cleared_away(copy):
    parts = [copy / ".state.safetensors.0123abcd.part", copy / "pairs" / ".x.safetensors.0123abcd.part"]
    mine = copy / ".mine.part"
    for path in (*parts, mine):
        path.write_bytes(b"half")
    resumed(copy).train()
    assert not any(path.exists() for path in parts) and mine.exists()


def test_a_folder_that_goes_away_comes_back_whole_and_one_that_is_anothers_is_left_alone(copy, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.tempfile, "tempdir", str(tmp_path))
    expected = resumed(Path(shutil.copytree(copy, tmp_path / "calm"))).train().hash
    said, opened = [], resumed(copy)
    opened.progress._write = said.append
    shutil.rmtree(copy)
    opened.save()
    assert what(resumed(copy)) == what(opened)
    shutil.rmtree(copy)
    run_in(copy, seed=3)                                                # another one moves in
    theirs = {path: path.read_bytes() for path in copy.iterdir() if path.is_file()}
    made = opened.train()
    page = draw_run(opened, made)
    assert made.hash == expected == preset_file.load(opened.preset_path).hash
    assert {path: path.read_bytes() for path in copy.iterdir() if path.is_file()} == theirs
    assert "holds another run now" in "".join(said) and str(opened.preset_path) in said[-1]
    assert page.parent == opened.preset_path.parent != copy


@pytest.mark.parametrize("taken", [False, True])
def test_a_folder_that_goes_away_is_still_one_trainings(copy, taken, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.tempfile, "tempdir", str(tmp_path))
    opened, said, settle = resumed(copy), [], Run._settle_teacher
    opened.progress._write = said.append
    with ExitStack() as stack:
        def delete(_):
            shutil.rmtree(copy)
            if taken:
                stack.enter_context(locked(copy, print))                # a second training was quicker
            opened.save()
            with pytest.raises(ValueError, match="another training is running in"), locked(copy, print):
                pass
            settle(opened)
        monkeypatch.setattr(Run, "_settle_teacher", delete)
        made = opened.train()
    assert opened.preset_path.is_file() and (opened.preset_path.parent == copy) == (not taken)
    assert any("another training is running in" in words for words in said) == taken
    assert made.hash == preset_file.load(opened.preset_path).hash


def test_another_version_that_resumes_a_run_says_so_and_signs_beside_the_first(copy, monkeypatch):
    for module in (run, run_folder):
        monkeypatch.setattr(module, "TRAINER", "s4s 9.9")
    said = []
    made = resumed(copy, said).train()
    assert made.training["trainer"] == f"s4s {run_identity.__version__}, then s4s 9.9"
    assert any("began this run and s4s 9.9 resumes it" in words for words in said)
    assert sum("they are made again" in words for words in said) == 3


def test_the_calls_in_the_log_go_on_over_sessions(copy):
    resumed(copy).train()
    rows = [json.loads(line) for line in (copy / "log.jsonl").read_text().splitlines()]
    spent = [row["model_calls"] for row in rows]
    assert spent == sorted(spent) and spent[-1] > 460


def test_stopping_a_resumed_run_before_it_is_under_way_again_keeps_everything(copy, monkeypatch):
    resumed(copy).save()
    before = what(resumed(copy))

    def stop(self):
        raise KeyboardInterrupt
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_settle_teacher", stop)
        with pytest.raises(Stopped):
            resumed(copy).train()
    assert what(resumed(copy)) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a child process that is forked")
def test_another_number_of_threads_changes_a_real_network_by_rounding_alone(tmp_path):
    settings = dict(SHORT, model="digits-eps", calls=(3,), pairs=8, validation=8, iterations=1, teacher_calls=6)

    def work():
        made = []
        for threads in (2, 1):
            torch.set_num_threads(threads)
            run = Run(small(**settings), tmp_path / str(threads), progress=RunProgress(quiet=True))
            made.append((run.carry_out().tables["calls3"].weights.tolist(), run.states["calls3"].best_error))
        return made
    # in a child: a process whose torch once ran two threads hangs where it is forked, as other tests do
    (two, two_off), (one, one_off) = Child(work).result()["result"]
    assert np.asarray(two) == pytest.approx(np.asarray(one), abs=1e-3) and two_off == pytest.approx(one_off, rel=1e-2)


def test_a_clock_that_is_set_years_back_and_forth_changes_nothing(copy, tmp_path, monkeypatch):
    expected = resumed(Path(shutil.copytree(copy, tmp_path / "calm"))).train().hash
    real, opened = time.time, resumed(copy)
    network, jumps = opened.source.network, iter(range(10 ** 6))

    def jumping(x, sigma, **extra):
        years = (-1) ** next(jumps) * 3
        monkeypatch.setattr(time, "time", lambda: real() + years * 3e7)
        monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
        return network(x, sigma, **extra)
    opened.source.network = jumping
    for path in copy.rglob("*"):
        os.utime(path, (0, 0))
    made = opened.train()
    assert made.hash == expected and made.training["seconds"] < 1e6
