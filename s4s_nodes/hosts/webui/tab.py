"""The tab S4S: train a preset for the loaded checkpoint, race one on it, or look after those there are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec

import gradio as gr
from modules import script_callbacks, shared

from ..lists import numbers
from . import collection, dropdowns, panel, shelf
from .words import say

MODES = {"auto": "auto", "gradient": "gradient", "forward-only": "forward"}      # as read here, as the trainer takes it


def register() -> None:
    """Have the host build the tab with its page."""
    script_callbacks.on_ui_tabs(tabs)


def tabs() -> list:
    """[(page, title, id)], as the host wants it."""
    with gr.Blocks(analytics_enabled=False) as page, gr.Tabs():
        with gr.Tab(say("Train and race"), elem_id="s4s_work_tab"), gr.Row():
            with gr.Column():
                scene = _scene()
                with gr.Tabs():
                    with gr.Tab(say("Train"), elem_id="s4s_train_tab"):
                        wish, forecast, start = _training()
                    with gr.Tab(say("Race"), elem_id="s4s_race_tab"):
                        entry, race, again = _race()
            with gr.Column():
                stop, seen = _seen()
        with gr.Tab(say("Presets"), elem_id="s4s_presets_tab"):
            mine = collection.built()
        lists = dropdowns.on_this_page()
        fresh = {"fn": lambda: [collection.listed(), *dropdowns.refreshed(lists)], "inputs": [],
                 "outputs": [mine["list"], *lists.values()]}
        forecast.click(forecasted, inputs=[*scene, *wish], outputs=seen)
        start.click(trained, inputs=[*scene, *wish], outputs=seen).then(**fresh)
        again.click(**fresh)
        page.load(**fresh)
        race.click(raced, inputs=[*scene, *entry], outputs=seen).then(**fresh)
        stop.click(lambda: shared.state.interrupt(), inputs=[], outputs=[], queue=False)
        collection.wired(mine, lists)
        panel.wired(page, dropdowns.whole_page())
    return [(page, "S4S", "s4s_tab")]


def _seen() -> tuple:
    """(the button Interrupt, what `worked` shows)"""
    stop = gr.Button(say("Interrupt"), elem_id="s4s_interrupt")
    report = gr.Textbox(label=say("Report"), lines=12, interactive=False, elem_id="s4s_report")
    live = gr.Image(type="pil", label=say("Learned so far, and the teacher"), interactive=False, visible=False,
                    elem_id="s4s_live")
    gallery = gr.Gallery(label=say("Pictures"), elem_id="s4s_gallery")
    return stop, [report, live, gallery]


def _scene() -> list:
    """The controls of inside.Scene, in its order."""
    prompts = gr.Textbox(label=say("Prompts, one a line"), lines=4, elem_id="s4s_prompts")
    negative = gr.Textbox(label=say("Negative prompt"), elem_id="s4s_negative")
    with gr.Row():
        cfg = gr.Number(label="CFG", value=5.0, elem_id="s4s_cfg")
        width = gr.Number(label=say("Width"), value=512, precision=0, elem_id="s4s_width")
        height = gr.Number(label=say("Height"), value=512, precision=0, elem_id="s4s_height")
    return [prompts, negative, cfg, width, height]


def _training() -> tuple:
    """(the controls of `trained` behind the scene's, the button Estimate, the button Train)"""
    gr.HTML(say("Learns a solver of few steps for the loaded checkpoint: it samples the prompts in many steps and "
                "turns a table until few steps give the same. The checkpoint is not changed; LoRAs in the prompts "
                "take part."))
    name = gr.Textbox(label=say("Name of the preset"), value="my-preset", elem_id="s4s_name")
    with gr.Row():
        calls = gr.Textbox(label=say("Sampling steps, e.g. 4,6,8"), value="6", elem_id="s4s_calls")
        windows = gr.Textbox(label=say("Denoising strengths, e.g. 1,0.75,0.5"), value="1", elem_id="s4s_windows")
    mode = gr.Radio(label=say("Mode"), choices=list(MODES), value="auto", elem_id="s4s_mode", info=say(
        "forward-only asks for nothing but sampling; gradient goes back through the checkpoint, which is checked "
        "first: slower; auto is forward-only"))
    with gr.Row():
        budget = gr.Number(label=say("Most network calls per table"), value=10000, precision=0, elem_id="s4s_budget")
        seeds = gr.Number(label=say("Seeds of the race"), value=8, precision=0, elem_id="s4s_race_seeds")
    with gr.Row():
        forecast = gr.Button(say("Estimate"), elem_id="s4s_estimate")
        start = gr.Button(say("Train"), variant="primary", elem_id="s4s_train")
    return [name, calls, windows, mode, budget, seeds], forecast, start


def _race() -> tuple:
    """(the controls of `raced` behind the scene's, the button Race, the button that looks for presets again)"""
    gr.HTML(say("Samples unseen seeds with a preset and with the classical samplers and schedules that usually win, "
                "all in the same number of steps, and measures how far each ends from what many steps give."))
    with gr.Row():
        preset = gr.Dropdown(label=say("Preset"), choices=list(shelf.names()), value=None, elem_id="s4s_race_preset")
        again = gr.Button(say("Look for new presets"), elem_id="s4s_refresh")
    with gr.Row():
        calls = gr.Textbox(label=say("Sampling steps, e.g. 4,6,8 (empty: all tables)"), elem_id="s4s_race_calls")
        seeds = gr.Number(label=say("Seeds of the race"), value=8, precision=0, elem_id="s4s_race_count")
    with gr.Row():
        opponents = gr.Number(label=say("Classical pairs that take part, at most (0: all that count)"), value=0,
                              precision=0, elem_id="s4s_race_opponents")
        budget = gr.Number(label=say("Most network calls of the race (0: no limit)"), value=20000, precision=0,
                           elem_id="s4s_race_budget")
    write = gr.Checkbox(label=say("Write the scores into the preset"), value=False, elem_id="s4s_race_write")
    start = gr.Button(say("Race"), variant="primary", elem_id="s4s_race")
    return [preset, calls, seeds, opponents, budget, write], start, again


def forecasted(*asked) -> Iterator[tuple]:
    """What a training would cost. A generator function, as the next two: gradio knows no other."""
    yield from worked(lambda room, show: room("work").forecast(show, **_wish(*asked)))


def trained(*asked) -> Iterator[tuple]:
    """A training: the rows of the report, the live picture, the pictures, again and again."""
    yield from worked(lambda room, show: room("work").train(show, **_wish(*asked)))


def _wish(prompts, negative, cfg, width, height, name, calls, windows, mode, budget, seeds) -> dict:
    return {**_scene_of(prompts, negative, cfg, width, height), "name": name.strip(),
            "calls": numbers(calls, int, say("Steps")),
            "windows": numbers(windows, float, say("Denoising strengths")), "mode": MODES[mode],
            "budget": int(number(budget, say("Most network calls per table"), 1)),
            "race_seeds": int(number(seeds, say("Seeds of the race"), 2))}


def raced(prompts, negative, cfg, width, height, preset, calls, seeds, opponents, budget, write) -> Iterator[tuple]:
    """A race, shown in the same way."""
    yield from worked(lambda room, show: room("work").race(
        show, **_scene_of(prompts, negative, cfg, width, height), label=preset or "",
        calls=numbers(calls, int, say("Steps"), wanted=False),
        seeds=int(number(seeds, say("Seeds of the race"), 2)),
        opponents=int(number(opponents, say("Classical pairs that take part, at most (0: all that count)"))),
        budget=int(number(budget, say("Most network calls of the race (0: no limit)"))), write=bool(write)))


def _scene_of(prompts, negative, cfg, width, height) -> dict:
    return {"prompts": tuple(line.strip() for line in prompts.splitlines() if line.strip()), "negative": negative,
            "cfg": number(cfg, "CFG"), "width": int(number(width, say("Width"), 8)),
            "height": int(number(height, say("Height"), 8))}


def number(value, label: str, least: float = 0) -> float:
    """The number of a field. Raises ValueError for an empty one, or a number that is too small."""
    if value is None or value < least:
        raise ValueError(f"{label}: {'nothing' if value is None else value} is given, at least {least} is wanted")
    return float(value)


def worked(work: Callable) -> Iterator[tuple]:
    """(report, live picture, pictures) each second while work(room, show) runs, then for good.

    room(name) is a module of this package: the trainer is read when it is wanted, not at the host's start.
    """
    def room(name):
        return import_module(f".{name}", __package__)
    show, done = room("inside").Show(), []

    def run():
        try:
            done.append(work(room, show))
        except Exception as error:
            refused = isinstance(error, ValueError)
            show.words.append(shelf.without_places(str(error) if refused else f"{type(error).__name__}: {error}"))
            if not refused:
                raise
    runner, drawn = threading.Thread(target=on_the_hosts_thread, args=(run,)), None
    runner.start()
    while runner.is_alive():
        time.sleep(1)
        fresh, drawn = show.picture is not drawn, show.picture
        yield show.text, gr.update(value=drawn, visible=True) if fresh else gr.update(), gr.update()
    images = getattr(done[0], "pictures", None) or [] if done else []
    yield "\n".join(show.words), gr.update(value=None, visible=False), images


def on_the_hosts_thread(work) -> None:
    """Run where the host samples: Forge has one thread for that, others do it anywhere."""
    if find_spec("modules_forge") and find_spec("modules_forge.main_thread"):
        import_module("modules_forge.main_thread").run_and_wait_result(work)
    else:
        work()
