"""What a preset may be called, and the file a name stands for."""

from pathlib import Path

import pytest

from s4s.s4s_nodes.core.names import LONGEST, MOST_BYTES, file_name, numbered, preset_name
from s4s.s4s_nodes.library import Library
from s4s.training.config import Config

GOOD = ["my-preset", "toy, sd15", "my model, cfg 7.5", "sd15_nfe6 (v2) + lora", "digits-eps-cfg3", "émoji 絵文字",
        "مرحبا", "हिन्दी", "人像（写实）", "a" * LONGEST, "console", "com", "states", "v1.0"]
BAD = {"": "1 to 100 printable", "a" * 101: "1 to 100 printable", "a\nb": "printable", "a\x1bb": "printable",
       "a\u202eb": "printable", "a\u200fb": "printable", "a\0b": "printable",
       "../x": "letters, digits", "/etc/x": "letters",
       "a\\b": "letters", "a:b": "letters", "C:": "letters", "a*b": "letters", "a?": "letters", "a|b": "letters",
       "a<b>": "letters", "a\uff0fb": "letters", "$HOME": "letters", ".hidden": "begin or end", "..": "begin or end",
       "dot.": "begin or end", " a": "begin or end", "a ": "begin or end", "CON": "Windows", "nul.txt": "Windows",
       "com1": "Windows", "nul .x": "Windows", "con .x.y": "Windows", "-rf": "with a dash", "\u0301": "mark",
       "\uff53tate": "a run keeps", "\u017ftate": "a run keeps", "a\u3164": "letters", "\u115f": "letters",
       "\u2800": "letters", "a\u034fb": "letters", "LPT\u00b9.x": "Windows",
       "state": "a run keeps", "Config": "a run keeps", "絵" * 100: "300 bytes"}


@pytest.mark.parametrize("name", [*GOOD, *Library([]).named()])
def test_a_name_that_is_safe_everywhere_is_taken_as_it_is(name):
    assert preset_name(name) == file_name(name) == name and Config.of(name=name).name == name


@pytest.mark.parametrize("name", BAD)
def test_any_other_is_refused_with_the_reason_before_a_training_begins(name):
    for door in (preset_name, lambda name: Config.of(name=name)):
        with pytest.raises(ValueError, match=BAD[name]) as caught:
            door(name)
        assert "Choose another name" in str(caught.value) and str(caught.value).isprintable()


@pytest.mark.parametrize("name", [7, None, ["a"], b"a", Path("a")])
def test_only_a_text_is_a_name(name):
    with pytest.raises(ValueError, match="1 to 100 printable"):
        preset_name(name)


@pytest.mark.parametrize("name", BAD)
def test_the_file_of_an_older_name_is_a_plain_one(name):
    file = file_name(name)
    assert Path(file).name == file and file[0] not in " .-" and len(file.encode()) <= MOST_BYTES and file.isprintable()
    assert not set(file) & set("\u3164\u115f\u2800\u034f")


@pytest.mark.parametrize("name", ["mine", "a" * LONGEST, "絵" * 66])
def test_a_numbered_name_is_a_name(name):
    assert preset_name(numbered(name, 2)).endswith("-2") and preset_name(numbered(name, 9999)) != name
