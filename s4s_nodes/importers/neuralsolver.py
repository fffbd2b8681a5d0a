"""NeuralSolver's published tables (Wang et al. 2025, Differentiable Solver Search; MIT licence).

Step i uses the mean of all predictions so far with weights c_ij, the newest taking what is missing to 1. For flows
it is the mean velocity over a step of time; for VP models the mean picture over a step in alpha / sigma (eq. of their
VP scheduler). One of the authors' two VP samplers applies a first-order step after it as well; their text-to-image
scheduler, whose pictures the paper shows, does not, nor does the paper.
"""

from __future__ import annotations

import numpy as np

from ..core import Table
from . import clock
from .lower import Run, ended

VP_START, VP_LOWEST = 0.999, 1e-3       # their VP time runs from the one and is held at the other


def flow_table(steps, coefficients) -> Table:
    """x' = x + dt mean(v), v = (D - x) / s, time t = 1 - s from 0 to 1; dt are the steps."""
    run, s, velocities = Run(1.0, len(steps)), 1.0, []
    x = run.start
    for dt, row in zip(steps, coefficients):
        velocities.append((run.call(x, s) - x) / s)
        x = x + dt * _mean(row, velocities)
        s = s - dt
    return run.finish(x)


def vp_table(steps, coefficients, sigma: clock.Clock | None = None, to_zero: bool = False) -> Table:
    """x' = (std'/std) x + std' (alpha'/std' - alpha/std) mean(D) in VP states; time from 0.999 down by the steps.

    In x / alpha that is x' = (sigma'/sigma) x + (1 - sigma'/sigma) mean(D). sigma is the clock of the model, by
    default the linear VP process the tables were learned on. The authors take the VP state at time 0.001 for the
    image; to_zero goes on to sigma 0 instead, as the hosts do.
    """
    times = VP_START - np.concatenate([[0.0], np.cumsum(steps)])
    levels = (sigma or clock.continuous())(np.maximum(times, VP_LOWEST))
    factor = 1.0 if to_zero else float(clock.alpha(levels[-1]))
    if to_zero:
        levels[-1] = 0.0
    run, pictures = Run(levels[0], len(steps)), []
    x = run.start
    for row, level, after in zip(coefficients, levels[:-1], levels[1:]):
        pictures.append(run.call(x, level))
        kept = after / level
        x = kept * x + (1 - kept) * _mean(row, pictures)
    return ended(run.finish(x), factor)


def _mean(row, values: list):
    """sum_j c_j v_j + (1 - sum_j c_j) v_newest."""
    return sum((c * v for c, v in zip(row, values)), (1 - sum(row)) * values[-1])
