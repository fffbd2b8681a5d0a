"""ComfyUI's door: the host imports this folder, under a name of its own, from custom_nodes."""

from importlib.util import find_spec

if __package__ and find_spec("comfy_api"):          # pytest imports this file too, where there is no host
    from .s4s_nodes.comfyui.extension import comfy_entrypoint

    WEB_DIRECTORY = "./web"                         # its docs/ are the nodes' help pages
