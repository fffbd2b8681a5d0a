"""The tables of a run so far: what each began with, how far its optimizer is, and the table that the preset gets."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from ..s4s_nodes.core import Table
from ..s4s_nodes.core.table import PARTS
from .baselines.measure import Entry
from .config import Config
from .optimizers.state import State
from .parametrization.parameters import Parameters
from .source import Source


@dataclass
class TableStart:
    """Where a table began, as JSON can hold it.

    schedule: the name of its levels; sigmas (N+1,): the levels; cfg, denoise: its conditions; baseline: solver and
    schedule of the best one, with its numbers in baseline_table; gained: whether learning beat it.
    """

    schedule: str
    sigmas: list[float]
    cfg: float
    denoise: float
    baseline: list[str]
    baseline_table: dict[str, list]
    gained: bool = True

    @classmethod
    def of(cls, schedule: str, parameters: Parameters, cfg: float, denoise: float, best: Entry) -> TableStart:
        numbers = {part: getattr(best.table, part).tolist() for part in PARTS}
        return cls(schedule, parameters.start.tolist(), cfg, denoise, [best.solver_name, best.schedule_name], numbers)

    @property
    def kept_baseline(self) -> Table:
        """The best baseline's table."""
        sigmas, query, scale, carry, weights = (np.array(self.baseline_table[part]) for part in PARTS)
        return Table(sigmas, query, scale, carry, weights)


class RunTables:
    """states and starts by table name. first_cfg: the guidance scale whose full tables give the preset's curve."""

    def __init__(self, config: Config, source: Source, first_cfg: float):
        self.config, self.source, self.first_cfg = config, source, first_cfg
        self.states: dict[str, State] = {}
        self.starts: dict[str, TableStart] = {}

    def noted(self) -> dict[str, dict]:
        """The starts as a run's state keeps them."""
        return {name: asdict(start) for name, start in self.starts.items()}

    def parameters(self, name: str) -> Parameters:
        """The parametrisation of a table."""
        return Parameters.of(self.config, self.source, np.array(self.starts[name].sigmas))

    def table(self, name: str) -> Table:
        """The table for the preset: the best one learned, or the baseline that it did not beat."""
        if not self.starts[name].gained:
            return self.starts[name].kept_baseline
        return self.parameters(name).frozen(self.states[name].best)

    def judge(self, name: str) -> str:
        """Replace the table by the best baseline if learning does not beat it by mean and median; says which."""
        state, start = self.states[name], self.starts[name]
        start.gained = state.best_error < state.baseline and state.best_median < state.baseline_median
        verdict = "" if start.gained else ". Nothing was gained here: the baseline is kept as the table"
        return f"{name}: held-out RMSE {state.best_error:.4f} (median {state.best_median:.4f}); best baseline, " \
               f"{', '.join(start.baseline)}: {state.baseline:.4f} ({state.baseline_median:.4f}){verdict}"

    @property
    def curve(self) -> np.ndarray:
        """The levels of the largest full table learned so far at the first cfg: the preset's own curve."""
        whole = [name for name in self.states
                 if self.starts[name].denoise == 1.0 and self.starts[name].cfg == self.first_cfg]
        largest = max(whole, key=lambda name: self.parameters(name).calls)
        return self.table(largest).sigmas
