"""Classical solvers on schedules, and how far they and learned tables end from the teacher.

Tables run together on the same noise, and what their runs have in common is run once: most solvers begin with Euler's
step, so that on one schedule they ask the network the same first questions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, classical, experts, schedules
from ...s4s_nodes.core.loop import next_state
from ...s4s_nodes.core.table import Row
from ..source import Source
from ..teacher.pairs import Pairs, ends, errors
from ..teacher.solvers import HostSampler
from .schedules import schedules_for

AT_ONCE = 64                # images that run together, and that are shown to the feature network together
DIGITS = 12                 # decimals of a table's numbers: equal up to there, they count as equal
CURVE = "curve"             # name of the schedule of a preset's own levels
# solvers that a training does not try its start on: docs/constants.md
NO_STARTS = ("res_multistep", "dpmpp_2m_sigma", "ipndm_v", "er_sde", "heunpp2", "ralston", "exp_heun", "res_2s",
             "res_3s", "res_2m", "res_3m", "unipc_bh1_sigma", "unipc_bh2_sigma")
STARTS = tuple(name for name in classical.SOLVERS if name not in NO_STARTS)


def pooled(per_seed: np.ndarray, axis: int = -1) -> np.ndarray:
    """RMSE over everything from the RMSE of each seed."""
    return np.sqrt(np.mean(per_seed ** 2, axis=axis))


@dataclass(frozen=True)
class Entry:
    """A baseline or learned table and its errors: RMSE to the teacher per seed, for the first len(errors) seeds.

    features (n, F): of its results, if it ran all seeds and the source has a feature space. finer: errors to a finer
    teacher, for the first seeds. frechet_only: only the Fréchet distance can judge it (stochastic, or other guidance).
    """

    solver_name: str
    schedule_name: str
    table: Table | HostSampler
    errors: np.ndarray = field(default_factory=lambda: np.empty(0))
    features: np.ndarray | None = None
    finer: np.ndarray = field(default_factory=lambda: np.empty(0))
    frechet_only: bool = False

    @property
    def name(self) -> str:
        return f"{self.solver_name}, {self.schedule_name}"

    @property
    def rmse(self) -> float:
        """The RMSE over all pixels of all seeds together."""
        return float(pooled(self.errors))

    @property
    def median(self) -> float:
        """The median of the seeds' own RMSE."""
        return float(np.median(self.errors))


def baselines(source: Source, calls: int, names: set | None = None, top: float | None = None,
              curve: np.ndarray | None = None, pin: bool = False) -> list[Entry]:
    """Every baseline that makes at most `calls` calls, from the level `top` on; names keeps only those of them.

    curve: for a window, its levels (calls + 1,) on the preset's own curve, one more schedule. pin: of two models, on
    schedules with the boundary among their levels, as a table has it.
    """
    entries, known = [], schedules_for(source, top)
    if curve is not None:
        known[CURVE] = partial(schedules.stretched, curve, flow=source.flow)
    if pin and source.boundary is not None:
        known = {name: lambda steps, levels=levels: experts.pinned(levels(steps), source.boundary)
                 for name, levels in known.items()}
    for schedule_name, levels in known.items():
        for solver_name, solver in classical.SOLVERS.items():
            if names is not None and (solver_name, schedule_name) not in names:
                continue
            if solver_name.endswith("_sigma") and not source.flow:      # there it is the one without
                continue
            try:
                table = table_within(solver, levels, calls, source.flow, source.boundary)
            except ValueError:              # a schedule that cannot place so many levels
                continue
            entries.append(Entry(solver_name, schedule_name, table))
    return entries


