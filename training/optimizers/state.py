"""Where learning one table stands: everything the next iteration depends on."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from .linearized import RANK

FIRST_BATCH = 4             # pairs of the first iterations


@dataclass
class State:
    """All of it, for one table.

    vector: free numbers, float64; best: those that validated best; best_error, best_median, best_score: mean and median
    of their held-out RMSE, and the held-out score they were chosen by; start_error, start_median: those of the start;
    baseline, baseline_median: of the best baseline; curve: [iteration, training loss, held-out RMSE, network calls]
    after each validation; spent, left: network calls that the table has cost, and those for the rest of learning.
    batch: pairs of the present iteration, 0 between two; wanted: pairs the next should have; measured: pairs of all
    before; memory: what is measured of the present ones; rank: directions they are measured along; sizes (k,): by which
    the numbers may move, relative to each other; noise: of the network's answers, relative; damping: of the last step
    taken; rejected: iterations in a row without one.
    """

    vector: Tensor
    best: Tensor
    iteration: int = 0
    best_error: float = math.inf
    best_median: float = math.inf
    best_score: float = math.inf
    start_error: float = math.inf
    start_median: float = math.inf
    baseline: float = math.inf
    baseline_median: float = math.inf
    curve: list = field(default_factory=list)
    spent: int = 0
    left: int = 10 ** 9
    batch: int = 0
    wanted: int = FIRST_BATCH
    measured: int = 0
    memory: dict = field(default_factory=dict)
    rank: int = RANK
    sizes: Tensor | None = None
    noise: float = 0.0
    damping: float = 1e-2
    rejected: int = 0
    finished: bool = False

    def begin(self, error: float, median: float, network_calls: int) -> None:
        self.start_error, self.start_median = error, median
        self.best_error, self.best_median, self.best_score = error, median, math.sqrt(error * median)
        self.curve = [[self.iteration, math.nan, error, network_calls]]
