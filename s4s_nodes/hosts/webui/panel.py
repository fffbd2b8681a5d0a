"""The accordion in txt2img and img2img: what a preset is. And the script that keeps infotexts apart."""

from __future__ import annotations

from html import escape

import gradio as gr
from modules import scripts

from ... import picture
from ...core.preset_file import describe
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
            with gr.Row():
                preset = gr.Dropdown(label=say("Preset"), choices=known, value=None, elem_id=f"s4s_{tab}_preset")
                table = gr.Dropdown(label=say("Table"), choices=[], value=None, elem_id=f"s4s_{tab}_table")
            image = gr.Image(type="pil", interactive=False, show_label=False, visible=False, elem_id=f"s4s_{tab}_image")
            text = gr.HTML(value="" if known else escape(say("There is no preset.")), elem_id=f"s4s_{tab}_about")
            preset.change(shown, inputs=[preset], outputs=[table, image, text], show_progress=False)
            table.change(drawn, inputs=[preset, table], outputs=[image], show_progress=False)
            if schedule is not None:
                schedule.change(followed, inputs=[schedule], outputs=[preset], show_progress=False)
        return []

    def before_process(self, p, *arguments):
        """XYZ cells share one dictionary: what the last cell said of itself must not stand in this one's infotext."""
        written = p.extra_generation_params
        for key in (labels.KEY, labels.HIRES_KEY):
            written.pop(key, None)
        for key in ("Schedule type", labels.hires_schedule(written)):
            if shelf.is_ours(written.get(key)):
                del written[key]


def shown(label) -> tuple:
    """Updates of tables, picture and words for a preset; all empty for one that is not there."""
    preset = shelf.labelled(label)
    if preset is None:
        return gr.update(choices=[], value=None), gr.update(value=None, visible=False), ""
    tables = sorted(preset.tables, key=lambda name: (preset.tables[name].calls, name))
    return (gr.update(choices=tables, value=tables[0]), drawn(label, tables[0]),
            words_of(preset))


def words_of(preset) -> str:
    """A preset's description, as a page shows it."""
    return f'<pre style="white-space: pre-wrap; max-height: 18em; overflow: auto">{escape(describe(preset))}</pre>'


def drawn(label, table):
    """The picture of a preset's table."""
    preset = shelf.labelled(label)
    if preset is None or table not in preset.tables:
        return gr.update()
    return gr.update(value=picture.table(preset, table), visible=True)


def followed(schedule):
    """What the dropdown of presets does when another schedule type is chosen."""
    return gr.update(value=schedule) if schedule in shelf.names() else gr.update()
