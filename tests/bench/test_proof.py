"""The proof's attacks, a few tries of each; `python -m tests.bench.proof` makes thousands."""

import os
import random
import sys

import pytest
import torch

if not hasattr(os, "fork"):
    pytest.skip("the proof forks", allow_module_level=True)

from s4s.s4s_nodes.core import names
from tests.bench.proof import around, cost, faults, fuzz, guided, hosts, load, loop_cost, page, record, runs
from tests.bench.proof.attack import Attack, carry_out

FEW = {"faults": 1, "fuzz": 40, "load": 16}
MORE = {"a preset with one bit flipped": 500, "a preset with bytes lost, repeated, changed": 500,
        "a forged preset: any value, right checksum": 100, "a table in an image's metadata": 1000,
        "an image: records changed, packed, in EXIF": 200, "guided by coverage: a preset's bytes": 500,
        "guided by coverage: a record in an image's metadata": 2000}         # as many as take a few seconds


@pytest.mark.parametrize("attack", [*faults.ATTACKS, *around.ATTACKS, *fuzz.ATTACKS, *guided.ATTACKS, *load.ATTACKS],
                         ids=lambda attack: attack.name)
def test_a_few_tries_are_survived(attack, monkeypatch):
    for name in set(runs.SETTINGS) - {"plain", "budget"}:                               # the quickest
        monkeypatch.delitem(runs.SETTINGS, name)
    monkeypatch.setattr(load, "SAMPLINGS", 200)
    result = carry_out(attack, seed=0, most=8 if attack.tries is faults.damages else MORE.get(
        attack.name, FEW[attack.part]))
    assert result.tries and not result.failures, result.failures


def test_the_proof_sees_what_does_not_survive():
    """A run whose tensors differ, an error that is no words, a refusal where none is allowed."""
    expected, states = {"preset": "a", "states": "b"}, {"said": []}
    assert runs.verdict({"result": {**expected, **states}}, expected, False) is None
    assert "SILENTLY DIFFERENT" in runs.verdict({"result": {**expected, **states, "states": "c"}}, expected, True)
    assert runs.verdict({"error": "'start'", "words": False, "trace": "KeyError"}, expected, True) == "KeyError"
    told = {"error": "it is damaged", "words": True, "trace": "ValueError"}
    assert runs.verdict(told, expected, True) is None and runs.verdict(told, expected, False) == "ValueError"


def test_a_try_that_takes_too_much_memory_or_time_does_not_survive():
    def greedy(chance, folder):
        held.append(torch.ones(40_000_000))
    held = []
    result = carry_out(Attack("fuzz", "greedy", "", fuzz.limited(greedy)), 0, most=1)
    assert len(result.failures) == 1


def test_a_record_sums_what_many_runs_tried(tmp_path):
    attack, gone = fuzz.ATTACKS[0], Attack("fuzz", "an attack of yesterday", "", fuzz.ATTACKS[0].tries)
    for seed in (3, 4, 9):
        record.add(tmp_path / "record", seed, "here", carry_out(attack, seed, most=2))
    record.add(tmp_path / "record", 9, "there", carry_out(gone, 9, most=1))
    [result], seeds, machine = record.read(tmp_path / "record", fuzz.ATTACKS)
    assert (result.attack, result.tries, seeds, machine) == (attack, 6, "3 seeds from 3 to 9", "there")


def test_fuzzing_is_guided_to_what_reaches_new_lines():
    def picky(content, folder):
        names.preset_name("a" if content[:1] != b"b" else "b" if content[:2] != b"b[" else "CON")
    found = guided.Guided(picky, lambda: [b"a", b"b"])
    result = carry_out(Attack("fuzz", "picky", "", found.tries), 0, most=2000)
    assert "PresetError" in result.failures[0] and " (input 625b" in result.failures[0]
    assert int(found.words.split()[0]) > 10


def test_a_host_that_breaks_off_does_not_survive_and_one_that_is_not_there_is_not_tried(tmp_path, monkeypatch):
    python, script = tmp_path / ".venv" / "bin" / "python", tmp_path / "script.py"
    python.parent.mkdir(parents=True)
    python.write_text(f"#!/bin/sh\nexec {sys.executable} \"$@\"")
    python.chmod(0o755)
    monkeypatch.setenv("A_HOST", str(tmp_path))
    told = 'print("noise")\nprint("\\x1enull")\nprint("\\x1e\\"another latent\\"")\n'
    place = ("A_HOST", "no-host-of-this-name", "script.py")
    for text, wanted in ((told + 'print("\\x1e{\\"figures\\": \\"5 MB\\"}")', [None, "another latent"]),
                         (told + "raise SystemExit(1)", [None, "another latent", "the script ended"])):
        script.write_text(text)
        host = hosts.Host([place], str(script), "FOLDER")
        found = list(host.tries(random.Random(0)))
        assert [one and one.partition(":")[0] for one in found] == wanted
    monkeypatch.delenv("A_HOST")
    assert not list(host.tries(random.Random(0)))
    with pytest.raises(hosts.NotHere, match="set A_HOST to a checkout"):
        next(host.answers())


def test_the_cost_is_measured_in_every_cell_and_the_page_shows_them(monkeypatch):
    """Without a ComfyUI: beside k-diffusion's samplers."""
    monkeypatch.setattr(loop_cost, "SHAPES", ((1, 4, 8, 8),))
    monkeypatch.setattr(loop_cost, "GROWN", (1, 4, 8, 8))
    monkeypatch.setattr(page, "GROWN", (1, 4, 8, 8))
    for variable in ("COMFYUI_PATH", "COMFYUI_NEW_PATH", "FORGE_PATH", "A1111_PATH"):
        monkeypatch.setenv(variable, "/nothing/here")
    made = cost.costs(0)
    assert len(made.cells) == (2 + 4) * 6 and len(made.missing) == 4
    assert all(cell.shares["dpmpp_2m"] > 0 and cell.shares["lms"] > 0 for cell in made.cells)
    assert all(2 <= cell.states < 2.2 for cell in loop_cost.ours(made.cells) if cell.calls == 8)
    assert all(cell.least < cell.moved < 2.5 * cell.least for cell in loop_cost.ours(made.cells) if cell.calls == 8)
    assert made.starts["`s4s --help`"].ours < 10 < made.starts["`s4s list`"].ours      # no torch for the help
    text = page.page([carry_out(fuzz.ATTACKS[0], 0, most=3)], made, "Made by hand", page.machine())
    assert text.count("| 1x4x8x8 |") == 2 * 4 + 2 and "| 3 | 3 |" in text
    assert "| S4S, full history |" in text and "Not on this machine: the start of Forge: no host at /nothing" in text
