"""A stand-in for ComfyUI: what the adapter of the nodes that work meets; tests/hosts/comfyui runs the real host."""

import sys
from types import ModuleType
from typing import ClassVar
from unittest.mock import MagicMock

PARTS = ("comfy", "comfy.utils", "comfy.sample", "comfy.samplers", "comfy.model_management", "comfy.model_sampling",
         "comfy.k_diffusion", "comfy.ldm", "comfy.ldm.modules", "comfy.ldm.modules.attention", "comfy_execution",
         "comfy_execution.utils", "comfy_api", "comfy_api.latest", "folder_paths", "latent_preview")


class Part(ModuleType):
    """A module of the host whose every name is there."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return MagicMock(name=f"{self.__name__}.{name}")


class ProgressBar:
    """The newer host's, which sends no step back. sent: the shares that all bars have sent."""

    sent: ClassVar[list] = []

    def __init__(self, total):
        self.current, self.last = 0, -1

    def update_absolute(self, value, total, preview=None):
        self.current = value
        if value > self.last or value >= total:
            self.last = value
            self.sent.append(value / total)


def install(monkeypatch, models, output) -> None:
    """The host's modules, for the length of a test."""
    made = {name: Part(name) for name in PARTS}
    for name, part in made.items():
        monkeypatch.setitem(sys.modules, name, part)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(made[parent], child, part)
    made["comfy.samplers"].CFGGuider = made["comfy.samplers"].Sampler = object
    made["comfy_api.latest"].io = MagicMock(ComfyNode=object)
    made["comfy_execution.utils"].get_executing_context = lambda: None
    made["comfy.utils"].ProgressBar = ProgressBar
    paths = made["folder_paths"]
    paths.get_folder_paths, paths.get_output_directory = lambda name: [str(models / name)], lambda: str(output)
    for name in [name for name in sys.modules if name.startswith("s4s.s4s_nodes.hosts.comfyui")]:
        monkeypatch.delitem(sys.modules, name)
