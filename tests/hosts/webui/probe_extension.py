"""A second extension, put beside S4S by the tests: over HTTP it presses Reload UI and tells what a user would see."""

import importlib
import time

from modules import script_callbacks, sd_samplers, shared

try:
    from modules import sd_schedulers
except ImportError:
    sd_schedulers = None

LOADED = time.time()


def add_routes(demo, app):
    @app.get("/s4s-test/rows")
    def rows():
        shown = getattr(sd_samplers, "visible_samplers", lambda: sd_samplers.samplers)      # ersatzForge: all
        return {"samplers": [data.name for data in shown()], "loaded": LOADED,
                "schedules": [row.label for row in getattr(sd_schedulers, "schedulers", [])],
                "settings": {key: getattr(shared.opts, key) for key in vars(shared.opts)["data_labels"]
                             if key.startswith("s4s_")}}

    @app.post("/s4s-test/reload")
    def reload_ui():
        shared.state.request_restart()
        return {}


def add_work(demo, app):
    def worked(room, wish, work):
        """What a button of the tab does; "prompts" and "calls" are lists in JSON."""
        inside = importlib.import_module("s4s_webui_clone.s4s_nodes.hosts.webui.inside")
        module, show = importlib.import_module(f"s4s_webui_clone.s4s_nodes.hosts.webui.{room}"), inside.Show()
        asked = {key: tuple(value) if isinstance(value, list) else value for key, value in wish.items()}
        try:
            made = work(module, asked, show)
        except ValueError as error:
            return {"error": str(error)}
        scores = None if made is None else {name: made.preset.score(name) for name in made.preset.scores}
        return {"words": show.messages, "images": len(getattr(made, "pictures", None) or []),
                "previewed": show.picture is not None, "scores": scores}

    @app.post("/s4s-test/train")
    def train(wish: dict):
        return worked("work", wish, lambda room, asked, show: room.training(**asked)(show))

    @app.post("/s4s-test/forecast")
    def forecast(wish: dict):
        return worked("work", wish, lambda room, asked, show: room.forecast(**asked)(show))

    @app.post("/s4s-test/race")
    def race(wish: dict):
        return worked("work", wish, lambda room, asked, show: room.race(**asked)(show))


script_callbacks.on_app_started(add_work)
script_callbacks.on_app_started(add_routes)
