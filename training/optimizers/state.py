"""Where learning one table stands: everything the next iteration depends on."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..parametrization.parameters import Parameters
from .linearized import RANK

FIRST_BATCH = 4             # pairs of the first forward-only iterations


@dataclass
class State:
    """What both optimizers keep of a table.

    vector: free numbers, float64; best: those that validated best; best_error, best_median, best_score: mean and median
    of their held-out RMSE, and the held-out score they were chosen by; spent: network calls the table has cost so far;
    baseline, baseline_median: held-out RMSE of the best baseline; curve: [iteration, training loss, held-out RMSE,
    network calls] after each validation; memory: tensors an optimizer keeps between its iterations.
    """

    vector: Tensor
    best: Tensor
    iteration: int = 0
    best_error: float = math.inf
    best_median: float = math.inf
    best_score: float = math.inf
    spent: int = 0
    baseline: float = math.inf
    baseline_median: float = math.inf
    finished: bool = False
    curve: list = field(default_factory=list)
    memory: dict = field(default_factory=dict)


@dataclass
class GaussNewtonState(State):
    """left: network calls for the rest of learning; batch: pairs of the present iteration, 0 between two; wanted: pairs
    the next should have; measured: pairs of all before; rank: directions they are measured along; sizes (k,): by which
    the numbers may move, relative to each other; noise: of the network's answers, relative; damping: of the last step
    taken; rejected: iterations in a row without one; start_error, start_median: held-out RMSE of the start."""

    damping: float = 1e-2
    rank: int = RANK
    sizes: Tensor = None
    noise: float = 0.0
    rejected: int = 0
    start_error: float = math.inf
    start_median: float = math.inf
    left: int = 10 ** 9
    batch: int = 0
    wanted: int = FIRST_BATCH
    measured: int = 0

    def begin(self, error: float, median: float, network_calls: int) -> None:
        """Note the start's held-out RMSE."""
        self.start_error, self.start_median = error, median
        self.best_error, self.best_median, self.best_score = error, median, math.sqrt(error * median)
        self.curve = [[self.iteration, math.nan, error, network_calls]]


@dataclass
class AdamState(State):
    """average: moving average of the vector, which is validated; moment1, moment2: Adam's; rate_factor: halved after
    every setback; turn: of an alternation; losses: of the iterations since the last validation."""

    average: Tensor = None
    moment1: Tensor = None
    moment2: Tensor = None
    rate_factor: float = 1.0
    setbacks: int = 0
    turn: int = 0
    losses: list = field(default_factory=list)


def new_state(mode: str, parameters: Parameters, vector: Tensor | None = None) -> State:
    """The state of a table that starts at `vector`, by default at the base solver on the initial levels."""
    vector = parameters.initial() if vector is None else vector
    if mode == "forward":
        return GaussNewtonState(vector, vector.clone())
    return AdamState(vector, vector.clone(), average=vector.clone(), moment1=torch.zeros_like(vector),
                     moment2=torch.zeros_like(vector))
