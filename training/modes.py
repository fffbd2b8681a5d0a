"""Which way to learn: whether the network can be back-propagated through, and which way the budget favours."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .budget import planned
from .config import Config
from .denoisers import NaNFromModel, Source
from .evaluate import schedules
from .loop import loss_and_gradient, mean_error
from .objective import objective_of, rmse
from .pairs import known_pairs
from .parameters import Parameters

NUDGES = (0.02, 0.04)       # of the finite differences, in the free numbers' natural units
ENOUGH_STEPS = 200          # half of the default: with fewer, the cosine ends before the numbers have settled
ALLOWED = 0.05              # of the gradient's length, on top of what the two differences disagree by


def settled_mode(source: Source, config: Config) -> tuple[str, str]:
    """(gradient or forward, why). A gradient mode that was asked for gives way to wrong gradients only.

    Raises ValueError where settings ask for gradients that cannot be had, or for an objective that cannot.
    """
    if config.mode == "forward":
        return "forward", "as asked for"
    objective_of(config.objective, source)
    if config.mode == "auto" and not config.gradient_only and (steps := gradient_steps(source, config)) < ENOUGH_STEPS:
        return "forward", (f"the budget would allow {steps} gradient steps, of which "
                           f"about {ENOUGH_STEPS} are needed")
    found = check_gradient(source)
    if found.fits:
        return "gradient", found.words
    if config.gradient_only:
        raise ValueError(f"{' and '.join(config.gradient_only)} need the backward pass, and the network cannot be "
                         f"learned through: {found.words}")
    return "forward", f"the network cannot be learned through: {found.words}"


def gradient_steps(source: Source, config: Config) -> int:
    """The gradient steps that the budget allows for the table that affords the fewest; enough without a budget."""
    if not config.budget:
        return ENOUGH_STEPS
    try:
        return planned(config, source, "gradient").iterations
    except ValueError:
        return 0


@dataclass(frozen=True)
class GradientCheck:
    """Whether gradients may be used, and in words why."""

    fits: bool
    words: str


def check_gradient(source: Source, calls: int = 3) -> GradientCheck:
    """Compare back-propagation through a short run with finite differences, along the gradient and across it.

    Across it too: a network that rounds its noise level has no slope there, and along the gradient that would not
    show.
    """
    levels = schedules(source)["time_uniform"](calls)
    parameters = Parameters(levels, flow=source.flow, highest=source.sigma_max)
    vector = parameters.initial()
    vector[calls - 1:2 * calls - 1] -= 0.1             # queries clear of the model's highest level, where they stop
    seeds = range(2)
    pairs = known_pairs(source, seeds, torch.zeros_like(source.noise(seeds)))
    try:
        _, gradient = loss_and_gradient(source, parameters, vector, pairs, rmse)
    except NaNFromModel:
        raise
    except (RuntimeError, NotImplementedError) as error:
        return GradientCheck(False, f"a test backward pass failed ({str(error).splitlines()[0][:200]})")
    size = float(gradient.norm())
    generator = torch.Generator().manual_seed(0)
    across = torch.randint(0, 2, (len(vector),), generator=generator).double() * 2 - 1
    for direction in (gradient / max(size, 1e-12), across / across.norm()):
        slope, doubt = _difference(source, parameters, pairs, vector, direction)
        off = abs(float(gradient @ direction) - slope)
        if not off <= ALLOWED * size + doubt:
            return GradientCheck(False, f"its gradients are wrong: {float(gradient @ direction):.4g} by "
                                        f"back-propagation, {slope:.4g} by differences")
    return GradientCheck(True, f"its gradients agree with finite differences ({float(gradient @ direction):.4g} and "
                               f"{slope:.4g})")


def _difference(source, parameters, pairs, vector, direction) -> tuple[float, float]:
    """(slope of the mean error along the direction, how far the two step sizes disagree on it)."""
    small, large = ((mean_error(source, parameters, pairs, vector + nudge * direction)
                     - mean_error(source, parameters, pairs, vector - nudge * direction)) / (2 * nudge)
                    for nudge in NUDGES)
    return (4 * small - large) / 3, abs(small - large)             # Richardson
