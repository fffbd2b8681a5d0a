"""S4S: learned few-call solvers for diffusion models. `core` is pure; `hosts` has what ComfyUI and WebUI open."""

__version__ = "0.4.0"
