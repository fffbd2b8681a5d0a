"""Classical solvers on schedules, and how far they and learned tables end from the teacher."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ...s4s_nodes.core import Table, classical
from ..source import Source
from ..teacher.pairs import Pairs, ends, errors
from .schedules import NO_START_SCHEDULES, STRONG_SCHEDULES, schedules_for

ROUNDS = ((8, 1.0), (32, 0.25), (None, 0.05))      # (seeds, share of the pairs that run them); None: all seeds
FEWEST = 8                                         # pairs that reach the last round
AT_ONCE = 64                                       # images shown to the feature network together
# who a learned table has to beat where calls are dear: the pairs that win races, and those most people use
STRONG_SOLVERS = ("euler", "dpmpp_2m", "unipc_bh2_2", "unipc_bh2_3", "deis_2", "deis_3", "ipndm_2", "lms_2",
                  "gradient_estimation")
# and those that a training does not try its start on: docs/constants.md
NO_STARTS = ("res_multistep", "dpmpp_2m_sigma", "ipndm_v", "er_sde", "heunpp2", "ralston", "exp_heun", "res_2s",
             "res_3s", "res_2m", "res_3m", "unipc_bh1_sigma", "unipc_bh2_sigma")
STARTS = tuple(name for name in classical.SOLVERS if name not in NO_STARTS)


@dataclass(frozen=True)
class Entry:
    """One contestant and its errors: RMSE to the teacher per seed, for the first len(errors) seeds.

    features: (n, F) of its results where it ran all seeds and the source has a feature space.
    """

    solver_name: str
    schedule_name: str
    table: Table
    errors: np.ndarray = field(default_factory=lambda: np.empty(0))
    features: np.ndarray | None = None

    @property
    def name(self) -> str:
        return f"{self.solver_name}, {self.schedule_name}"

    @property
    def rmse(self) -> float:
        """Over all pixels of all seeds together."""
        return float(np.sqrt(np.mean(self.errors ** 2)))

    @property
    def median(self) -> float:
        """Of the seeds' own RMSE."""
        return float(np.median(self.errors))


def strong_pairs(source: Source, top: float | None = None) -> set:
    """(solver, schedule) of the pairs that count."""
    known = schedules_for(source, top)
    return {(solver, name) for solver in STRONG_SOLVERS for name in known if name in STRONG_SCHEDULES}


def start_pairs(source: Source, top: float | None = None) -> set:
    """(solver, schedule) of the pairs that a training tries as its start."""
    tried = [name for name in schedules_for(source, top) if name not in NO_START_SCHEDULES]
    return {(solver, name) for solver in STARTS for name in tried}


def contestants(source: Source, calls: int, names: set | None = None, top: float | None = None) -> list[Entry]:
    """Every classical pair that makes at most `calls` calls, from the level `top` on; names keeps only those pairs."""
    entries = []
    for schedule_name, levels in schedules_for(source, top).items():
        for solver_name, solver in classical.SOLVERS.items():
            if names is not None and (solver_name, schedule_name) not in names:
                continue
            if solver_name.endswith("_sigma") and not source.flow:      # there it is the one without
                continue
            try:
                entries.append(Entry(solver_name, schedule_name, within(solver, levels, calls, source.flow)))
            except ValueError:              # a schedule that cannot place so many levels
                continue
    return entries


def within(solver, levels, calls: int, flow: bool) -> Table:
    """The table of the most steps (levels: steps -> levels) that makes at most `calls` calls. Raises ValueError as
    solvers and schedules do, and where one step makes more."""
    steps = max(1, calls // solver.calls_per_step)
    best = solver(levels(steps), flow=flow)
    if best.calls > calls:
        raise ValueError(f"one step makes {best.calls} calls, {calls} are given")
    while solver.calls_per_step > 1 and (more := solver(levels(steps + 1), flow=flow)).calls <= calls:
        best, steps = more, steps + 1
    return best


def measure(source: Source, entry: Entry, pairs: Pairs, features: bool = False) -> Entry:
    """The entry with its errors on these pairs, and its features; what is not finite counts as infinitely far."""
    results = ends(source, entry.table, pairs)
    found = errors(results, pairs.target)
    return replace(entry, errors=np.nan_to_num(found, nan=np.inf, posinf=np.inf),
                   features=features_of(source, results) if features else None)


@torch.no_grad()
def features_of(source: Source, results: Tensor) -> np.ndarray | None:
    """(n, F) of results in the source's feature space, decoded first; None where it has none or n is below F."""
    if source.features is None:
        return None
    decode = source.decode or (lambda latents: latents)
    found = torch.cat([source.features(decode(part)).double().cpu() for part in results.split(AT_ONCE)]).numpy()
    return found if len(found) > found.shape[1] and np.isfinite(found).all() else None


def race_classical(source: Source, calls: int, pairs: Pairs, quiet: bool = False) -> list[Entry]:
    """All classical pairs, best first. The losers of a round drop out with the errors of the seeds they ran."""
    return halved(source, contestants(source, calls), pairs, ROUNDS, FEWEST, quiet)


def halved(source: Source, running: list[Entry], pairs: Pairs, rounds, fewest: int, quiet: bool) -> list[Entry]:
    """Successive halving (Jamieson and Talwalkar 2016): rounds of (seeds, share of the entries that run them)."""
    out, everyone = [], len(running)
    for seeds, share in rounds:
        keep = max(fewest, int(share * len(running))) if share < 1 else everyone
        running, dropped = running[:keep], running[keep:]
        out = dropped + out
        few = pairs.part(slice(0, seeds))
        label = f"classical solvers, {len(few)} seeds"
        bar = tqdm(running, desc=label, disable=quiet or None)
        running = [measure(source, entry, few, features=seeds is None) for entry in bar]
        running.sort(key=lambda entry: entry.errors.mean())
    return running + out
