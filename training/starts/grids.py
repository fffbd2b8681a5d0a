"""Schedules that a run starts on only when asked for by name: even in log-SNR, DMN's, GITS, a preset's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...s4s_nodes.core import preset_file
from ...s4s_nodes.core.levels import ENDLESS, gauss, lagrange, starts_at
from ..source import Source
from .gits import gits

POINTS = 16                 # of Gauss and Legendre: the integrands are a parabola times an exponential
NAMES = ("log_snr", "dmn", "gits", "the file of a preset")
ALONE = 3                   # the first steps' errors are bounded one by one, those of later ones may cancel


def asked_for(source: Source, name: str) -> Callable | None:
    """(steps -> levels) of a schedule by name or by the file of a preset; None for a name that is none of these."""
    low, high = float(source.levels[0]), source.sigma_max
    if name == "log_snr":
        return lambda steps: _levels(source.flow, np.linspace(*_ends(source), steps), high)
    if name == "dmn":
        return lambda steps: _levels(source.flow, dmn(steps, *_ends(source))[:-1], high)
    if name == "gits":
        return lambda steps: gits(source, steps)
    if name.endswith(".safetensors") or Path(name).is_file():
        return lambda steps: levels_of(name, steps, low, high)
    return None


def levels_of(path, steps: int, low: float, high: float) -> np.ndarray:
    """The levels of a preset's table for whole images. Raises ValueError where it has none of so many calls."""
    preset = preset_file.load(path)
    whole = [table for table in preset.tables.values() if starts_at(table.sigmas[0], high)]
    for table in whole:
        if table.calls == steps:
            return np.append(high, table.sigmas[1:])
    counts = ", ".join(str(table.calls) for table in sorted(whole, key=lambda table: table.calls)) or "none"
    raise ValueError(f"{path} has no levels for {steps} steps from sigma {high:g} (it has them for: {counts}): choose "
                     "another number of calls, or another schedule")


def dmn(steps: int, first: float, last: float) -> np.ndarray:
    """Half-logSNR of steps + 1 levels that minimise a bound on a third-order multistep solver's error.

    Xue et al. (2024), "Accelerating Diffusion Sampling with Optimized Time Steps", eq. 18: the network's error is
    taken as sigma^2 / alpha (variance preserving), whatever the network. Needs scipy.
    """
    try:
        from scipy.optimize import LinearConstraint, minimize  # every host carries scipy; only this schedule asks
    except ImportError as error:
        raise ValueError(f"schedule dmn needs scipy ({error}): pip install scipy, or take another schedule") from None
    even = np.linspace(first, last, steps + 1)
    if steps < 2:
        return even
    gaps = np.diff(np.eye(steps + 1), axis=0)                   # levels -> their differences, which stay above 0
    rising = LinearConstraint(gaps[:, 1:-1], 1e-3 - gaps[:, [0, -1]] @ even[[0, -1]], np.inf)
    solution = minimize(lambda inner: error_bound(np.concatenate([even[:1], inner, even[-1:]])), even[1:-1],
                     method="SLSQP", constraints=[rising], options={"maxiter": 300, "ftol": 1e-9})
    return np.concatenate([even[:1], np.sort(solution.x), even[-1:]])


def error_bound(logs: np.ndarray) -> float:
    """Sum over predictions of their error times what all steps together weigh them with."""
    steps, error = len(logs) - 1, np.sqrt(1 + np.exp(-2 * logs)) / (1 + np.exp(2 * logs))
    total, joint = 0.0, np.zeros(steps)
    for step in range(steps):
        order = min(3, step + 1, steps - step)
        used = slice(step - order + 1, step + 1)
        weights = error[used] * _integrals(logs[used], logs[step], logs[step + 1])
        if step < ALONE or step == steps - 1:
            total += float(np.sqrt((weights ** 2).sum()))
        else:
            joint[used] += weights
    return total + float(np.abs(joint).sum())


def _integrals(nodes: np.ndarray, start: float, end: float) -> np.ndarray:
    """int_start^end e^lambda l_j(lambda) dlambda for the Lagrange polynomial of each node."""
    points, weights = gauss(POINTS)
    at = start + (end - start) * points
    return np.array([(end - start) * (weights * np.exp(at) * lagrange(nodes, j, at)).sum()
                     for j in range(len(nodes))])


def _ends(source: Source) -> tuple[float, float]:
    """Half-logSNR of the first and of the last level."""
    low, high = float(source.levels[0]), source.sigma_max
    if source.flow:
        return -np.log(min(high / max(1 - high, 1e-12), ENDLESS)), np.log(1 - low) - np.log(low)
    return -np.log(high), -np.log(low)


def _levels(flow: bool, logs: np.ndarray, top: float) -> np.ndarray:
    """Levels for half-logSNR, the model's highest in place of the first, and the end."""
    levels = 1 / (1 + np.exp(logs)) if flow else np.exp(-logs)
    return np.concatenate([[top], levels[1:], [0.0]])
