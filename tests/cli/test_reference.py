"""docs/reference/cli.md names every command and every option, and no other."""

import re
from pathlib import Path

import click
import pytest

from s4s.training.cli.main import main
from s4s.training.config import CHECKPOINT_SETTINGS

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {title.split(",")[0].removeprefix("s4s "): text
            for title, text in re.findall(r"^## (s4s [^\n]*)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)}


def options_of(name: str) -> set[str]:
    """The options of a command, without those that the page describes once for all commands."""
    return {option for one in main.commands[name].params
            if isinstance(one, click.Option) and not one.hidden for option in one.opts} \
        - {"--help", "-h"}


def defaults_of(section: str) -> dict[str, str]:
    """{option: default} of the rows of a section's tables; a row may have several of both."""
    rows = re.findall(r"^\| ((?:`--[^`]*`(?:, )?)+) \| ([^|]*) \|", section, re.M)
    return {option: value for names, values in rows
            for option, value in zip(re.findall(r"--[a-z-]+", names), values.split(", "))}


def test_every_command_has_a_section():
    assert set(main.commands) == set(SECTIONS)


@pytest.mark.parametrize("name", sorted(main.commands))
def test_a_section_names_the_options_of_its_command(name):
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", SECTIONS[name]))
    of_train = {f"--{setting.replace('_', '-')}" for setting in CHECKPOINT_SETTINGS} | {"--device"}
    assert options_of(name) - (of_train if name == "race" else set()) <= named
    assert named - {"--nproc-per-node"} <= options_of(name)


@pytest.mark.parametrize("name", ["train", "demo", "race", "import"])
def test_the_tables_of_a_section_have_the_defaults(name):
    shown = defaults_of(SECTIONS[name])
    for one in main.commands[name].params:
        if (given := shown.get(one.opts[0])) and type(one.default) in (str, int, float) and one.default:
            given = given.split(" ")[0].strip("`")
            assert given == str(one.default) or float(given) == float(str(one.default)), one.opts[0]
