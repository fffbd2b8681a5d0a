"""Finite differences of a network: how far from a state to ask."""

import math

NUDGE = 1e-2                # length of a finite difference, as a share of the state
WIDEST = 0.1                # where the network's answers are noisy
LEAST_SHARE = 0.05          # of a level's logarithm, at a flow's top: its half-logSNR has no end there


def nudge_for(noise: float) -> float:
    """The finite difference for a network whose answers carry relative noise.

    A difference over a step h is off by noise / h, and by curvature times h: the best h is near the root.
    """
    return min(max(math.sqrt(noise), NUDGE), WIDEST)


def level_nudge(nudge: float, level: float, flow: bool) -> float:
    """The difference in a level's logarithm: twice the nudge in half-logSNR.

    Of a flow, the half-logSNR changes by d log(s) / (1 - s): near its top a network changes as fast with s.
    """
    return 2 * nudge * (max(1 - level, LEAST_SHARE) if flow else 1.0)
