"""The schedules a classical solver runs on: all that suit a model."""

from collections.abc import Callable
from functools import partial

import numpy as np

from ...s4s_nodes.core import schedules
from ...s4s_nodes.core.levels import along, starts_at
from ..source import Source

GITS_SHOWN = ("gits_1.00", "gits_1.10", "gits_1.20", "gits_1.30")      # of 15 coefficients; the hosts' default is 1.20
# those of model families, and 2 and 1.5 below them; 3.16 is e^1.15, of Flux, Qwen-Image and Krea 2
SHIFTS = (1.5, 2.0, 3.0, 3.16, 5.0, 6.0, 7.0, 8.0, 12.0)
WHOLE_LISTS = {"ays_11_sd1": "ays_sd1", "ays_11_sdxl": "ays_sdxl", "ays_32_sd1": "ays_32_sd1",
               "ays_32_sdxl": "ays_32_sdxl"}            # of A1111 and Forge
# those that a training does not try its start on: docs/constants.md
NO_START_SCHEDULES = ("linear_quadratic", "laplace", "bong_tangent", "ltxv", "flux2", *WHOLE_LISTS,
                      *(f"shift_{shift:g}" for shift in (3.16, 6, 7, 8, 12)))


def schedules_for(source: Source, top: float | None = None) -> dict:
    """name -> (calls -> levels): every schedule that suits the model, or its part from the level `top` on."""
    top = top or source.sigma_max
    levels = np.append(source.levels[source.levels < top], top)
    known: dict[str, Callable] = {
        rule.__name__: partial(rule, sigma_min=float(levels[0]), sigma_max=top)
        for rule in (schedules.karras, schedules.exponential, schedules.kl_optimal)}
    known |= {rule.__name__: partial(rule, levels=levels)
              for rule in (schedules.time_uniform, schedules.time_quadratic, schedules.sgm_uniform, schedules.simple,
                           schedules.beta)}
    known |= {"beta57": partial(schedules.beta, levels=levels, alpha=0.5, beta=0.7),
              "linear_quadratic": partial(schedules.linear_quadratic, sigma_max=top)}
    if source.flow:
        known.update({f"shift_{shift:g}": partial(schedules.linear_flow, shift=shift) for shift in SHIFTS},
                     bong_tangent=schedules.bong_tangent, ltxv=schedules.ltxv, flux2=schedules.flux2)
        published = ["oss_flux", "oss_wan", "oss_chroma"]
    else:
        known["laplace"] = partial(schedules.laplace, sigma_min=float(levels[0]), sigma_max=top)
        known.update({name: partial(schedules.whole_list, grid) for name, grid in WHOLE_LISTS.items()})
        published = ["ays_sd1", "ays_sdxl", *GITS_SHOWN]
    known.update({name: partial(schedules.published, name) for name in published})
    return {name: levels_for for name, levels_for in known.items() if _starts_at(top, levels_for)}


def window_levels(curve: np.ndarray, denoise: float, calls: int, flow: bool) -> np.ndarray:
    """Levels (calls + 1,) of a window, for partial denoising (img2img, inpainting, the second pass of a hires fix).

    Denoise strength d starts 1 - d of the way along the preset's own curve: the levels of its largest full table.
    """
    return along(curve, np.linspace(1 - denoise, 1, calls + 1), flow)


def _starts_at(top: float, levels_for: Callable) -> bool:
    try:
        return starts_at(levels_for(4)[0], top)     # a published grid is for models whose highest level is its own
    except ValueError:                      # fewer of the model's levels lie below the top than it has to choose from
        return False
