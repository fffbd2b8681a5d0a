"""The settings of a training: groups, and the flat names that the command line and config.json use."""

import json
from dataclasses import fields

import pytest

from s4s.training.config import CHECKPOINT_SETTINGS, GROUPS, SETTINGS, Config

CHANGED = {"name": "mine", "calls": (5,), "model": "toy", "checkpoint": "a.safetensors", "prompts": "p.txt",
           "teacher": "euler", "teacher_calls": 50, "schedule": "beta", "pairs": 9, "seed": 3}


def test_every_field_of_a_group_is_one_setting_with_a_help_text():
    known = [(group, one.name) for group, kind in {"": Config, **GROUPS}.items() for one in fields(kind)
             if one.name not in GROUPS]
    assert [(setting.group, setting.name) for setting in SETTINGS.values()] == known
    assert all(setting.help for setting in SETTINGS.values()) and "checkpoint" in CHECKPOINT_SETTINGS


def test_flat_names_fill_the_groups_and_come_back():
    config = Config.of(**CHANGED)
    assert (config.model.name, config.teacher.calls, config.schedule) == ("toy", 50, "beta")
    assert (config.data.pairs, config.data.seed) == (9, 3)
    assert CHANGED.items() <= config.flat().items()
    assert Config.of(**config.flat()) == config == Config.of(**json.loads(config.to_json()))
    later = {"more_sizes", "teacher_checkpoint", "teacher_cfg"}
    assert set(json.loads(config.to_json())) == set(SETTINGS) - later               # older runs have none
    several = Config.of(checkpoint="a", prompts="b", more_sizes="64x96", teacher_checkpoint="c", teacher_cfg=4.0)
    assert set(json.loads(several.to_json())) == set(SETTINGS) and Config.of(**json.loads(several.to_json())) == several


def test_a_copy_differs_in_what_is_named():
    config = Config.of(**CHANGED)
    other = config.replace(seed=4, calls=(7,))
    assert {name for name, value in config.flat().items() if other.flat()[name] != value} == {"seed", "calls"}
    assert other.model is config.model


def test_a_teachers_cfg_without_the_teacher_is_refused_with_what_to_do():
    for model in ({}, {"checkpoint": "a", "prompts": "b"}):
        with pytest.raises(ValueError, match="--teacher-cfg 7 is for --teacher-checkpoint, and none is given: add it"):
            Config.of(**model, teacher_cfg=7.0)


def test_an_unknown_setting_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown settings foo"):
        Config.of(foo=1)
    with pytest.raises(ValueError, match="teacher_calls is 0: use 1 or more"):
        Config.of(teacher_calls=0)
