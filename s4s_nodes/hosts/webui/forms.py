"""The forms of the tab's trainings and races: their fields, and what the fields say."""

import gradio as gr

from ...core.lists import numbers, sizes
from ...select.cfg import cfg_nodes, middle_node
from . import shelf
from .words import say


def scene() -> list:
    """The fields of inside.Scene, in its order."""
    prompts = gr.Textbox(label=say("Prompts, one per line"), lines=4, elem_id="s4s_prompts")
    negative = gr.Textbox(label=say("Negative prompt"), elem_id="s4s_negative")
    with gr.Row():
        cfg = gr.Textbox(label=say("CFG, or a range such as 3-7"), value="5", elem_id="s4s_cfg")
        width = gr.Number(label=say("Width"), value=512, precision=0, elem_id="s4s_width")
        height = gr.Number(label=say("Height"), value=512, precision=0, elem_id="s4s_height")
    return [prompts, negative, cfg, width, height]


def source() -> tuple:
    """(the button that takes the last picture's settings, the field for another picture)"""
    with gr.Accordion(label=say("Train for what you make: take these from a picture"), open=False,
                      elem_id="s4s_take"):
        last = gr.Button(say("The last picture made here"), elem_id="s4s_take_last")
        picture = gr.Image(type="pil", label=say("Or a picture with its parameters"), elem_id="s4s_take_picture")
    return last, picture


def training() -> tuple:
    """(the fields of `training_of` behind the scene's, the button Estimate, the button Train)"""
    gr.HTML(say("Learns a solver with few steps for the loaded checkpoint: it samples the prompts with many steps "
                "and adjusts a table until few steps give the same result. The checkpoint is not changed; LoRAs and "
                "hypernetworks in the prompts take part."))
    gr.HTML(say("FreeU, Perturbed-Attention Guidance and other patches of the network do not take part in a training: "
                "the preset is for the model without them, and will not run while one is on."), elem_id="s4s_without")
    name = gr.Textbox(label=say("Name of the preset"), value="my-preset", elem_id="s4s_name")
    with gr.Row():
        calls = gr.Textbox(label=say("Sampling steps, e.g. 4,6,8"), value="6", elem_id="s4s_calls")
        windows = gr.Textbox(label=say("Denoising strengths, e.g. 1,0.75,0.5"), value="1", elem_id="s4s_windows")
    with gr.Row():
        effort = gr.Radio(label=say("Effort"), choices=list(efforts()), value=say("Normal"), elem_id="s4s_effort",
                          info=say("Estimate says how long each takes here"))
        budget = gr.Number(label=say("Most network calls per table"), value=10000, precision=0, visible=False,
                           elem_id="s4s_budget")
    with gr.Accordion(label=say("More settings"), open=False):
        seeds = gr.Number(label=say("Seeds of the race"), value=8, precision=0, elem_id="s4s_race_seeds")
        more = gr.Textbox(label=say("More sizes for the same preset, e.g. 768x512,1024x1024"), elem_id="s4s_more_sizes")
        teacher = gr.Textbox(label=say("Teacher of a distilled model (Lightning, LCM): solver, schedule, calls"),
                             info=say("e.g. euler, sgm_uniform, 8; empty: the default one, for all other models"),
                             elem_id="s4s_teacher")
    effort.change(lambda chosen: gr.update(visible=efforts()[chosen] is None), inputs=[effort], outputs=[budget],
                  queue=False, show_progress=False)
    with gr.Row():
        forecast = gr.Button(say("Estimate"), elem_id="s4s_estimate")
        start = gr.Button(say("Train"), variant="primary", elem_id="s4s_train")
    return [name, calls, windows, effort, budget, seeds, more, teacher], forecast, start


