"""Windows: tables for partial denoising (img2img, inpainting, the second pass of a hires fix).

Denoise strength d starts 1 - d of the way along the preset's own curve: the levels of its largest full table.
"""

import numpy as np

from ...s4s_nodes.core.levels import along


def window_top(curve: np.ndarray, denoise: float, flow: bool) -> float:
    """The level at which this denoise strength begins."""
    return float(along(curve, 1 - denoise, flow))


def window_levels(curve: np.ndarray, denoise: float, calls: int, flow: bool) -> np.ndarray:
    """The curve's own levels for so many calls of a window, (calls + 1,)."""
    return along(curve, np.linspace(1 - denoise, 1, calls + 1), flow)


def table_name(calls: int, top: float | None = None) -> str:
    """The key of a table in its preset: a full one, or one that starts at the level `top`."""
    return f"calls{calls}" if top is None else f"calls{calls}_from{top:.4g}"
