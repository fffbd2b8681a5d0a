"""Successive halving (Jamieson and Talwalkar 2016) over all baselines: the one search for the best of them.

A few solvers first tell good schedules from bad ones; then all solvers run on these, on more seeds the fewer are left.
Whatever reaches the last round has run the same seeds, and only that may be ranked.
"""

import math
from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import NamedTuple

from ...s4s_nodes.core import classical
from ...s4s_nodes.core.schedules import exponential
from ..source import Source
from ..teacher.pairs import Pairs
from ..teacher.solvers import HostSampler
from .measure import Entry, measured, shared_calls, table_within

PROBES = ("dpmpp_2m", "ipndm_2", "unipc_bh2_2")         # solvers that tell good schedules from bad ones
MARGIN = 1.02                                           # on some schedules one or two calls more are made
EVERY = 1_000_000                                       # more than there will ever be


class Effort(NamedTuple):
    """What a search spends: seeds that the probes run on every schedule, and how many schedules that leaves (0 seeds:
    all of them); then rounds of (seeds, the most baselines that run them)."""

    probes: int
    schedules: int
    rounds: tuple


# for races, by cost; the last is for races without a budget. docs/constants.md has what each finds
EFFORTS = (Effort(1, 3, ((1, EVERY), (EVERY, 5))), Effort(2, 5, ((2, EVERY), (6, 16), (EVERY, 6))),
           Effort(0, EVERY, ((1, EVERY), (2, 224), (4, 112), (8, 56), (16, 28), (EVERY, 12))),
           Effort(0, EVERY, ((2, EVERY), (4, 224), (8, 112), (16, 56), (32, 28), (EVERY, 16))))


def searched(source: Source, entries: Sequence[Entry], pairs: Pairs, effort: Effort, kept: Collection[str] = (),
             features: bool = False) -> list[Entry]:
    """All that ran, best mean error first, those that ran the most pairs before all others.

    kept: names of entries that run every round. A host's own sampler is not probed. features: of the last round.
    """
    ran: dict[str, Entry] = {}

    def run(some, seeds, shown=False):
        some = [ran.get(entry.name, entry) for entry in some]
        done = sorted(measured(source, some, pairs.part(slice(0, seeds)), shown), key=lambda entry: entry.errors.mean())
        ran.update({entry.name: entry for entry in done})
        return done
    running = list(entries)
    if effort.probes:
        probes = run([entry for entry in entries if entry.solver_name in PROBES], effort.probes)
        best = list(dict.fromkeys(entry.schedule_name for entry in probes))[:effort.schedules]
        running = [entry for entry in entries if entry.schedule_name in best or entry.name in kept
                   or isinstance(entry.table, HostSampler)]
    for number, (seeds, most) in enumerate(effort.rounds):
        running = running[:most] + [entry for entry in running[most:] if entry.name in kept]
        running = run(running, seeds, features and number == len(effort.rounds) - 1)
    return sorted(ran.values(), key=lambda entry: (-len(entry.errors), entry.errors.mean()))


class Entrants(NamedTuple):
    """How many take part in a search: all these solvers on each schedule; own: entries on other schedules."""

    calls: int
    schedules: int
    flow: bool
    own: int = 0
    solvers: tuple[str, ...] = tuple(classical.SOLVERS)


def search_cost(effort: Effort, entrants: Entrants, seeds: int, features: bool = False, likely: bool = False) -> int:
    """The most network calls that `searched` makes on so many seeds, with one entry kept to the end.

    likely: not the most, but if those left share as much as all did.
    """
    calls, schedules, flow, own, solvers = entrants
    cost = min(effort.probes, seeds) * schedules * shared_on_a_schedule(PROBES, calls, flow)
    left = min(effort.schedules, schedules) if effort.probes else schedules
    together = left * shared_on_a_schedule(solvers, calls, flow) + calls * (own + 1)
    everyone = running = left * len(solvers) + own + 1
    before = 0
    for number, (some, most) in enumerate(effort.rounds):
        running = min(running, most + 1)
        again = features and number == len(effort.rounds) - 1
        shared = together * running // everyone if likely else min(together, calls * running)
        cost += shared * (min(some, seeds) - (0 if again else before))
        before = min(some, seeds)
    return cost


@cache
def shared_on_a_schedule(solvers: tuple[str, ...], calls: int, flow: bool) -> int:
    """Network calls that these solvers make together for one image, on any one schedule."""
    # no two solvers coincide on these levels
    levels, tables = partial(exponential, sigma_min=0.002, sigma_max=1.0 if flow else 14.6, rho=1.7), []
    for name in solvers:
        with suppress(ValueError):                              # one of its steps makes more calls
            tables.append(table_within(classical.SOLVERS[name], levels, calls, flow))
    return math.ceil(MARGIN * shared_calls(tables))
