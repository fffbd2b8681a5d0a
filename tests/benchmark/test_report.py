"""The page of a run: whole, by itself, and deaf to what names and records hold."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
import torch
from PIL import Image

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.core.preset_file import with_scores
from s4s.training.baselines.halving import Effort
from s4s.training.benchmark import html_report
from s4s.training.benchmark.race import race, row_of, unseen_pairs
from s4s.training.benchmark.report_run import draw_run
from s4s.training.progress import RunProgress
from s4s.training.run import Run
from tests.toy import small, toy_source

HOSTILE = "</title><script>alert('x')</script><img src=x onerror=alert(1)>\"'"


class Reader(HTMLParser):
    """The tags that are open, their attributes and the text."""

    ALONE = {"meta", "img", "input"}

    def __init__(self, page: str):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.ALONE:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def raced():
    source = toy_source()
    source.features, source.feature_space = (lambda points: torch.cat([points, points ** 2], 1)), "four powers"
    levels = schedules.karras(5, 0.03, 14.6146)
    tables = {"calls5": classical.unipc(levels, order=2), "calls4": classical.euler(levels[[0, 1, 2, 3, 5]])}
    made = Preset(HOSTILE[:100], tables,
                  Model("toy & <b>co</b>", "eps", 0.0292, 14.6146), {"teacher": HOSTILE, "note": HOSTILE, "cfg": [1.0],
                                                                    "model_calls": 12345}, licence=HOSTILE)
    pairs = unseen_pairs(source, 24)
    races = {name: race(source, made, name, pairs, Effort(1, 1, ((2, 99), (24, 4)))) for name in made.tables}
    return with_scores(made, {name: result.scores for name, result in races.items()}), races


def test_nothing_a_preset_says_becomes_markup(raced, tmp_path):
    (tmp_path / "config.json").write_text('{"name": "<script>alert(2)</script>", "calls": [4, 5], "rate": 0.03}')
    page = Reader(html_report.write(tmp_path, *raced).read_text(encoding="utf-8"))
    assert not page.open and not {tag for tag, _ in page.tags} & {"script", "iframe", "object", "link", "base", "form"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    for words in (HOSTILE, HOSTILE[:100], "toy & <b>co</b>", "<script>alert(2)</script>"):
        assert words in page.text
    assert ("meta", {"http-equiv": "Content-Security-Policy",
                     "content": "default-src 'none'; img-src data:; style-src 'unsafe-inline'"}) in page.tags


def test_a_tile_says_closer_or_further(raced, tmp_path):
    preset, _ = raced
    for ratio, verdict, tile in ((1.25, "better", "1.25 × closer to the teacher than the best baseline [1.00, 2.00]"),
                                 (0.5, "worse", "2.00 × further from the teacher than the best baseline [1.00, 4.00]"),
                                 (0.8, "unsure", "[1.00, 2.00]: too few seeds to decide")):
        bounds = [0.25, 1.0] if verdict == "worse" else [0.5, 1.0] if ratio < 1 else [1.0, 2.0]
        held = replace(preset, scores={"calls5": {"ratio": ratio, "ratio_95": bounds, "verdict": verdict}})
        assert tile in " ".join(re.sub("<[^>]*>", " ", html_report.page(held, {}, tmp_path)).split())


def test_the_race_is_told_whole_with_the_losers_and_whoever_is_closer(raced, tmp_path):
    preset, races = raced
    text = html_report.page(preset, races, tmp_path)
    for result in races.values():
        assert result.scores["feature_space"] in text
        for entry in result.ranked:
            assert entry.name in text and f"{entry.rmse:.4f}" in text
    assert len(re.findall(r'class="ours"', text)) == 2
    behind = sum(row_of(entry, result).times < 1
                 for result in races.values() for entry in result.ranked)
    assert len(re.findall(r'class="closer"', text)) == behind > 0
    assert preset.lost == ["calls4", "calls5"] and text.count('class="tile lost"') == 2 and "12,345" in text


def test_a_run_has_its_page_with_every_picture_inside(tmp_path):
    run = Run(small(iterations=2), tmp_path, progress=RunProgress(quiet=True), source=toy_source())
    made = run.train()
    page = Reader(draw_run(run, made).read_text(encoding="utf-8"))
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert [picture["src"][:22] for picture in pictures] == ["data:image/png;base64,"]
    assert "not raced yet" in page.text and made.short_hash in page.text and f"{run.source.all_calls:,}" in page.text
    assert "no Fréchet distance" not in page.text and "teacher calls" in page.text.replace("_", " ")


def test_a_race_without_a_feature_space_says_so(raced, tmp_path):
    preset, races = raced
    scores = {name: value for name, value in races["calls5"].scores.items() if "frechet" not in name}
    scores.pop("feature_space")
    page = html_report.page(preset, {"calls5": replace(races["calls5"], scores=scores, teacher=None)}, tmp_path)
    assert "This model has no feature space here" in page.replace("\n", " ")


def test_a_run_shows_how_its_error_fell(raced, tmp_path):
    rows = [("calls5", 1000, 0.4), ("calls4", 900, 0.3), ("calls5", 1500, None), ("calls5", 3000, 0.1)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(
        {"table": table, "iteration": 0, "loss": None, "held_out_rmse": error, "model_calls": calls}) + "\n"
        for table, calls, error in rows))
    page = Reader(html_report.page(*raced, tmp_path))
    assert [attributes["points"] for tag, attributes in page.tags if tag == "polyline"] == ["0.0,0.0 600.0,160.0"]
    assert "1,000" in page.text and "3,000" in page.text            # one of calls5; a single point of calls4 is none


def test_a_score_without_an_interval_is_shown_without_one(raced, tmp_path):
    page = html_report.page(replace(raced[0], scores={"calls5": {"ratio": 1.2}}), {}, tmp_path)
    assert "1.20 ×" in page and "[" not in page.split("1.20 ×")[1].split("</a>")[0]


def test_the_sheet_of_a_race_is_zoomed_by_a_click_without_a_script(raced, tmp_path):
    Image.new("RGB", (4000, 300)).save(tmp_path / "sheet.png")
    page = Reader(html_report.page(*raced, tmp_path))
    [at] = [i for i, (tag, attributes) in enumerate(page.tags) if tag == "label" and attributes["class"] == "zoom"]
    assert [tag for tag, _ in page.tags[at:at + 3]] == ["label", "input", "img"]
    assert "Click to see it in full size" in page.text and "script" not in {tag for tag, _ in page.tags}
