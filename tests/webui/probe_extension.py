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
        return {"samplers": [data.name for data in sd_samplers.visible_samplers()], "loaded": LOADED,
                "schedules": [row.label for row in getattr(sd_schedulers, "schedulers", [])],
                "settings": {key: getattr(shared.opts, key) for key in vars(shared.opts)["data_labels"]
                             if key.startswith("s4s_")}}

    @app.post("/s4s-test/reload")
    def reload_ui():
        shared.state.request_restart()
        return {}


def add_training(demo, app):
    @app.post("/s4s-test/train")
    def train(wish: dict):
        """What the tab's button does."""
        room = importlib.import_module("s4s_webui_clone.s4s_nodes.webui.train")
        told = []
        try:
            made = room.train(room.Wish(**{**wish, "prompts": tuple(wish["prompts"])}), told.append)
        except ValueError as error:
            return {"error": str(error)}
        return {"words": made.words, "told": told, "images": len(made.images),
                "scores": None if made.preset is None else made.preset.scores}


script_callbacks.on_app_started(add_training)
script_callbacks.on_app_started(add_routes)
