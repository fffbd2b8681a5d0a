"""How noisy a network's answers are, in half precision or quantized; and how far finite differences then reach."""

import math

import torch

from ..source import Source
from ..teacher.pairs import known_pairs

APART = 2 ** -8             # relative distance of two states that half precision tells apart
FOURTH = (1, -4, 6, -4, 1)  # weights of a fourth difference
NUDGE = 1e-2                # length of a finite difference, as a share of the state
LEAST = NUDGE ** 2          # least noise that counts: below it, this length suits a network with or without noise
WIDEST = 0.1                # the widest, if the network's answers are noisy
LEAST_SHARE = 0.05          # least share of a level's logarithm at a flow's top, where half-logSNR is unbounded


@torch.no_grad()
def noise_of(source: Source, seeds: range) -> float:
    """Relative noise in the network's answers, at the middle of its levels.

    It is what a smooth function cannot have: a fourth difference over a small distance. (In a second difference, the
    curvature of a guided network would pass for noise.) 0 for rounding of float32.
    """
    pairs = known_pairs(source, seeds, None)
    level = float(source.levels[len(source.levels) // 2])
    x = pairs.start(level, source.flow)
    per_image = x.new_full((len(x),), level)
    signs = torch.randint(0, 2, x.shape, generator=torch.Generator().manual_seed(0)) * 2 - 1
    step = x * signs.to(x) * APART
    answers = [source.denoiser(x + place * step, per_image, **pairs.extra).cpu().double() for place in range(-2, 3)]
    fourth = sum(factor * answer for factor, answer in zip(FOURTH, answers))
    variance = float(fourth.square().mean()) / sum(factor ** 2 for factor in FOURTH)
    noise = math.sqrt(variance / float(answers[2].square().mean().clamp(min=1e-24)))
    return noise if noise > LEAST else 0.0


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
