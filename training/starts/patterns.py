"""Starts learned elsewhere: what trainings of other models ended at, carried over to a model of any kind.

Tables look alike where they are written in the ratio of noise to signal: a flow's s is s / (1 - s), and a row's weights
in units of its step, 1 - sigma[i+1] / sigma[i], are the same numbers for both. `patterns.json` holds such tables and
where each comes from. A pattern is one more start in the race that ranks them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table
from ...s4s_nodes.core.levels import starts_below
from ...s4s_nodes.select import adapt
from ..parametrization.parameters import Parameters
from ..source import Source

FILE = Path(__file__).with_name("patterns.json")
ENDLESS = 1e4               # ratio of pure noise
# of the offsets between a flow and another kind: digits-flow that starts from digits-eps' table at 6 calls is off by
# 0.052 with none of them, 0.046 with half, 0.092 with all; of one kind (digits-eps from emoji-eps) 0.063, 0.057, 0.051
KEPT = 0.5
DIGITS = 9                  # of residuals: the last bits depend on where they lie in memory


@dataclass(frozen=True)
class Pattern:
    """A learned table without its model: ratios (N - 1,) of the inner levels, offsets (N,) of the levels told to the
    network, in their logarithm, and weights (N, N) in units of the rows' steps; flow: whether a flow learned it."""

    model: str
    flow: bool
    ratios: tuple
    offsets: tuple
    weights: tuple

    @property
    def name(self) -> str:
        """What a run calls this start."""
        return f"what {self.model} learned"

    @property
    def calls(self) -> int:
        return len(self.offsets)

    def levels(self, source: Source) -> np.ndarray:
        """The levels (N + 1,) on a model's own scale, from its highest to 0."""
        return np.concatenate([[source.sigma_max], levels_of(self.ratios, source), [0.0]])

    def vector(self, parameters: Parameters, source: Source) -> Tensor:
        """The free numbers whose table, on these levels, has the pattern's weights, or as close as residuals allow."""
        vector, (gaps, offsets, residuals, *_) = parameters.initial(), parameters.sizes
        kept = 1.0 if self.flow == source.flow else KEPT
        vector[gaps:gaps + offsets] = kept * torch.tensor(self.offsets, dtype=torch.float64)
        some = slice(gaps + offsets, gaps + offsets + residuals)
        with torch.enable_grad():
            slopes = torch.autograd.functional.jacobian(lambda free: parameters.table(free).weights, vector)
        wanted = torch.tensor(self.weights, dtype=torch.float64) * _units(parameters.start)
        missing = (wanted - torch.tensor(parameters.frozen(vector).weights))[:, :, None]
        rows = torch.tril(torch.ones(self.calls, self.calls, dtype=torch.bool))
        rows[-1, -1] = False                                            # the constant law's
        found = torch.linalg.lstsq(slopes[rows][:, some], missing[rows]).solution[:, 0]
        vector[some] += found.round(decimals=DIGITS)
        return vector


def _units(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(adapt.step_units(levels))[:, None]


def ratios_of(levels, flow: bool) -> np.ndarray:
    """Noise over signal of levels."""
    levels = np.asarray(levels, dtype=np.float64)
    return np.minimum(levels / np.maximum(1 - levels, 1 / ENDLESS), ENDLESS) if flow else levels


def levels_of(ratios, source: Source) -> np.ndarray:
    """The levels of a model at these ratios of noise to signal."""
    ratios = np.asarray(ratios, dtype=np.float64)
    return ratios / (1 + ratios) if source.flow else ratios


def pattern_of(table: Table, model: str, flow: bool) -> Pattern:
    """The pattern of a learned table for whole images, rounded to what matters."""
    weights = torch.tensor(table.weights) / _units(table.sigmas)
    return Pattern(model, flow, _rounded(ratios_of(table.sigmas[1:-1], flow)),
                   _rounded(np.log(table.query / table.sigmas[:-1])), tuple(_rounded(row) for row in weights))


def _rounded(values) -> tuple:
    return tuple(float(f"{value:.4g}") for value in values)


@cache
def known() -> tuple[Pattern, ...]:
    """The patterns that come with the package."""
    content = json.loads(FILE.read_text(encoding="utf-8"))
    return tuple(Pattern(each["model"], each["flow"], tuple(each["ratios"]), tuple(each["offsets"]),
                         tuple(map(tuple, each["weights"]))) for each in content["patterns"])


def fitting(source: Source, calls: int, config) -> list[Pattern]:
    """The patterns for so many calls of a configuration, those learned on this very model left out."""
    plain = (config.family, config.clock, config.restrict, config.initial) == ("lms", "host", "none", "solver")
    if not plain or config.learn not in ("joint", "generalized", "alternate"):
        return []
    return [each for each in known() if each.calls == calls and each.model != source.name
            and starts_below(levels_of(each.ratios[0], source), source.sigma_max)]
