"""The ablation's page says what its numbers say."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.bench import ablation
from tests.bench.ablation_page import CLAIMS, FAILS, FORMER, HOLDS, OPEN, Claim, judged, page


@pytest.mark.parametrize("ratio, verdict", [(1.3, HOLDS), (0.8, FAILS), (1.0, OPEN)])
def test_a_claim_holds_fails_or_stays_open_by_its_paired_interval(ratio, verdict):
    rng = np.random.default_rng(0)
    one = rng.uniform(0.05, 0.4, 160)                                   # seeds differ far more than the cells do
    other = one * ratio * rng.uniform(0.95, 1.05, 160)
    found = judged(Claim("", "", "a", "b"), {"a": {"errors": one.tolist()}, "b": {"errors": other.tolist()}})
    assert found[0] == pytest.approx(ratio, rel=0.02) and found[1][0] < found[0] < found[1][1] and found[2] == verdict


def test_every_claim_is_about_cells_there_are_and_every_cell_is_used():
    used = {name for claim in CLAIMS for name in (claim.better, claim.worse)}
    assert used == {*ablation.CELLS, *FORMER} and not set(FORMER) & set(ablation.CELLS)


def test_a_finished_cell_is_kept_and_its_file_gives_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation, "QUICK", {"train": 3, "held_out": 2, "test": 2})
    monkeypatch.setattr(ablation, "CALLS", 2)
    bench = ablation.Bench("digits-flow", tmp_path, quick=True)
    first = bench.measured("order 1")
    assert first["numbers"] == 1 and len(first["errors"]) == 2 and first["calls"] > 0
    again = ablation.Bench("digits-flow", tmp_path, quick=True)
    before = again.source.model_calls
    assert again.measured("order 1") == first and again.source.model_calls == before


def test_tied_queries_do_not_move():
    config = ablation.Config.of(calls=(5,), order=3)
    free, tied = (kind(ablation.np.linspace(5.0, 0.0, 6), order=3, learn=config.table.learn)
                  for kind in (ablation.Parameters, ablation.Tied))
    assert free.moving().sum() - tied.moving().sum() == 5


def test_the_page_has_every_cell_and_verdict_and_says_which_did_not_run():
    cell = {"words": "a cell", "numbers": 3, "calls": 1000, "errors": [0.1, 0.2, 0.3], "about": {"start": "s, t"}}
    cells = [*ablation.CELLS, *FORMER]
    found = {"one": dict.fromkeys(cells, cell), "two": {"start": cell}}
    text = page(found)
    assert text.count("| a cell | 3 | 0.2000 [") == len(cells) + 1
    assert text.count(OPEN) == text.count("not run") == len(CLAIMS) and "3 unseen seeds" in text


def test_the_page_in_the_docs_is_made_of_the_numbers_beside_it():
    docs = Path(__file__).parents[2] / "docs"
    numbers = json.loads((docs / "ablation.json").read_text(encoding="utf-8"))
    assert page(numbers) == (docs / "ablation.md").read_text(encoding="utf-8")
