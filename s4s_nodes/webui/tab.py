"""The tab S4S: train a preset for the loaded checkpoint."""

from __future__ import annotations

import threading
import time
from importlib import import_module
from importlib.util import find_spec

import gradio as gr
from modules import script_callbacks, shared

from .words import say


def register() -> None:
    """Have the host build the tab with its page."""
    script_callbacks.on_ui_tabs(tabs)


def tabs() -> list:
    """[(page, title, id)], as the host wants it."""
    with gr.Blocks(analytics_enabled=False) as page:
        gr.HTML(say("Learns a solver of few steps for the loaded checkpoint: it samples the prompts in many steps and "
                    "turns a table until few steps give the same. The checkpoint is not changed. Forward-only: it "
                    "works on whatever the host can sample, LoRAs in the prompts included."))
        with gr.Row():
            with gr.Column():
                inputs = _inputs()
            with gr.Column():
                with gr.Row():
                    start = gr.Button(say("Train"), variant="primary", elem_id="s4s_train")
                    stop = gr.Button(say("Interrupt"), elem_id="s4s_interrupt")
                report = gr.Textbox(label=say("Report"), lines=14, interactive=False, elem_id="s4s_report")
                gallery = gr.Gallery(label=say("Pictures of the new preset"), elem_id="s4s_gallery")
        start.click(trained, inputs=inputs, outputs=[report, gallery])
        stop.click(lambda: shared.state.interrupt(), inputs=[], outputs=[], queue=False)
    return [(page, "S4S", "s4s_tab")]


def _inputs() -> list:
    """The controls, in the order of `trained`'s arguments."""
    prompts = gr.Textbox(label=say("Prompts, one a line"), lines=4, elem_id="s4s_prompts")
    negative = gr.Textbox(label=say("Negative prompt"), elem_id="s4s_negative")
    name = gr.Textbox(label=say("Name of the preset"), value="my-preset", elem_id="s4s_name")
    with gr.Row():
        calls = gr.Textbox(label=say("Sampling steps, e.g. 4,6,8"), value="6", elem_id="s4s_calls")
        windows = gr.Textbox(label=say("Denoising strengths, e.g. 1,0.75,0.5"), value="1", elem_id="s4s_windows")
        cfg = gr.Number(label="CFG", value=5.0, elem_id="s4s_cfg")
    with gr.Row():
        width = gr.Number(label=say("Width"), value=512, precision=0, elem_id="s4s_width")
        height = gr.Number(label=say("Height"), value=512, precision=0, elem_id="s4s_height")
        budget = gr.Number(label=say("Most network calls per table"), value=10000, precision=0, elem_id="s4s_budget")
        seeds = gr.Number(label=say("Seeds of the race"), value=8, precision=0, elem_id="s4s_race_seeds")
    return [prompts, negative, name, calls, windows, cfg, width, height, budget, seeds]


def trained(prompts, negative, name, calls, windows, cfg, width, height, budget, seeds):
    """(report, pictures) again and again while a training runs, then for good."""
    lines, done = [], {}

    def work():
        try:
            trainer = import_module(".train", __package__)      # the trainer is read when it is wanted, not at start
            wish = trainer.Wish(name, tuple(line.strip() for line in prompts.splitlines() if line.strip()), negative,
                                cfg, int(width), int(height), numbers(calls, int), numbers(windows, float),
                                int(budget), int(seeds))
            done["outcome"] = trainer.train(wish, lines.append)
        except Exception as error:
            lines.append(f"{type(error).__name__}: {error}")
            if not isinstance(error, ValueError):
                raise
    runner = threading.Thread(target=on_the_hosts_thread, args=(work,))
    runner.start()
    while runner.is_alive():
        time.sleep(1)
        yield "\n".join(lines[-3:]), []
    outcome = done.get("outcome")
    yield "\n".join(lines[-1:] if outcome is None else outcome.words), [] if outcome is None else outcome.images


def on_the_hosts_thread(work) -> None:
    """Run where the host samples: Forge has one thread for that, others do it anywhere."""
    if find_spec("modules_forge") and find_spec("modules_forge.main_thread"):
        import_module("modules_forge.main_thread").run_and_wait_result(work)
    else:
        work()


def numbers(text: str, kind: type) -> tuple:
    """The numbers of a list such as "4,5,6". Raises ValueError in words."""
    try:
        return tuple(kind(part) for part in str(text).split(",") if part.strip())
    except ValueError:
        raise ValueError(f"{text!r} is not a list of {'whole ' if kind is int else ''}numbers such as "
                         f"{'4,6,8' if kind is int else '1,0.75,0.5'}") from None
