"""s4s import and s4s export."""

import json
import sys

import pytest
from click.testing import CliRunner
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from s4s.s4s_nodes import metadata
from s4s.s4s_nodes.core import Model, Preset, classical, preset_file, schedules
from s4s.s4s_nodes.library import ModelFacts, Request, select
from s4s.training.cli.main import main


@pytest.fixture
def s4s(tmp_path, monkeypatch):
    """Run a command in an empty folder: (exit code, output)."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        done = CliRunner().invoke(main, [str(word) for word in words])
        return done.exit_code, done.output
    return run


def test_published_names_are_listed(s4s):
    code, output = s4s("import")
    assert code == 0 and {"ays-sdxl", "gits-1.20", "oss-flux"} <= set(output.split())


def test_a_published_schedule_becomes_a_file_and_goes_out_again(s4s, tmp_path):
    code, output = s4s("import", "ays-sdxl", "--calls", "6,10", "--name", "mine")
    assert code == 0 and "not measured on your checkpoint" in output
    made = preset_file.load(tmp_path / "mine.safetensors")
    assert made.counts == [6, 10] and made.name == "mine"
    code, output = s4s("export", "mine.safetensors", "--calls", 10)
    assert code == 0 and [float(part) for part in output.split(", ")][0] == pytest.approx(14.6146412)
    assert json.loads(s4s("show", "mine.safetensors", "--json")[1])["name"] == "mine"
    code, output = s4s("export", "mine.safetensors", "--to", "xml")
    assert code == 2 and "'sigmas', 'diffusers'" in output


@pytest.mark.parametrize("words, said", [
    (("import", "nonsense"), "unknown published name 'nonsense'"), (("export", "absent"), "cannot read"),
    (("import", "neuralsolver-sit"), "Version 0.4 was the last"), (("import", "dyweight_nfe5.pt"), "Version 0.4 was")])
def test_mistakes_get_one_sentence(s4s, words, said):
    code, output = s4s(*words)
    assert code == 1 and said in output and "Traceback" not in output


def test_a_file_in_place_of_a_folder_is_said(s4s, tmp_path):
    assert s4s("import", "ays-sdxl", "--name", "mine")[0] == 0
    code, output = s4s("export", "mine.safetensors", "--to", "diffusers", "--out", "mine.safetensors")
    assert code == 1 and "mine.safetensors is a file: name a folder" in output
    code, output = s4s("train", "--name", "x", "--out", "mine.safetensors/below")
    assert code == 1 and "is not a folder" in output


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a folder where nothing can be made")
def test_a_folder_that_cannot_be_made_is_said_once(s4s):
    code, output = s4s("train", "--name", "x", "--out", "/proc/x")
    assert code == 1 and "/proc/x cannot be created" in output and "WARNING" not in output


def test_nothing_is_overwritten_without_force(s4s, tmp_path):
    (tmp_path / "mine-diffusers").mkdir()
    (tmp_path / "mine-diffusers" / "scheduler_config.json").write_text("mine")
    assert s4s("import", "ays-sdxl", "--name", "mine")[0] == 0
    written = {"mine.safetensors": ("import", "gits-1.20", "--name", "mine"),
               "mine-diffusers/scheduler_config.json": ("export", "mine.safetensors", "--to", "diffusers")}
    for file, words in written.items():
        before = (tmp_path / file).read_bytes()
        code, output = s4s(*words)
        assert code == 1 and "overwrite it with --force" in output and (tmp_path / file).read_bytes() == before
    for file, words in list(written.items())[:1]:               # diffusers may not be installed
        before = (tmp_path / file).read_bytes()
        assert s4s(*words, "--force")[0] == 0 and (tmp_path / file).read_bytes() != before


def test_a_preset_that_another_program_writes_meanwhile_is_kept(s4s, tmp_path, monkeypatch):
    def slowly(preset):
        (tmp_path / "ays-sdxl.safetensors").write_text("theirs")
        return to_bytes(preset)
    to_bytes = preset_file.to_bytes
    monkeypatch.setattr(preset_file, "to_bytes", slowly)
    code, output = s4s("import", "ays-sdxl")
    assert code == 1 and "overwrite it with --force" in output
    assert (tmp_path / "ays-sdxl.safetensors").read_text() == "theirs"


def test_an_image_gives_back_the_preset_that_made_it(s4s, tmp_path):
    made = Preset("portraits", {"calls6": classical.unipc(schedules.karras(6, 0.03, 14.6146))},
                  Model("sd15", "eps", 0.0292, 14.6146, channels=4), {"cfg": [5, 5]})
    facts, info = ModelFacts.of(made.model), PngInfo()
    info.add_text("s4s", metadata.to_text(select(Request(facts, [made], 6, named=made)), facts))
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png", pnginfo=info)
    code, output = s4s("import", "image.png")
    assert code == 0 and "wrote portraits.safetensors" in output
    assert preset_file.load(tmp_path / "portraits.safetensors").tables["calls6"].same_as(made.tables["calls6"])
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    code, output = s4s("import", "other.png", "--force")
    assert code == 1 and "carries no table" in output
