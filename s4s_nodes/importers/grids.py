"""What files of diff-sampler's family of repositories (DyWeight, EPD, GITS) hold, and the grids that they only name."""

from __future__ import annotations

import numpy as np

from ..core import Model
from . import clock, models
from .limits import shown
from .restricted import Stub, UnreadableFile, array


def of(settings: dict, points: int, model: Model) -> np.ndarray:
    """The grid of `points` levels that a predictor's settings mean: the one it stored, else by schedule_type.

    Raises UnreadableFile for settings that mean none.
    """
    kept = array(settings.get("t_steps"))
    if kept is not None and kept.shape == (points,):
        return kept
    kind, rho = settings.get("schedule_type") or "polynomial", settings.get("schedule_rho")
    rho = 7.0 if rho is None else rho
    if not isinstance(kind, str) or kind not in _KINDS or not isinstance(rho, (int, float)) or not 0.1 <= rho <= 100:
        raise UnreadableFile(f"was learned on a grid {shown(kind)!r} with rho {shown(rho, 20)}: known are "
                             f"{', '.join(_KINDS)}")
    if type(points) is not int or not 2 <= points <= 100:
        raise UnreadableFile(f"holds {shown(points, 20)} levels: a grid has 2 to 100")
    return _KINDS[kind](np.arange(points) / (points - 1), float(rho), model)


def polynomial(ramp, rho: float, model: Model) -> np.ndarray:
    """Even in sigma^(1/rho), Karras et al. (2022), down to the lowest level."""
    high, low = model.sigma_max ** (1 / rho), model.sigma_min ** (1 / rho)
    return (high + ramp * (low - high)) ** rho


def log_snr(ramp, rho: float, model: Model) -> np.ndarray:
    """Even in log sigma."""
    return np.exp((1 - ramp) * np.log(model.sigma_max) + ramp * np.log(model.sigma_min))


def time_uniform(ramp, rho: float, model: Model, epsilon: float = 1e-3) -> np.ndarray:
    """Even in the time^(1/rho) of the VP process whose levels at epsilon and 1 are the model's ends."""
    low, high = np.log1p(model.sigma_min ** 2), np.log1p(model.sigma_max ** 2)
    slope = 2 * (low / epsilon - high) / (epsilon - 1)
    time = (1 + ramp * (epsilon ** (1 / rho) - 1)) ** rho
    return clock.continuous(high - slope / 2, high + slope / 2)(time)


def discrete(ramp, rho: float, model: Model, epsilon: float = 1e-3) -> np.ndarray:
    """Even in the network's clock from 1 to 0.001; rho acts on one end only, as in their code."""
    return models.clock_of(model)((1 + ramp * (epsilon ** (1 / rho) - 1)) ** rho)


def diffusers_flow(points: int, shift: float, low: float = 0.001) -> np.ndarray:
    """diffusers' flow-matching levels without the last 0: even from 1 to `low`, then shifted."""
    levels = np.linspace(1.0, low, points)
    return shift * levels / (1 + (shift - 1) * levels)


_KINDS = {"polynomial": polynomial, "logsnr": log_snr, "time_uniform": time_uniform, "discrete": discrete}


# --- objects saved together with their source (NVIDIA's torch_utils.persistence), which stays text here ---------------

def class_of(value) -> str | None:
    """The class such an object was of."""
    name = _meta(value).get("class_name")
    return name if isinstance(name, str) else None


def state_of(value) -> dict:
    """Its attributes; {} for anything else."""
    state = _meta(value).get("state")
    return state if isinstance(state, dict) else {}


def record_of(state: dict, dataset) -> dict:
    """What a predictor of diff-sampler's family says of how it was learned."""
    record = {"learned_on": shown(dataset, 60), "analytic_first_step": bool(state.get("afs"))}
    if isinstance(state.get("guidance_rate"), float) and 1 < state["guidance_rate"] < 1000:
        record["cfg"] = state["guidance_rate"]
    return record


def _meta(value) -> dict:
    known = isinstance(value, Stub) and value.what.endswith("persistence._reconstruct_persistent_obj") and value.args
    return value.args[0] if known and isinstance(value.args[0], dict) else {}