def race() -> tuple:
    """(the fields of `race_of` behind the scene's, the button Race, the button that looks for presets again)"""
    gr.HTML(say("Samples unseen seeds with a preset and with all classical samplers on all schedules, with the "
                "same number of steps, and measures how far each result is from that of many steps."))
    with gr.Row():
        preset = gr.Dropdown(label=say("Preset"), choices=list(shelf.names()), value=None, elem_id="s4s_race_preset")
        again = gr.Button(say("Look for new presets"), elem_id="s4s_refresh")
    with gr.Row():
        calls = gr.Textbox(label=say("Sampling steps, e.g. 4,6,8 (empty: all tables)"), elem_id="s4s_race_calls")
        seeds = gr.Number(label=say("Seeds of the race"), value=8, precision=0, elem_id="s4s_race_count")
    with gr.Row():
        budget = gr.Number(label=say("Most network calls of the race (0: no limit)"), value=20000, precision=0,
                           elem_id="s4s_race_budget")
    samplers = gr.Textbox(label=say("More samplers of this WebUI to race, e.g. Heun, LMS; or all"),
                          elem_id="s4s_race_samplers")
    write = gr.Checkbox(label=say("Write the scores into the preset"), value=False, elem_id="s4s_race_write")
    start = gr.Button(say("Race"), variant="primary", elem_id="s4s_race")
    return [preset, calls, seeds, budget, write, samplers], start, again


def training_of(prompts, negative, cfg, width, height, name, calls, windows, effort, budget, seeds, more="",
                teacher="") -> dict:
    """What `work.training` is asked for. Raises ValueError for a field that is empty or too small."""
    chosen = efforts().get(effort, effort)
    if chosen is None:
        chosen = int(number(budget, say("Most network calls per table"), 1))
    return {**_scene_of(prompts, negative, cfg, width, height), "scales": cfg_nodes(cfg),
            "name": str(name or "").strip(), "calls": numbers(calls, int, say("Steps")),
            "windows": numbers(windows, float, say("Denoising strengths")), "budget": chosen,
            "race_seeds": int(number(seeds, say("Seeds of the race"), 2)),
            "more_sizes": sizes(more or "", say("More sizes")), **_teacher_of(str(teacher or "").strip())}


def race_of(prompts, negative, cfg, width, height, preset, calls, seeds, budget, write, samplers) -> dict:
    """What `work.race` is asked for. Raises ValueError as `training_of`."""
    return {**_scene_of(prompts, negative, cfg, width, height), "label": preset or "",
            "calls": numbers(calls, int, say("Steps"), wanted=False),
            "seeds": int(number(seeds, say("Seeds of the race"), 2)),
            "budget": int(number(budget, say("Most network calls of the race (0: no limit)"))), "write": bool(write),
            "samplers": tuple(name.strip() for name in str(samplers or "").split(",") if name.strip())}


def efforts() -> dict:
    """{words: the trainer's name of a budget}; None for a number of one's own."""
    return {say("Quick"): "quick", say("Normal"): "normal", say("Thorough"): "thorough", say("Custom number"): None}


def _teacher_of(text: str) -> dict:
    """The trainer's settings of a teacher, named as the host or the trainer does. Raises ValueError."""
    if not text:
        return {}
    *names, calls = (part.strip().lower().replace(" ", "_").replace("+", "p") for part in text.split(","))
    if len(names) != 2 or not calls.isdecimal():
        raise ValueError(f"{say('Teacher')}: {text!r} is not a teacher. Write a solver, a schedule and a number of "
                         "calls, such as euler, sgm_uniform, 8")
    return {"teacher": ", ".join(names), "teacher_calls": int(calls)}


def _scene_of(prompts, negative, cfg, width, height) -> dict:
    return {"prompts": tuple(line.strip() for line in str(prompts or "").splitlines() if line.strip()),
            "negative": negative or "", "cfg": middle_node(cfg_nodes(cfg)),
            "width": int(number(width, say("Width"), 8)), "height": int(number(height, say("Height"), 8))}


def number(value, label: str, least: float = 0) -> float:
    """The number of a field. Raises ValueError for an empty one, or a number that is too small."""
    if value is None or value == "" or float(value) < least:
        raise ValueError(f"{label}: use at least {least}, not {'nothing' if value in (None, '') else f'{value:g}'}")
    return float(value)
