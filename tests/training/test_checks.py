"""What cannot work is said before the first network call, by `estimate` as by a run."""

import pytest
import torch

from s4s.training.distil import distil, estimate
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
    ({"schedule": "karas"}, "unknown schedule 'karas' for toy; there are: auto, karras, .*laplace"),
    ({"schedule": "nowhere.safetensors"}, "nowhere.safetensors"),
    ({"schedule": "oss_flux"}, "unknown schedule 'oss_flux' for toy"),                      # a flow's
    ({"schedule": "curve", "windows": (1.0, 0.5)}, "unknown schedule 'curve'"),
    ({"teacher": "dpmpp_9m"}, "unknown solver 'dpmpp_9m'; there are: euler"),
])
def test_a_name_that_there_is_none_of(tmp_path, settings, words):
    refused(tmp_path, words, **settings)


@pytest.mark.parametrize("teacher, settings, words", [
    ((k_euler, torch.tensor([14.6, 3.0, 1.0])), {}, "falling ones that end in 0"),
])
def test_a_teacher_that_cannot_make_the_targets(tmp_path, teacher, settings, words):
    refused(tmp_path, words, teacher, **settings)
