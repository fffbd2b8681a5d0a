"""The mode: forward calls only, or gradients if they are asked for and correct."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .baselines.schedules import schedules_for
from .config import Config
from .optimizers.gradient import loss_and_gradient, mean_error
from .optimizers.objective import objective_of, rmse
from .parametrization.parameters import Parameters
from .source import NaNFromModel, Source
from .teacher.pairs import Pairs, known_pairs

NUDGES = (0.02, 0.04)       # of the finite differences, in the free numbers' natural units: wider than a rounded clock
PIECES = 16                 # of the way along which slopes are added up, even
ALLOWED = 0.05              # of the gradient's length, on top of the doubt about the slope
DOUBTFUL = 0.1              # of the gradient's length: a slope in larger doubt says nothing


class Way(NamedTuple):
    """(gradient or forward, why, the network calls that finding out cost)."""

    mode: str
    why: str
    calls: int


def choose_mode(source: Source, config: Config) -> Way:
    """The mode to learn in. A requested gradient mode is given up only if the gradients are wrong.

    Raises ValueError if settings need gradients or an objective that this source cannot provide.
    """
    before = source.model_calls
    mode, why = _mode(source, config)
    return Way(mode, why, source.model_calls - before)


def _mode(source: Source, config: Config) -> tuple[str, str]:
    if config.mode == "forward":
        return "forward", "as requested"
    if not tries_gradients(config):
        return "forward", "forward calls are enough: a table has few free numbers"
    objective_of(config.gradient.objective, source)
    checked = check_gradient(source)
    if checked.fits:
        return "gradient", checked.reason
    if config.gradient.needed:
        raise ValueError(f"{' and '.join(config.gradient.needed)}: only gradient mode can do that, and the network "
                         f"cannot be learned through: {checked.reason}")
    return "forward", f"the network cannot be learned through: {checked.reason}"


def tries_gradients(config: Config) -> bool:
    """Whether a host has to prepare its network for gradients: they are asked for, by name or by a setting."""
    return config.mode == "gradient" or config.mode == "auto" and bool(config.gradient.needed)


@dataclass(frozen=True)
class GradientCheck:
    """Whether gradients may be used, and why."""

    fits: bool
    reason: str


def check_gradient(source: Source, calls: int = 3) -> GradientCheck:
    """Compare back-propagation through a short run with finite differences, along and across the gradient.

    Across it too, because a network that rounds its noise level has no slope there, which does not show along the
    gradient. Only wide differences reveal such rounding, and a network may bend within them: if they disagree, the
    slopes along the way have to add up to the whole difference.
    """
    levels = schedules_for(source)["time_uniform"](calls)
    parameters = Parameters(levels, flow=source.flow, highest=source.sigma_max)
    vector = parameters.initial()
    vector[calls - 1:2 * calls - 1] -= 0.1             # queries clear of the model's highest level, where they stop
    seeds = range(2)
    run = ShortRun(source, parameters, known_pairs(source, seeds, torch.zeros_like(source.noise(seeds))))
    try:
        gradient = run.gradient(vector)
    except NaNFromModel:
        raise
    except (RuntimeError, MemoryError, NotImplementedError) as error:
        return GradientCheck(False, f"a test backward pass failed ({str(error).splitlines()[0][:200]})")
    size = float(gradient.norm())
    generator = torch.Generator().manual_seed(0)
    across = torch.randint(0, 2, (len(vector),), generator=generator).double() * 2 - 1
    for direction in (gradient / max(size, 1e-12), across / across.norm()):
        slope = float(gradient @ direction)
        measured, doubt = run.difference(vector, direction)
        if not _agree(slope, measured, size, doubt):
            slope, measured, length, doubt = run.along(vector, direction)
            if not _agree(slope, measured, length, doubt):
                return GradientCheck(False, f"its gradients are wrong: {slope:.4g} by back-propagation, {measured:.4g} "
                                            "by differences")
    return GradientCheck(True, f"its gradients agree with finite differences ({slope:.4g} and {measured:.4g})")


def _agree(slope: float, measured: float, size: float, doubt: float) -> bool:
    """Whether two slopes agree, relative to gradients of this length; with a large doubt they do not."""
    return abs(slope - measured) <= ALLOWED * size + doubt and doubt <= DOUBTFUL * size


@dataclass(frozen=True)
class ShortRun:
    """The mean error of a short run on a few pairs, as a function of the free numbers."""

    source: Source
    parameters: Parameters
    pairs: Pairs

    def error(self, vector: Tensor) -> float:
        return mean_error(self.source, self.parameters, self.pairs, vector)

    def gradient(self, vector: Tensor) -> Tensor:
        return loss_and_gradient(self.source, self.parameters, vector, self.pairs, rmse)[1]

    def difference(self, vector: Tensor, direction: Tensor) -> tuple[float, float]:
        """(slope along the direction, how far the two step sizes disagree on it)."""
        small, large = ((self.error(vector + nudge * direction) - self.error(vector - nudge * direction)) / (2 * nudge)
                        for nudge in NUDGES)
        return (4 * small - large) / 3, abs(small - large)             # Richardson

    def along(self, vector: Tensor, direction: Tensor) -> tuple[float, float, float, float]:
        """(mean slope by back-propagation, by the ends' difference, mean length of the gradients, doubt of the first).

        The way is as long as the narrower difference; its slopes are summed by Simpson's rule, and the doubt is what
        half of them would have made of it.
        """
        places = torch.linspace(-NUDGES[0], NUDGES[0], PIECES + 1, dtype=torch.float64)
        gradients = [self.gradient(vector + place * direction) for place in places]
        slopes = torch.stack([gradient @ direction for gradient in gradients])
        mean, coarse = _simpson(slopes), _simpson(slopes[::2])
        whole = self.error(vector + places[-1] * direction) - self.error(vector + places[0] * direction)
        return (mean, whole / (2 * NUDGES[0]), sum(float(gradient.norm()) for gradient in gradients) / len(gradients),
                abs(mean - coarse))


def _simpson(values: Tensor) -> float:
    """The mean of a function from its values at an odd number of even steps, by Simpson's rule."""
    inner = 4 * values[1:-1:2].sum() + 2 * values[2:-1:2].sum()
    return float(values[0] + inner + values[-1]) / (3 * (len(values) - 1))
