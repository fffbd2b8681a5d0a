"""Noise schedules: N + 1 falling levels (sigma, not timesteps) for N network calls, ending at 0.

Every function returns a float64 array. Their arguments:

    calls       the number of network calls, N
    levels      a model's own rising table of noise levels, such as `sd_levels` or `flow_levels`
    sigma_min   the model's lowest noise level
    sigma_max   its highest
    shift       of a rectified flow's levels towards noise; 1: none

The others are the constants of each formula.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np

from .levels import along


def sd_levels(beta_start: float = 0.00085, beta_end: float = 0.012, count: int = 1000, root: int = 2) -> np.ndarray:
    """Stable Diffusion's levels, 0.0292 to 14.6146 (Rombach et al., 2022): betas even in their `root`-th root."""
    betas = np.linspace(beta_start ** (1 / root), beta_end ** (1 / root), count) ** root
    kept = np.cumprod(1 - betas)
    return np.sqrt((1 - kept) / kept)


def zero_snr_levels(top: float, **betas) -> np.ndarray:
    """Stable Diffusion's levels rescaled to zero terminal SNR, rising (Lin et al. 2024, Alg. 1).

    The last would be infinite; `top` is the host's value for it.
    """
    signal = 1 / np.sqrt(1 + sd_levels(**betas) ** 2)
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return np.append(np.sqrt(1 - signal[:-1] ** 2) / signal[:-1], top)


def flow_levels(shift: float = 1.0, count: int = 1000) -> np.ndarray:
    """A rectified flow's levels, rising to 1: s = shift t / (1 + (shift - 1) t) (Esser et al. 2024, eq. 23)."""
    return shifted(np.arange(1, count + 1) / count, shift)


def shifted(time, shift: float):
    """The levels of a rectified flow at times from 0 to 1 (array or tensor)."""
    return shift * time / (1 + (shift - 1) * time)


def level_at(levels, position) -> np.ndarray:
    """The level at a fractional position in a list of levels, linear in log sigma as k-diffusion has it."""
    return np.exp(np.interp(position, np.arange(len(levels)), np.log(np.asarray(levels, dtype=np.float64))))


def karras(calls: int, sigma_min: float, sigma_max: float, rho: float = 7.0) -> np.ndarray:
    """Karras et al. (2022), eq. 5: even in sigma^(1/rho)."""
    ramp = _ramp(calls)
    return _ended((sigma_max ** (1 / rho) + ramp * (sigma_min ** (1 / rho) - sigma_max ** (1 / rho))) ** rho)


def exponential(calls: int, sigma_min: float, sigma_max: float, rho: float = 1.0) -> np.ndarray:
    """Even in log sigma, which for a variance-exploding model is half-logSNR; other rho: k-diffusion's polyexponential.
    """
    ramp = (1 - _ramp(calls)) ** rho
    return _ended(np.exp(ramp * (np.log(sigma_max) - np.log(sigma_min)) + np.log(sigma_min)))


