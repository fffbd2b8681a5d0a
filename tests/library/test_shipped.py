"""What ships: whole, replayed, honest about what was measured, and described in the page beside it."""

from itertools import product
from pathlib import Path

import numpy as np
import pytest

from s4s.s4s_nodes import published
from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.library import Library, Request, select
from s4s.s4s_nodes.select import ModelFacts, match
from tests.bench.passports import PAGE, page

FOLDER = Path(__file__).parents[2] / "solver_presets"
FILES = sorted(FOLDER.glob("*.safetensors"))
each = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
IMPORTED = [path for path in FILES if not path.stem.startswith(("digits", "transfer"))]


@each
def test_a_shipped_preset_replays_its_self_test(path):
    made = preset_file.load(path)
    assert preset_file.verify(made) < 1e-9 and made.name == path.stem


@each
def test_a_shipped_preset_is_raced_or_says_that_it_is_not(path):
    made = preset_file.load(path)
    assert made.recommended and made.licence and made.source
    if match.unproven_text(made):
        assert "not measured on your checkpoint" in made.training["note"] and not made.model.hashes
    else:
        assert set(made.scores) == set(made.tables)
        assert all(score["seeds"] >= 256 and score["ratio"] > 1 for score in map(made.score, made.scores))


def test_the_page_is_what_the_files_say():
    """`python -m tests.bench.passports` makes it anew."""
    assert PAGE.read_text(encoding="utf-8") == page()


# --- what a host takes when nothing else is there ------------------------------------------------------------

SD, FLOW = {"prediction": "eps", "sigma_min": 0.0292, "sigma_max": 14.6146, "channels": 4}, {
    "prediction": "flow", "sigma_min": 0.0003, "sigma_max": 1.0, "channels": 16}
ENDLESS = {**SD, "prediction": "v", "sigma_max": 4518.0, "zero_terminal_snr": True}
FEW = (4, 5, 6, 7, 8, 10)


@pytest.mark.parametrize("family, seen, taken", [
    ("sd15", SD, dict.fromkeys(FEW, "gits-sd15")), ("sdxl", SD, dict.fromkeys(FEW, "ays-sdxl")),
    ("flux", {**FLOW, "shift": 3.158}, {}), ("wan21", {**FLOW, "shift": 8.0}, {}),
    ("sd3", {**FLOW, "shift": 3.0}, {}), ("sdxl", {**SD, "prediction": "v"}, {}), ("sdxl", ENDLESS, {}),
    ("sd20", SD, {}), ("fluxschnell", {**FLOW, "shift": 1.0}, {}), ("sdxl", {**SD, "channels": None}, {6: "ays-sdxl"}),
    ("unknown", SD, {}), ("unknown", {**SD, "channels": None}, {})])
def test_what_ships_is_the_familys_fallback_at_its_calls_and_nothing_else_runs(family, seen, taken):
    facts = ModelFacts(family=family, **seen)
    for calls in taken if seen["channels"] is None else (*FEW, 12, 20, 30):
        found = select(Request(facts, Library([]).named().values(), calls, cfg=7.0))
        assert found.fallback and (found.preset and found.preset.name) == taken.get(calls), calls
        assert found.table.calls == calls and found.schedule.tolist() == found.table.sigmas.tolist()
        assert ("not measured on this checkpoint" in found.message()) == (calls in taken)


def test_the_schedules_that_run_unasked_are_these_files():
    shipped = {made.model.family: made for made in map(Library([]).get, ("gits-sd15", "ays-sdxl"))}
    assert {family: made.short_hash for family, made in shipped.items()} == match.FAMILY_SCHEDULES


def test_at_a_cfg_where_a_schedule_was_not_better_the_plain_choice_runs():
    facts = ModelFacts(family="sd15", **SD)
    for cfg, calls in ((None, 6), (1.0, 6), (3.0, 8), (4.0, 8), (5.0, 10), (7.0, 12)):
        found = select(Request(facts, Library([]).named().values(), calls, cfg=cfg))
        assert found.message() == ("S4S fallback: no preset was trained for this model. UniPC bh2 of order 2 on the "
                                   "model's own levels ran; train one for this model.")


def test_the_digits_are_for_digits_only():
    """Whatever a host shows of a real model, and however little."""
    digits = [made for made in Library([]).named().values() if made.name.startswith("digits")]
    assert len(digits) == 2
    for seen in (SD, FLOW, {**SD, "channels": None}, {**FLOW, "channels": None}):
        for family in ("sd15", "sdxl", "sd3", "flux", "unknown"):
            assert select(Request(ModelFacts(family=family, **seen), digits, 6)).preset is None


@pytest.mark.parametrize("path", IMPORTED, ids=lambda path: path.stem)
def test_published_levels_are_what_import_makes_of_them(path):
    """`s4s import NAME --calls ... --out solver_presets`; stretched ones are log-linear between the authors' own."""
    shipped = preset_file.load(path)
    made = published.make(path.stem, tuple(shipped.counts))
    assert set(made.tables) == set(shipped.tables) and made.model == shipped.model
    for table, part in product(shipped.tables, ("sigmas", "query", "scale", "carry", "weights")):
        now, there = (getattr(preset.tables[table], part) for preset in (made, shipped))
        np.testing.assert_allclose(now, there, rtol=1e-14, atol=1e-15)      # NumPy's logarithm depends on the processor
    assert {**shipped.training, "self_test": None} == {**made.training, "self_test": None}
    assert (made.licence, made.source) == (shipped.licence, shipped.source)


def test_every_licence_that_asks_for_it_is_kept_in_notice():
    notice = (FOLDER.parent / "NOTICE").read_text(encoding="utf-8")
    for words in ("arXiv 2404.14507", "Apache License\n", "Copyright (c) 2025 JNP"):
        assert words in notice
    for path in FILES:
        made = preset_file.load(path)
        if "imported" in made.training and path in IMPORTED:
            assert made.licence in ("Apache-2.0", "MIT", "published numbers, credited")
            assert made.source.split("arXiv ")[1][:10] in notice
