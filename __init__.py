"""S4S as one package, under the name that whoever opens it gives it; inside all imports are relative.

ComfyUI names it after its folder in custom_nodes, WebUI's script s4s_webui_clone, pip and Python's users s4s:

    from s4s import load, sample, bundled
"""

from importlib import import_module
from importlib.util import find_spec

if __name__ != "s4s" and __package__ and find_spec("comfy_api"):    # ComfyUI, not pytest, which gives no package
    from .s4s_nodes.hosts.comfyui.extension import comfy_entrypoint

    WEB_DIRECTORY = "./web"                         # its docs/ are the nodes' help pages

_PUBLIC = {                                         # name: the module it is read from when it is first asked for
    "__version__": "s4s_nodes", "Model": "s4s_nodes.core", "Preset": "s4s_nodes.core", "Table": "s4s_nodes.core",
    "sample": "s4s_nodes.core", "sample_table": "s4s_nodes.core", "load": "s4s_nodes.core.preset_file",
    "save": "s4s_nodes.core.preset_file", "bundled": "training.demo_models.source",
}


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


def __dir__() -> list:
    return sorted([*globals(), *_PUBLIC])
