"""The tab S4S: train a preset for the loaded checkpoint, race one on it, or look after those there are."""

from collections.abc import Callable
from html import escape

import gradio as gr
from modules import script_callbacks

from . import collection, dropdowns, forms, jobs, last_picture, panel
from .words import say

# every open page follows; gradio 4 would let only one do so at a time
_MANY = {"concurrency_limit": None} if not gr.__version__.startswith("3.") else {}


def register() -> None:
    script_callbacks.on_ui_tabs(tabs)


def tabs() -> list:
    """[(page, title, id)], as the host wants it."""
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs():
        with gr.Tab(say("Train and race"), elem_id="s4s_work_tab"), gr.Row():
            with gr.Column():
                scene = forms.scene()
                last, picture = forms.source()
                with gr.Tabs():
                    with gr.Tab(say("Train"), elem_id="s4s_train_tab"):
                        wish, forecast, start = forms.training()
                    with gr.Tab(say("Race"), elem_id="s4s_race_tab"):
                        entry, race, again = forms.race()
            with gr.Column():
                notice, stop, progress = _progress()
        with gr.Tab(say("Presets"), elem_id="s4s_presets_tab"):
            mine = collection.build()
        lists = dropdowns.on_this_page()
        fresh = {"fn": lambda: [collection.listing(), *dropdowns.refreshed(lists)], "inputs": [],
                 "outputs": [mine["list"], *lists.values()]}
        follow = {"fn": jobs.follow, "inputs": [], "outputs": progress, "show_progress": False, **_MANY}
        for button, begin, fields in ((forecast, start_estimate, wish), (start, start_training, wish),
                                      (race, start_race, entry)):
            button.click(begin, inputs=[*scene, *fields], outputs=[notice], queue=False).then(**follow).then(**fresh)
        again.click(**fresh)
        page.load(**fresh)
        page.load(**follow).then(**fresh)           # a training that this page has found running
        page.load(lambda: asked_before(len(scene) + len(wish)), inputs=[], outputs=[*scene, *wish], queue=False)
        stop.click(jobs.JOBS.interrupt, inputs=[], outputs=[], queue=False)
        taken = {"outputs": [*scene, *wish[1:3], notice], "queue": False}
        last.click(lambda: fill_in(last_picture.of_last), inputs=[], **taken)
        picture.change(lambda shown: fill_in(lambda: last_picture.of_picture(shown), shown), inputs=[picture], **taken)
        collection.wire(mine, lists)
        panel.wire(page, dropdowns.host_page)
    return [(page, "S4S", "s4s_tab")]


def _progress() -> tuple:
    """(what was refused, the button Interrupt, what `jobs.follow` shows)"""
    notice = gr.HTML(value="", elem_id="s4s_notice")
    stop = gr.Button(say("Interrupt"), elem_id="s4s_interrupt")
    bar = gr.HTML(value="", elem_id="s4s_bar")
    report = gr.Textbox(label=say("Report"), lines=12, interactive=False, elem_id="s4s_report")
    live = gr.Image(type="pil", label=say("Learned so far, and the teacher"), interactive=False, visible=False,
                    show_label=False, elem_id="s4s_live")       # gradio 4 lays it over the picture, whose rows say it
    sheet = gr.Image(type="pil", label=say("Before and after: the same seeds at equal steps"), interactive=False,
                     visible=False, show_label=False, elem_id="s4s_sheet")      # a gallery would crop a tall one
    return notice, stop, [bar, report, live, sheet]


def start_estimate(*asked) -> str:
    return queue_job(say("Estimate"), lambda work: work.forecast(**forms.training_of(*asked)))


def start_training(*asked) -> str:
    """The same of a training, whose fields stay as they are for a page that is loaded again."""
    refused = queue_job(f"{say('Train')}: {asked[5]}", lambda work: work.training(**forms.training_of(*asked)))
    if not refused:
        jobs.JOBS.asked = asked
    return refused


def asked_before(fields: int) -> list:
    """Updates of the training's fields as they were at its start, so that a stopped one can be resumed."""
    asked = jobs.JOBS.asked
    return [gr.update(value=value) for value in asked] if len(asked) == fields else [gr.update()] * fields


def start_race(*asked) -> str:
    return queue_job(f"{say('Race')}: {asked[5]}", lambda work: work.race(**forms.race_of(*asked)))


def queue_job(title: str, prepare: Callable) -> str:
    """Nothing where the work was taken, else why it was refused."""
    try:
        jobs.JOBS.add(title, prepare)
    except ValueError as error:
        return jobs.warning(str(error))
    return ""


def fill_in(find, shown=True) -> list:
    """Updates of the fields for the settings of a picture, and words."""
    if shown is None:                       # the picture was taken away
        return [gr.update()] * 8
    try:
        *values, note = last_picture.fields(find())
    except ValueError as error:
        return [*[gr.update()] * 7, jobs.warning(str(error))]
    return [*(gr.update() if value is None else gr.update(value=value) for value in values), escape(note)]
