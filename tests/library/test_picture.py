"""The pictures: of any table, of what was measured; the right colours at the right places."""

import numpy as np
import pytest
from PIL import Image

from s4s.s4s_nodes import picture
from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules
from s4s.s4s_nodes.core.scores import compared
from s4s.s4s_nodes.library import shipped_folder

SD = Model("sd15", "eps", 0.03, 14.6)


def made(calls: int, name: str = "made", scores: dict | None = None) -> Preset:
    table = classical.SOLVERS["dpmpp_2m"](schedules.karras(calls, 0.03, 14.6))
    return Preset(name, {"table": table}, SD, scores=scores or {})


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).astype(int)


def is_coloured(image: Image.Image, colour: tuple, box: tuple) -> bool:
    """Whether some pixel in (left, top, right, bottom) is near this colour."""
    return bool((np.abs(pixels(image.crop(box)) - colour).sum(-1) < 60).any())


@pytest.mark.parametrize("calls", [1, 2, 3, 8, 13, 50, 150])
def test_tables_of_any_size_fit_on_the_page(calls):
    page = picture.table(made(calls), "table")
    assert page.width == picture.WIDTH
    edge = np.concatenate([pixels(page)[:, :20].ravel(), pixels(page)[:, -20:].ravel(), pixels(page)[-12:].ravel()])
    assert (edge == 255).all()                              # nothing is drawn over the margin
    assert is_coloured(page, picture.RED, (540, 120, 1000, 500)) or calls == 150


def test_positive_weights_are_red_and_negative_ones_blue():
    page = picture.table(made(6), "table")                  # DPM++ 2M: the newest weighs > 0, the one before < 0
    size = min(432 / 7, 350 / 6, 64)
    def cell(i, j):
        left, top = 560 + size * (j + 1) + 6, 132 + size * i
        return pixels(page)[round(top + 6), round(left + size / 2)]
    assert cell(2, 2)[0] > cell(2, 2)[2] + 30 and cell(2, 1)[2] > cell(2, 1)[0] + 30


def test_shipped_presets_show_their_race():
    for path in shipped_folder().glob("*.safetensors"):
        found = preset_file.load(path)
        for scores in map(found.score, found.scores):
            first, *_ = picture.score_lines(scores)
            assert f"{scores['rmse']:.4g}" in first and scores["best_classical"] in first


def test_no_ratio_is_shown_that_says_nothing():
    scores = {"rmse": 0.1, "best_rmse": 0.12, "ratio": 1.2}
    for verdict, words in (("better", "1.20 times closer"), ("within the teacher's error", "within the teacher"),
                           ("unsure", "too few seeds to decide"), ("even", "nothing was gained")):
        errors, times = picture.score_lines({**scores, "verdict": verdict, "seeds": 8})
        assert errors.endswith("unnamed, 0.12") and times.endswith("; measured on 8 unseen seeds")
        assert words in times and ("1.20" in times) == (verdict in ("better", "unsure"))


def test_a_ratio_below_1_is_said_as_further():
    scores = {"rmse": 0.1, "best_rmse": 0.05, "ratio": 0.5, "ratio_95": [0.4, 0.625], "verdict": "worse"}
    assert picture.score_lines(scores)[1] == "2.00 [1.60, 2.50] times further from the teacher"
    assert compared(0.0) == ("0.00", "closer to") and compared(0.5, [-1.0, 0.0])[1] == "further from"   # of any file


@pytest.mark.parametrize("scores", [{}, {"rmse": "x"}, {"rmse": 1.0}, {"rmse": None, "best_rmse": 1, "ratio": 2}])
def test_results_of_another_form_are_left_out(scores):
    assert picture.score_lines(scores) == []


def test_nothing_is_drawn_where_webui_lays_its_buttons():
    for page in (picture.table(made(4), "table"), picture.table(made(4, "n" * 100), "table"),
                 picture.sheet([("S4S", "", [Image.new("RGB", (64, 64))])], "n" * 100)):
        assert (pixels(page)[:60, -190:] == 255).all()


def test_queries_away_from_the_levels_are_rings():
    plain = made(4).tables["table"]
    moved = plain.query.copy()
    moved[1] *= 1.4
    table = type(plain)(plain.sigmas, moved, plain.scale, plain.carry, plain.weights)
    left = (0, 120, 480, 480)
    assert is_coloured(picture.table(Preset("m", {"table": table}, SD), "table"), picture.RED, left)
    assert not is_coloured(picture.table(made(4), "table"), picture.RED, left)


def test_a_sheet_keeps_rows_and_columns():
    colours = [[(200, 0, 0), (0, 200, 0)], [(0, 0, 200), (200, 200, 0)]]
    rows = [("one", "6 calls", [Image.new("RGB", (8, 8), c) for c in colours[0]]),
            ("two", "50 calls", [Image.new("RGB", (8, 8), c) for c in colours[1]])]
    page = pixels(picture.sheet(rows, "title", "note"))
    seen = [[tuple(page[110 + 52 + 120 + 300 * i, 32 + 120 + 248 * j]) for j in range(2)] for i in range(2)]
    assert seen == colours


def test_bars_are_as_long_as_their_values_and_one_stands_out():
    page = pixels(picture.bars("race", "note", [("S4S", 1.0, 0.9, 1.1, True), ("euler, karras", 2.0, 1.8, 2.2, False)]))
    full = picture.WIDTH - 330 - 110
    for row, (share, stands_out) in enumerate(((1 / 2.2, True), (2 / 2.2, False))):
        line = page[100 + 32 * row + 2]                                     # above the interval and the number
        ends = np.flatnonzero((line != 255).any(-1) & (np.arange(picture.WIDTH) >= 330))
        assert abs(ends[0] - 330) <= 1 and abs(ends[-1] - (330 + full * share)) <= 2
        assert (np.abs(line[400].astype(int) - picture.RED).max() < 20) == stands_out
