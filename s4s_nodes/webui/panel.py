"""The accordion in txt2img and img2img: what a preset is. And the script that keeps infotexts apart."""

from __future__ import annotations

from html import escape

import gradio as gr
from modules import scripts

from ..core.preset import describe
from . import labels, shelf
from .words import say


class S4SScript(scripts.Script):
    """Shows presets; chooses nothing (the schedule type does) and takes no arguments over the API."""

    _schedule = None                        # the page's dropdown of schedule types, once it is there

    def title(self):
        return "S4S"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def after_component(self, component, **arguments):
        if str(arguments.get("elem_id", "")).endswith(("txt2img_scheduler", "img2img_scheduler")):
            self._schedule = component

    def ui(self, is_img2img):
        """The API layer calls this again, on a page of its own: the dropdown of the first page is used once."""
        tab, (schedule, self._schedule) = "img2img" if is_img2img else "txt2img", (self._schedule, None)
        known = list(shelf.names())
        with gr.Accordion(label=say("S4S presets"), open=False, elem_id=f"s4s_{tab}"):
            gr.HTML(escape(say("Choose the sampler S4S and a schedule type S4S; the steps choose the table.")))
            preset = gr.Dropdown(label=say("Show preset"), choices=known, value=known[0] if known else None,
                                 elem_id=f"s4s_{tab}_preset")
            text = gr.HTML(value=about(preset.value), elem_id=f"s4s_{tab}_about")
            preset.change(about, inputs=[preset], outputs=[text], show_progress=False)
            if schedule is not None:
                schedule.change(followed, inputs=[schedule], outputs=[preset], show_progress=False)
        return []

    def before_process(self, p, *arguments):
        """XYZ cells share one dictionary: what the last cell said of itself must not stand in this one's infotext."""
        written = p.extra_generation_params
        for key in (labels.KEY, labels.HIRES_KEY):
            written.pop(key, None)
        for key in ("Schedule type", "Hires schedule type"):
            if shelf.is_ours(written.get(key)):
                del written[key]


def about(label) -> str:
    """A preset in words and numbers, as HTML."""
    name = shelf.names().get(label)
    text = describe(shelf.library().get(name)) if name else say("There is no preset.")
    return f"<pre>{escape(text)}</pre>"


def followed(schedule):
    """What the dropdown of presets does when another schedule type is chosen."""
    return gr.update(value=schedule) if schedule in shelf.names() else gr.update()
