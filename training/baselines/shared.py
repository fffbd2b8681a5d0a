"""Runs many tables on the same noise; what their runs have in common is run once.

Most solvers begin with Euler's step, so that on one schedule they ask the network the same first questions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...s4s_nodes.core import Table
from ...s4s_nodes.core.loop import next_state
from ...s4s_nodes.core.table import Row
from ..source import Source
from ..teacher.pairs import Pairs

AT_ONCE = 64                # images that run together
DIGITS = 12                 # decimals of a table's numbers: equal up to there, they count as equal


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
