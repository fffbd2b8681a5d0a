"""The page S4S in the host's settings."""

import re
from functools import partial

import gradio as gr
from modules import script_callbacks, shared

from .words import say

MATCHING, FALLBACK, TABLE = "s4s_matching", "s4s_fallback", "s4s_write_table"
FREE = "Auto"
_FAMILY = "s4s_default_"
_DEFAULTS = {MATCHING: "loose", FALLBACK: "classical", TABLE: True}         # of a family's: FREE


def register(library) -> None:
    """Make the settings known now (an API-only host asks no callback), and again when the host builds its page."""
    add_options(library)
    script_callbacks.on_ui_settings(partial(add_options, library))


def add_options(library) -> None:
    """One default preset for each family there is a preset of, how to match, and what to do when nothing matches."""
    for family in sorted({preset.model.family for preset in library.offered().values()}):
        _add(_FAMILY + _key(family), f"{say('Default preset for models of the family')} {family}", gr.Dropdown,
             lambda: {"choices": [FREE, *library.offered()]},
             say("used if Schedule type is Automatic or S4S Auto"))
    _add(MATCHING, say("Matching of presets to models"), gr.Radio, {"choices": ["loose", "strict"]},
         say("strict: a preset you chose runs only on the model it was learned on; loose: also on others, with a "
             "warning"))
    _add(FALLBACK, say("When no preset fits"), gr.Radio, {"choices": ["classical", "stop"]},
         say("classical: sample with a classical solver and say so; stop: end the generation with an error"))
    _add(TABLE, say("Write the table into the infotext"), gr.Checkbox, {},
         say("about 700 letters at 6 steps; you can make a picture again after its preset was changed or deleted"))


def default_for(family: str) -> str | None:
    """The name of the preset chosen for a family; None if S4S may choose."""
    name = getattr(shared.opts, _FAMILY + _key(family), FREE)
    return None if name in (None, "", FREE) else name


def families_with(name: str) -> list[str]:
    return [key.removeprefix(_FAMILY) for key in shared.opts.data_labels
            if key.startswith(_FAMILY) and getattr(shared.opts, key, FREE) == name]


def chosen(key: str):
    """What the user set for MATCHING, FALLBACK or TABLE."""
    return getattr(shared.opts, key, _DEFAULTS[key])


def _add(key: str, label: str, component, arguments, about: str) -> None:
    option = shared.OptionInfo(_DEFAULTS.get(key, FREE), label, component, arguments, section=("s4s", "S4S"))
    shared.opts.add_option(key, option.info(about))


def _key(family: str) -> str:
    return re.sub(r"\W", "_", family.lower())
