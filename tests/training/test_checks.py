"""What cannot work is said before the first network call, by `estimate` as by a run."""

import sys

import pytest
import torch

from s4s.s4s_nodes.core import preset_file
from s4s.training.distil import distil, estimate
from s4s.training.source import NaNFromModel
from tests.toy import small, toy_source
from tests.training.test_teacher import k_euler


def silent_source(teacher=None):
    """A source whose network may not be asked."""
    def network(x, sigma, label):
        raise AssertionError("a network call was made")
    source = toy_source(network=network)
    source.teacher = teacher
    return source


def refused(tmp_path, words, own=None, **settings):
    for attempt in (lambda: estimate(silent_source(own), small(**settings)),
                    lambda: distil(silent_source(own), small(**settings), tmp_path / "run")):
        with pytest.raises(ValueError, match=words):
            attempt()
    assert not (tmp_path / "run").exists()                  # so that the mended settings may use the same name


@pytest.mark.parametrize("settings, words", [
    ({"schedule": "karas"}, "no schedule 'karas' for toy; there are: auto, karras, .*log_snr, dmn, gits"),
    ({"schedule": "nowhere.safetensors"}, "nowhere.safetensors"),
    ({"schedule": "oss_flux"}, "no schedule 'oss_flux' for toy"),                      # a flow's
    ({"schedule": "curve", "windows": (1.0, 0.5)}, "no schedule 'curve'"),
    ({"teacher": "dpmpp_9m"}, "no solver 'dpmpp_9m'; there are: euler"),
])
def test_a_name_that_there_is_none_of(tmp_path, settings, words):
    refused(tmp_path, words, **settings)


def test_a_presets_levels_for_another_number_of_calls(tmp_path):
    made = distil(toy_source(), small(iterations=1), tmp_path / "known")
    file = preset_file.save(made, tmp_path / "known.safetensors")
    refused(tmp_path, r"has no levels for 5 steps .*it has them for: 4", calls=(4, 5), schedule=str(file))
    again = distil(toy_source(), small(iterations=1, schedule=str(file)), tmp_path / "again")
    assert again.training["start"] == {"calls4": f"dpmpp_2m, {file}"}


def test_a_schedule_whose_library_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    refused(tmp_path, "schedule dmn needs scipy", schedule="dmn")


@pytest.mark.parametrize("teacher, settings, words", [
    ((k_euler, torch.tensor([14.6, 3.0, 1.0])), {}, "falling ones that end in 0"),
])
def test_a_teacher_that_cannot_make_the_targets(tmp_path, teacher, settings, words):
    refused(tmp_path, words, teacher, **settings)


def test_a_network_that_answers_nan_stops_gits_in_words(tmp_path):
    source = toy_source(network=lambda x, sigma, label: x * torch.nan if len(x) == 16 else x)   # its paths are 16
    with pytest.raises(NaNFromModel, match="answered NaN"):
        distil(source, small(schedule="gits", validation=8, pairs=8), tmp_path)
