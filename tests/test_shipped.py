"""What ships: whole, replayed, honest about what was measured, and described in the page beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from s4s_nodes.core import preset
from s4s_nodes.library import unproven
from training.passports import SHIPPED, page

FOLDER = Path(__file__).parents[1] / "solver_presets"
FILES = sorted(FOLDER.glob("*.safetensors"))
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@each
def test_a_shipped_preset_replays_its_self_test(path):
    made = preset.load(path)
    assert preset.verify(made) < 1e-9 and made.name == path.stem


@each
def test_a_shipped_preset_is_raced_or_says_that_it_is_not(path):
    made = preset.load(path)
    assert made.recommended and made.licence and made.source
    if unproven(made):
        assert "not measured on the real checkpoint" in made.training["note"] and not made.model.hashes
    else:
        assert set(made.scores) == set(made.tables)
        assert all(score["seeds"] >= 256 and score["ratio"] > 1 for score in made.scores.values())


def test_the_page_is_what_the_files_say():
    """`s4s passports --write` makes it anew."""
    assert (FOLDER / "README.md").read_text(encoding="utf-8") == page(FOLDER, SHIPPED)