def kl_optimal(calls: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """Even in arctan sigma (Sabour et al. 2024, section 3.1; the closed form for Gaussian data)."""
    ramp = _ramp(calls)
    return _ended(np.tan(ramp * np.arctan(sigma_min) + (1 - ramp) * np.arctan(sigma_max)))


def simple(calls: int, levels) -> np.ndarray:
    """Every (len/calls)-th of the model's levels, from the top, truncating: the hosts' "simple"."""
    check_calls(calls)
    stride = len(levels) / calls
    return _ended([levels[-(1 + int(i * stride))] for i in range(calls)])


def time_uniform(calls: int, levels) -> np.ndarray:
    """Even in the network's timestep from the first to the last level: the hosts' "normal"."""
    return _ended(level_at(levels, (len(levels) - 1) * (1 - _ramp(calls))))


def time_quadratic(calls: int, levels) -> np.ndarray:
    """Even in the square root of the network's timestep: finer at small noise (Song et al. 2021, DDIM)."""
    return _ended(level_at(levels, (len(levels) - 1) * (1 - _ramp(calls)) ** 2))


def sgm_uniform(calls: int, levels) -> np.ndarray:
    """Even in the network's timestep without the last level, as Stability's sgm spaces it."""
    check_calls(calls)
    return _ended(time_uniform(calls + 1, levels)[:calls])


def beta(calls: int, levels, alpha: float = 0.6, beta: float = 0.6) -> np.ndarray:
    """Quantiles of a Beta distribution over the model's levels (Lee et al., 2024). Needs scipy.

    Raises ValueError if rounding to the model's levels would repeat one.
    """
    from scipy.stats import beta as distribution  # every host carries scipy; only this schedule asks for it
    check_calls(calls)
    quantiles = distribution.ppf(1 - np.linspace(0, 1, calls, endpoint=False), alpha, beta)
    index = np.rint(quantiles * (len(levels) - 1)).astype(int)
    if len(np.unique(index)) < calls:
        raise ValueError(f"the beta schedule cannot place {calls} different levels on a model that has "
                         f"{len(levels)}: ask for fewer calls or another schedule")
    return _ended(np.asarray(levels)[index])


def laplace(calls: int, sigma_min: float, sigma_max: float, mu: float = 0.0, beta: float = 0.5) -> np.ndarray:
    """Quantiles of a Laplace distribution over log sigma, clamped (Hang et al. 2024). Many calls repeat both ends.

    The hosts leave out the 0, and so end at sigma_min.
    """
    off = 0.5 - _ramp(calls)
    log_sigma = mu - beta * np.sign(off) * np.log(1 - 2 * np.abs(off) + 1e-5)
    return _ended(np.clip(np.exp(log_sigma), sigma_min, sigma_max))


def linear_quadratic(calls: int, sigma_max: float, threshold: float = 0.025) -> np.ndarray:
    """Half of the steps even through the first `threshold` of the range, the others quadratic (Polyak et al. 2024)."""
    check_calls(calls)
    if calls == 1:
        return _ended([sigma_max])
    first = calls // 2
    rest, missing = calls - first, first - threshold * calls
    bend = missing / (first * rest ** 2)
    i = np.arange(first, calls)
    late = bend * i ** 2 + (threshold / first - 2 * missing / rest ** 2) * i + bend * first ** 2
    return sigma_max * (1 - np.concatenate([np.arange(first) * threshold / first, late, [1.0]]))


def bong_tangent(calls: int, slope: float = 0.2, pivot: float = 0.6) -> np.ndarray:
    """A flow's levels along two arctangents that meet at 1/2 (RES4LYF's bong_tangent)."""
    check_calls(calls)
    if calls == 1:
        return _ended([1.0])
    count = calls + 2
    middle, slope = int(count * pivot), 40 * slope / count

    def arc(steps, centre, start, end):
        curve = np.arctan(-slope * (np.arange(steps) - centre))
        return start + (curve - curve[0]) * (end - start) / (curve[-1] - curve[0])
    return np.concatenate([arc(middle, middle, 1.0, 0.5)[:-1], arc(count - middle, 0, 0.5, 0.0)])


def ltxv(calls: int, shift: float = float(np.exp(2.05)), last: float = 0.1) -> np.ndarray:
    """LTX Video's: a flow's shifted levels, stretched so that the last above 0 is `last` (ComfyUI's LTXVScheduler)."""
    levels = linear_flow(calls, shift)
    if calls > 1:
        levels[:-1] = 1 - (1 - levels[:-1]) * (1 - last) / (1 - levels[-2])
    return levels


def flux2(calls: int, tokens: int = 4096) -> np.ndarray:
    """Flux.2's: a shift by the number of image tokens and of steps (Black Forest Labs; ComfyUI's Flux2Scheduler)."""
    check_calls(calls)
    mu = at_200 = 0.00016927 * tokens + 0.45666666
    if tokens <= 4300:
        at_10 = 8.73809524e-05 * tokens + 1.89833333
        mu = at_200 + (at_10 - at_200) * (200 - calls) / 190
    return linear_flow(calls, float(np.exp(mu)))


def linear_flow(calls: int, shift: float = 1.0) -> np.ndarray:
    """A rectified flow's even levels from 1 to 0, shifted as `flow_levels`."""
    check_calls(calls)
    return shifted(1 - _ramp(calls + 1), shift)


@cache
def published_grids() -> dict:
    """{name: {"tables", "licence", "source", ...}} of the bundled published schedules: AYS, GITS and OSS."""
    return json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))


def published(name: str, calls: int) -> np.ndarray:
    """A published schedule for `calls`: its own if it was published for that number, else the nearest, stretched.

    Stretching is log-linear in the index, as in the hosts; `published_counts` lists the original ones.
    Raises ValueError for an unknown name.
    """
    if name not in published_grids():
        raise ValueError(f"unknown published grid {name!r}; there are: {', '.join(published_grids())}")
    check_calls(calls)
    table = min(published_grids()[name]["tables"], key=lambda table: abs(len(table) - 1 - calls))
    return _ended(level_at(table, np.linspace(0, len(table) - 1, calls + 1))[:-1])


def whole_list(name: str, calls: int) -> np.ndarray:
    """A published list of levels as A1111 and Forge run it: all of its levels, stretched to `calls`, and then 0."""
    check_calls(calls)
    table = published_grids()[name]["tables"][0]
    return _ended(level_at(table, np.linspace(0, len(table) - 1, calls)))


def stretched(levels, calls: int, flow: bool) -> np.ndarray:
    """A schedule stretched to another number of calls: even in the index, with the same ends.

    levels (n+1,) fall.
    """
    check_calls(calls)
    levels = np.array(levels, dtype=np.float64)
    if calls == len(levels) - 1:
        return levels
    return np.concatenate([levels[:1], along(levels, np.linspace(0, 1, calls + 1)[1:-1], flow), levels[-1:]])


def published_counts(name: str) -> tuple[int, ...]:
    """The numbers of calls that a schedule was published for."""
    return tuple(sorted(len(table) - 1 for table in published_grids()[name]["tables"]))


def check_calls(calls: int) -> None:
    """Raise ValueError for an invalid number of calls."""
    if isinstance(calls, bool) or not isinstance(calls, (int, np.integer)) or calls < 1:
        raise ValueError(f"{calls!r} calls asked for: a schedule needs a whole number of at least 1")


def _ramp(calls: int) -> np.ndarray:
    """`calls` even numbers from 0 to 1. Raises ValueError for an invalid number of calls."""
    check_calls(calls)
    return np.linspace(0, 1, calls)


def _ended(levels) -> np.ndarray:
    return np.append(np.asarray(levels, dtype=np.float64), 0.0)
