"""The dropdowns of the open page: a new preset is put into them, as the host's own refresh buttons do it.

The host tells of every component it makes, before it builds the tabs of extensions. They are kept until ours is built,
whose events may then read and change them.
"""

from itertools import zip_longest

import gradio as gr
from modules import script_callbacks, sd_schedulers

from . import labels, pasted, rows, shelf

SCHEDULES = ("txt2img_scheduler", "img2img_scheduler", "hr_scheduler")
PANELS = ("s4s_txt2img_preset", "s4s_img2img_preset")
PRESETS = (*PANELS, "s4s_race_preset")                                          # by their schedule types
COLLECTION, SEVERAL = "s4s_collection_preset", "s4s_collection_several"         # by their own names
OURS = (*PRESETS, COLLECTION, SEVERAL)
host_page: dict = {}                        # elem_id -> the component of the page that is being built


def register() -> None:
    script_callbacks.on_after_component(remember)


def remember(component, **arguments) -> None:
    """Keep a component by its elem_id; one of an older page is forgotten for it."""
    if name := arguments.get("elem_id"):
        host_page[name] = component


def on_this_page() -> dict:
    """{elem_id: dropdown} of those whose choices change with the presets."""
    return {name: component for name, component in host_page.items() if name in (*SCHEDULES, *OURS)}


def refreshed(components: dict, shown=(), renamed: dict | None = None) -> list:
    """Look at the folders again, and give an update for each of these dropdowns, in order.

    shown: what each shows now, where it is known; what is gone gives way to its new name in renamed, or to nothing.
    """
    rows.refresh()
    updates, renamed = [_update(name, component) for name, component in components.items()], renamed or {}
    for name, update, now in zip_longest(components, updates, shown):
        if name == SEVERAL:                         # gradio 4 keeps chips by their place among the choices
            update["value"] = _still_valid(now or [], update["choices"], renamed)
        elif shown and (kept := _still_valid(now, update["choices"], renamed)) != now:
            update["value"] = kept
    return updates


def _update(name: str, component):
    """The host's own choices, and ours behind them. Set on the component too, for pages that are opened later."""
    pairs = bool(component.choices) and isinstance(component.choices[0], tuple)     # gradio 4: (label, value)
    theirs = [] if name in OURS else [each[1] for each in component.choices] if pairs else component.choices
    choices = [*(each for each in theirs if not shelf.is_ours(each)), *_ours(name)]
    component.choices = [(choice, choice) for choice in choices] if pairs else choices
    return gr.update(choices=choices)


def _still_valid(shown, choices: list[str], renamed: dict):
    """What a dropdown may still show: hosts refuse to work with a value that is no choice."""
    if isinstance(shown, list):
        return [now for now in (renamed.get(one, one) for one in shown) if now in choices]
    now = renamed.get(shown, shown)
    return now if now in choices else next((own for own in (labels.BY_SCHEDULE, labels.AUTO) if own in choices), None)


def _ours(name: str) -> list[str]:
    if name in PRESETS:
        return [*([labels.BY_SCHEDULE, pasted.CHOICE] if name in PANELS else []), *shelf.names()]
    if name in (COLLECTION, SEVERAL):
        return shelf.library().listed() if name == COLLECTION else list(shelf.library().offered())
    return [row.label for row in sd_schedulers.schedulers if shelf.is_ours(row.label)]
