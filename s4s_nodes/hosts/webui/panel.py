"""The accordion in txt2img and img2img: which preset runs at these settings, a choice of another; and its script."""

from functools import partial
from html import escape

import gradio as gr
from modules import scripts

from ... import picture
from ...core.preset_file import describe
from ...library import tables_of
from . import labels, last_picture, outlook, pasted, shelf
from .labels import BY_SCHEDULE
from .words import say

# charts are black on white: inverted in dark mode, with their colors
DARK = ("<style>.dark [id^=s4s_][id$=_image] img {filter: invert(.88) hue-rotate(180deg)}</style>")
_QUICK = {"queue": False, "show_progress": False}


class S4SNotice(scripts.Script):
    """The warning shown before Generate, a line below the sampler, and a button that fixes it."""

    section, create_group = "sampler", False            # if the host builds it; in older hosts with the accordions

    def title(self):
        return "S4S notice"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        tab = "img2img" if is_img2img else "txt2img"
        gr.HTML(value="", visible=False, elem_id=f"s4s_{tab}_warning")
        gr.Button(value="", visible=False, elem_id=f"s4s_{tab}_mend")
        return []


class S4SScript(scripts.Script):
    """Its arguments, also over the API: a preset (its name or schedule type; else Schedule type says it), strict, the
    tables of a pasted picture."""

    def title(self):
        return "S4S"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        """The events are added by `wire`, when the whole page is there."""
        tab = "img2img" if is_img2img else "txt2img"
        with gr.Accordion(label=say("S4S presets"), open=False, elem_id=f"s4s_{tab}"):
            with gr.Row():
                preset = gr.Dropdown(label=say("Preset for these pictures"), value=BY_SCHEDULE,
                                     choices=[BY_SCHEDULE, pasted.CHOICE, *shelf.names()],
                                     elem_id=f"s4s_{tab}_preset")
                strict = gr.Checkbox(label=say("Only on the model it was learned on (strict)"), value=False,
                                     elem_id=f"s4s_{tab}_strict")
            gr.HTML(value=escape(say("Choose the sampler S4S and a schedule type S4S; the steps select the table.")),
                    elem_id=f"s4s_{tab}_outlook")
            gr.Textbox(value="", visible=False, elem_id=f"s4s_{tab}_shown")
            gr.Dropdown(label=say("Table"), choices=[], value=None, elem_id=f"s4s_{tab}_table")
            gr.HTML(value=DARK)
            gr.Image(type="pil", interactive=False, show_label=False, visible=False, elem_id=f"s4s_{tab}_image")
            gr.HTML(value="" if shelf.names() else escape(say("There is no preset.")), elem_id=f"s4s_{tab}_about")
            tables = gr.Textbox(value="", visible=False, elem_id=f"s4s_{tab}_pasted")
        self.infotext_fields = [(preset, outlook.choice), (tables, pasted.tables)]
        return [preset, strict, tables]

    def process(self, p, preset=BY_SCHEDULE, strict=False, tables="", *others):
        """What the panel chooses for this generation."""
        p.s4s_preset = "" if preset in (None, BY_SCHEDULE) else preset
        p.s4s_strict, p.s4s_pasted = bool(strict), tables

    def postprocess(self, p, processed, *arguments):
        """The tab can train for what was just made."""
        last_picture.remember(processed)

    def before_process(self, p, *arguments):
        """XYZ cells share one dictionary: what the last cell said of itself must not stand in this one's infotext."""
        written = p.extra_generation_params
        for key in labels.OF_RUN:
            written.pop(key, None)
        for key in ("Schedule type", labels.hires_schedule(written)):
            if shelf.is_ours(written.get(key)):
                del written[key]


def wire(page, components: dict) -> None:
    """Let both panels follow their page's controls. components: {elem_id: component} of the whole page."""
    for tab in ("txt2img", "img2img"):
        controls = {name: components[id_] for name, id_ in outlook.controls(tab).items() if id_ in components}
        part = {name: components.get(f"s4s_{tab}_{name}") for name in (
            "warning", "mend", "preset", "strict", "pasted", "outlook", "shown", "table", "image", "about")}
        if None in part.values() or "steps" not in controls:
            continue                        # a host that hides the script
        controls |= {name: part[name] for name in ("preset", "strict", "pasted")}
        followed = ("warning", "mend", "outlook", "shown", "table", "image", "about")
        event = {"fn": partial(follow, tab, tuple(controls)), "inputs": [part["shown"], *controls.values()],
                 "outputs": [part[name] for name in followed], **_QUICK}
        changing = [control for name, control in controls.items() if name != "prompt"]      # that one with each letter
        done = components.get(f"html_info_{tab}")             # a checkpoint may have been loaded for a picture
        for control in (*changing, *([done] if done is not None else [])):
            control.change(**event)
        page.load(**event)
        part["mend"].click(partial(mend, tab, tuple(controls)), inputs=list(controls.values()),
                           outputs=[controls["sampling"], controls["steps"]], **_QUICK)
        part["table"].change(draw, inputs=[part["shown"], part["table"]], outputs=[part["image"]], **_QUICK)


def follow(tab: str, names: tuple, shown: str, *values) -> tuple:
    """Updates of warning, its button, outlook, what is shown, tables, picture and description for the controls' values.

    shown: the schedule type and the table that the panel opened last; what a user opened beside it stays.
    """
    seen = _outlook(tab, names, values)
    warning = f"<p>⚠ S4S: {_lines(seen.warning)}</p>"
    mended = (say("Set Sampling steps to {}").format(seen.steps) if seen.steps else
              say("Use the sampler S4S") if seen.sampling else "")
    head = (gr.update(value=warning, visible=bool(seen.warning)),
            gr.update(value=mended, visible=bool(mended and seen.warning)), _lines(seen.text))
    here = "" if seen.preset is None else f"{shelf.label_of(seen.preset)}\n{seen.preset.short_hash} {seen.table}"
    if here == shown:
        return *head, shown, *[gr.update()] * 3
    if seen.preset is None:
        return *head, here, gr.update(choices=[], value=None), gr.update(value=None, visible=False), ""
    return (*head, here, gr.update(choices=tables_of(seen.preset, ()), value=seen.table),
            gr.update(value=picture.table(seen.preset, seen.table), visible=True), description(seen.preset))


def mend(tab: str, names: tuple, *values) -> tuple:
    """Updates of sampler and steps, so that a table runs."""
    seen = _outlook(tab, names, values)
    return (gr.update(value=seen.sampling) if seen.sampling else gr.update(),
            gr.update(value=seen.steps) if seen.steps else gr.update())


def _outlook(tab: str, names: tuple, values) -> outlook.Outlook:
    shown = dict(zip(names, values))
    if shown.get("preset") == BY_SCHEDULE:
        shown["preset"] = ""
    return outlook.of(outlook.settings_of(shown), tab == "img2img")


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")


def description(preset) -> str:
    return f'<pre style="white-space: pre-wrap; max-height: 18em; overflow: auto">{escape(describe(preset))}</pre>'


def draw(shown: str, table):
    preset = shelf.preset_of(shown.partition("\n")[0])
    if preset is None or table not in preset.tables:
        return gr.update()
    return gr.update(value=picture.table(preset, table), visible=True)