def table_within(solver, levels, calls: int, flow: bool, boundary: float | None = None) -> Table:
    """The table of the most steps (levels: steps -> levels) that makes at most `calls` calls. Raises ValueError as
    solvers and schedules do, and where one step makes more.

    boundary: the level at which two models change, and the solver starts anew.
    """
    def table(steps):
        there = levels(steps)
        return solver(there, flow=flow) if boundary is None else experts.restarted(solver, there, boundary, flow)
    steps = max(1, calls // solver.calls_per_step)
    best = table(steps)
    if best.calls > calls:
        raise ValueError(f"one step makes {best.calls} calls, {calls} are given")
    while solver.calls_per_step > 1 and (more := table(steps + 1)).calls <= calls:
        best, steps = more, steps + 1
    return best


def measured(source: Source, entries: Sequence[Entry], pairs: Pairs, features: bool = False) -> list[Entry]:
    """The entries with their errors on these pairs, of which each has run the first len(errors), and their features,
    for which they run all of them again. A non-finite result counts as infinitely far."""
    done = [replace(entry, errors=np.empty(0)) if features else entry for entry in entries]
    results: list[list[Tensor]] = [[] for _ in entries]
    for begin in {len(entry.errors) for entry in done} - {len(pairs)}:
        here = [place for place, entry in enumerate(done) if len(entry.errors) == begin]
        # by the table, which may be that of several
        places = {id(done[some[0]].table): some for some in _alike(here, lambda place: id(done[place].table))}
        tables = [done[first].table for first, *_ in places.values()]
        left = pairs.part(slice(begin, None))
        shared = shared_ends(source, [table for table in tables if isinstance(table, Table)], left)
        alone = ((table, ends(source, table, left)) for table in tables if not isinstance(table, Table))
        for table, some in chain(shared, alone):
            for place in places[id(table)]:
                ran = done[place].errors
                far = errors(some, pairs.target[len(ran):len(ran) + len(some)])
                far = np.append(ran, np.nan_to_num(far, nan=np.inf, posinf=np.inf))
                done[place] = replace(done[place], errors=far)
                if features:
                    results[place].append(some)
    return [replace(entry, features=features_of(source, torch.cat(some)) if features else None)
            for entry, some in zip(done, results)]


@torch.no_grad()
def features_of(source: Source, results: Tensor) -> np.ndarray | None:
    """(n, F) of results in the source's feature space, decoded first; None if it has none or n is below F."""
    if source.features is None:
        return None
    decode = source.decode or (lambda latents: latents)
    features = torch.cat([source.features(decode(part)).cpu().double() for part in results.split(AT_ONCE)]).numpy()
    return features if len(features) > features.shape[1] and np.isfinite(features).all() else None


class Branch(NamedTuple):
    """Tables that are alike up to some call: the state (n, ...) before their last step, the predictions up to there."""

    tables: list[Table]
    state: Tensor
    history: dict[int, Tensor]


@torch.no_grad()
def shared_ends(source: Source, tables: Sequence[Table], pairs: Pairs) -> Iterator[tuple[Table, Tensor]]:
    """(table, where it carries the pairs' starts (n, ...)), of at most AT_ONCE pairs after another."""
    for i in range(0, len(pairs), AT_ONCE):
        part = pairs.part(slice(i, i + AT_ONCE))
        for some in _alike(tables, lambda table: (_number(table.sigmas[0]), _question(table, 0))):
            yield from _follow(source, part, [Branch(some, part.start(float(some[0].sigmas[0]), source.flow), {})], 0)


def shared_calls(tables: Iterable[Table]) -> int:
    """Network calls of `shared_ends` for one pair."""
    paths: set[tuple] = set()
    for table in tables:
        path: tuple = (_number(table.sigmas[0]),)
        for call, row in enumerate(table.rows):
            paths.add(path := (*path, _question(table, call)))
            path = (*path, _step(row))
    return len(paths)


def _follow(source: Source, pairs: Pairs, branches: list[Branch], call: int) -> Iterator[tuple[Table, Tensor]]:
    """Make this call for all branches, and all that follow. All tables of a branch make the same call."""
    most = max(1, min(source.chunk, AT_ONCE) // len(pairs))         # branches whose images fill a network call
    for group in _alike(branches, lambda branch: _question(branch.tables[0], call)):
        for i in range(0, len(group), most):
            yield from _ask(source, pairs, group[i:i + most], call)


def _ask(source: Source, pairs: Pairs, branches: list[Branch], call: int) -> Iterator[tuple[Table, Tensor]]:
    rows = [branch.tables[0].rows for branch in branches]
    states = [next_state(branch.state, row[call - 1], branch.history) if call else branch.state
              for branch, row in zip(branches, rows)]
    row = rows[0][call]
    shown = torch.cat(states) * row.scale
    level = torch.full((len(shown),), row.query, dtype=torch.promote_types(shown.dtype, torch.float32),
                       device=shown.device)
    told = {name: torch.cat([value] * len(states)) for name, value in pairs.extra.items()}
    answers = source.denoiser(shown, level, **told).split(len(pairs))
    after = []
    for branch, state, answer in zip(branches, states, answers):
        history = {**branch.history, call: answer}
        for some in _alike(branch.tables, lambda table: (_step(table.rows[call]), _question(table, call + 1))):
            if some[0].calls > call + 1:
                after.append(Branch(some, state, history))
                continue
            end = next_state(state, some[0].rows[call], history)
            yield from ((table, end) for table in some)
    yield from _follow(source, pairs, after, call + 1)


def _alike(items: Iterable, key: Callable) -> list[list]:
    groups: dict = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())


def _number(value) -> float:
    return round(float(value), DIGITS)


def _question(table: Table, call: int) -> tuple | None:
    """What the network is asked in this call; None after the last."""
    return None if call == table.calls else (_number(table.rows[call].query), _number(table.rows[call].scale))


def _step(row: Row) -> tuple:
    return _number(row.carry), tuple((call, _number(weight)) for call, weight in row.terms)
