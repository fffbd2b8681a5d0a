"""Where learning one table stands: everything the next iteration depends on."""

import math
from dataclasses import dataclass, field

from torch import Tensor

from .linearized import RANK

FIRST_BATCH = 4             # pairs of the first iterations


@dataclass
class State:
    """All of it, for one table. It is saved by these names.

    The best so far. best: the free numbers, float64, that validated best; best_error, best_median: mean and median of
    their held-out RMSE; start_error, start_median: those of the start; baseline, baseline_median: of the best baseline;
    curve: [iteration, training loss, held-out RMSE, network calls] after each validation.
    The search. vector: the free numbers; left: network calls for the rest of learning; wanted: pairs the next iteration
    should have; measured: pairs of all before; rank: directions they are measured along; sizes (k,): by which the
    numbers may move, relative to each other; noise: of the network's answers, relative; damping: of the last step
    taken; former (k, k): the curvature of the losses of all pairs before, faded; rejected: iterations in a row without
    a step.
    The batch. batch: pairs of the present iteration, 0 between two; memory: what is measured of them.
    """

    vector: Tensor
    best: Tensor
    best_error: float = math.inf
    best_median: float = math.inf
    start_error: float = math.inf
    start_median: float = math.inf
    baseline: float = math.inf
    baseline_median: float = math.inf
    curve: list = field(default_factory=list)
    left: int = 10 ** 9
    wanted: int = FIRST_BATCH
    measured: int = 0
    rank: int = RANK
    sizes: Tensor | None = None
    noise: float = 0.0
    damping: float = 1e-2
    former: Tensor | None = None
    rejected: int = 0
    batch: int = 0
    memory: dict[str, Tensor] = field(default_factory=dict)

    @property
    def iteration(self) -> int:
        """How many are done; the curve begins before the first."""
        return max(0, len(self.curve) - 1)

    def validated(self, error: float, median: float, loss: float, network_calls: int) -> None:
        """Note the held-out errors of the present numbers, and keep these as the best if their score is the lowest.

        The score is the geometric mean of the images' mean and median RMSE, where neither is above the start's: neither
        the tail nor the typical image may be lost.
        """
        if not self.curve:
            self.start_error, self.start_median = error, median
        loses = error > self.start_error or median > self.start_median
        if not loses and math.sqrt(error * median) < math.sqrt(self.best_error * self.best_median):
            self.best, self.best_error, self.best_median = self.vector.clone(), error, median
        self.curve = [*self.curve, [len(self.curve), loss, error, network_calls]]
