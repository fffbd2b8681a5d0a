"""Successive halving (Jamieson and Talwalkar 2016) over all baselines: the one search for the best of them.

A few solvers first tell good schedules from bad ones; then all solvers run on these, on more seeds the fewer are left.
Whatever reaches the last round has run the same seeds, and only that may be ranked.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from ...s4s_nodes.core import classical
from ..source import Source
from ..teacher.pairs import Pairs
from .measure import Entry, measure

PROBES = ("dpmpp_2m", "ipndm_2", "unipc_bh2_2")         # solvers that tell good schedules from bad ones
EVERY = 1_000_000                                       # more than there will ever be


class Effort(NamedTuple):
    """What a search spends: seeds that the probes run on every schedule, and how many schedules that leaves (0 seeds:
    all of them); then rounds of (seeds, the most baselines that run them)."""

    probes: int
    schedules: int
    rounds: tuple


# of races, by what they cost; docs/constants.md has what each finds. FULL is for races without a budget
EFFORTS = (Effort(1, 3, ((1, EVERY), (EVERY, 5))), Effort(2, 5, ((2, EVERY), (6, 16), (EVERY, 6))),
           Effort(0, EVERY, ((2, EVERY), (8, 48), (EVERY, 10))))
FULL = Effort(0, EVERY, ((8, EVERY), (32, 80), (EVERY, 16)))


def searched(source: Source, entries: Sequence[Entry], pairs: Pairs, effort: Effort, kept: Collection[str] = (),
             features: bool = False) -> list[Entry]:
    """All that ran, best mean error first, those that ran the most pairs before all others.

    kept: names of entries that run every round. An entry on a schedule of its own (`measure.Entry.own_schedule`) is not
    probed. features: of the last round.
    """
    ran: dict[str, Entry] = {}

    def run(some, seeds, shown=False):
        few = pairs.part(slice(0, seeds))
        done = sorted([measure(source, entry, few, shown) for entry in some], key=lambda entry: entry.errors.mean())
        ran.update({entry.name: entry for entry in done})
        return done
    running = list(entries)
    if effort.probes:
        probes = run([entry for entry in entries if entry.solver_name in PROBES], effort.probes)
        best = list(dict.fromkeys(entry.schedule_name for entry in probes))[:effort.schedules]
        running = [entry for entry in entries
                   if entry.schedule_name in best or entry.name in kept or entry.own_schedule]
    for number, (seeds, most) in enumerate(effort.rounds):
        running = running[:most] + [entry for entry in running[most:] if entry.name in kept]
        running = run(running, seeds, features and number == len(effort.rounds) - 1)
    return sorted(ran.values(), key=lambda entry: (-len(entry.errors), entry.errors.mean()))


def search_cost(effort: Effort, calls: int, seeds: int, schedules: int, own: int = 0,
                solvers: int = len(classical.SOLVERS)) -> int:
    """The most network calls that `searched` makes on so many seeds and schedules, one entry kept to the end.

    own: entries on schedules of their own.
    """
    cost = min(effort.probes, seeds) * schedules * len(PROBES)
    left = min(effort.schedules, schedules) if effort.probes else schedules
    running = left * solvers + own + 1
    for some, most in effort.rounds:
        running = min(running, most + 1)
        cost += running * min(some, seeds)
    return calls * cost
