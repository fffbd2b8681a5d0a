"""The tables of a run so far: what each began with, how far its optimizer is, and the table that the preset gets."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..s4s_nodes.core import Table
from ..s4s_nodes.core.table import PARTS
from .baselines.measure import measured
from .baselines.schedules import window_levels
from .budget import LEAST_PAIRS, CfgNode, Plan, pair_cost
from .optimizers.linearized import RANK
from .optimizers.state import State
from .parametrization.parameters import Parameters
from .source import Source
from .starts.search import choose_start
from .teacher.pairs import Pairs


@dataclass
class Window:
    """A denoise strength, its first level (None: the model's highest), its pairs, and the calls its tables share."""

    denoise: float
    top: float | None
    pairs: Pairs
    held_out: Pairs
    shared: int


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
    baseline_table: dict[str, Any]
    gained: bool = True


def table_name(calls: int, top: float | None = None) -> str:
    """The key of a table in its preset: a full one, or one that starts at the level `top`."""
    return f"calls{calls}" if top is None else f"calls{calls}_from{top:.4g}"


class RunTables:
    """states and starts by table name. first_cfg: the guidance scale whose full tables give the preset's curve."""

    def __init__(self, source: Source, first_cfg: float):
        self.source, self.first_cfg = source, first_cfg
        self.states: dict[str, State] = {}
        self.starts: dict[str, TableStart] = {}

    def begin(self, name: str, calls: int, window: Window, plan: Plan, node: CfgNode, noise: float) -> None:
        """Find the table's start, the best baseline that its free numbers can hold, and a fresh optimizer's state.

        noise: relative noise of the network's answers.
        """
        before, curve = self.source.model_calls, None
        if window.top is not None:
            curve = window_levels(self.curve, window.denoise, calls, self.source.flow)
        best, first, parameters, vector = choose_start(self.source, calls, window.held_out, plan, curve)
        schedule, at_best = first.name, first is best
        if node.neighbour is not None:
            other = node.name(table_name(calls, window.top), node.neighbour)
            parameters, vector = self.parameters(other), self.states[other].best.clone()
            schedule, at_best = self.starts[other].schedule, False
        state = State(vector, vector.clone(), noise=noise, rank=RANK // 2 if noise else RANK)
        [best] = measured(self.source, [best], window.held_out)
        state.baseline, state.baseline_median = float(best.errors.mean()), best.median
        spent = self.source.model_calls - before + math.ceil(window.shared / len(plan.calls))
        least = 2 * plan.data.validation * calls + LEAST_PAIRS * pair_cost(self.source, calls)
        state.left = max(plan.budget - spent, least)
        if at_best:                                     # measured just now
            state.validated(state.baseline, state.baseline_median, math.nan, self.source.all_calls)
        self.starts[name] = TableStart(
            schedule, parameters.start.tolist(), node.cfg, window.denoise,
            [best.solver_name, best.schedule_name], {part: getattr(best.table, part).tolist() for part in PARTS})
        self.states[name] = state                       # last: a stop between the two lines repeats the start

    def starts_record(self) -> dict[str, dict]:
        return {name: asdict(start) for name, start in self.starts.items()}

    def parameters(self, name: str) -> Parameters:
        return Parameters.of(self.source, np.array(self.starts[name].sigmas))

    def table(self, name: str) -> Table:
        """The table for the preset: the best one learned, or the baseline that it did not beat."""
        if not self.starts[name].gained:
            return Table(**self.starts[name].baseline_table)
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
