"""What a run costs, and the plan that fits it into a budget of network calls, for each cfg of the run."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import NamedTuple

from ..s4s_nodes.select.cfg import name_at
from .baselines.halving import EVERY, Effort
from .baselines.schedules import schedules_for
from .config import Config
from .optimizers.gauss_newton import pair_cost as pair_cost_of
from .optimizers.state import FIRST_BATCH
from .parametrization.parameters import Parameters
from .source import Source
from .starts.search import search_calls
from .teacher.convergence import probe_calls, probes
from .teacher.solvers import calls_of

UNLIMITED = 100_000         # cap of a run without a budget: we did not measure whether more helps
LEAST_PAIRS = FIRST_BATCH   # pairs that one iteration measures
QUICKLY, NORMAL, THOROUGH = (Effort(1, 2, ((1, EVERY), (6, 3))), Effort(1, 3, ((1, EVERY), (12, 5))),
                             Effort(4, 4, ((4, EVERY), (32, 6))))
USUAL_BATCH = 6             # pairs of an iteration, about
MOST_TURNS = 4              # how often a training pair is used in the iterations
VALIDATIONS = 2             # beside those of the iterations: the best baseline, and a different start
NOISE_CALLS = 10            # network calls that measure how noisy the network's answers are
PRICE = 1.7                 # budgets that all nodes of a range of cfg cost together: docs/how-to/several-cfg.md
FIRST = 0.7                 # of these, the least for the first node, where the others begin


class CfgNode(NamedTuple):
    """One guidance scale of a run, its share of the budget, and the cfg whose tables its own start from (None: first).

    Tables learned so lie in one valley, and a host can interpolate between them; those learned apart do not.
    """

    cfg: float
    config: Config
    share: float = 1.0
    neighbour: float | None = None

    def name(self, stem: str, cfg: float | None = None) -> str:
        """The table's name in a run: at the node's own cfg, or at another."""
        return name_at(stem, self.cfg if cfg is None else cfg) if len(self.config.cfg) > 1 else stem


@dataclass(frozen=True)
class Plan(Config):
    """A configuration, reduced to fit its budget: the node's share of the run's, or of UNLIMITED if that has none.

    effort: of the search for the start; checked: network calls that measuring the teacher has cost, 0 before;
    pairs_cut: the number of training pairs is cut to the budget, by the table that affords the fewest; warm: its tables
    start from those learned at another cfg, and take over what was measured there.
    """

    effort: Effort = THOROUGH
    checked: int = 0
    pairs_cut: bool = False
    warm: bool = False


def plan_for(node: CfgNode, source: Source, teacher_calls: int = 0, checked: int = 0) -> Plan:
    """The plan of a cfg node: as many measured pairs as its budget affords, for the table that affords the fewest.

    teacher_calls: as its measured error requires; checked: what measuring it cost; 0: not measured yet. A small share
    of a budget is exceeded. Raises ValueError if the whole budget is too small for a table, with what would do.
    """
    config, teacher_calls = node.config, calls_of(source.teacher, teacher_calls or node.config.teacher.calls)
    whole = config.budget or UNLIMITED
    plan = Plan(**vars(config), checked=checked, warm=node.neighbour is not None)
    plan = plan.replace(teacher_calls=teacher_calls, budget=int(node.share * whole))
    held_out = max(8, min(64, plan.budget // 600))
    effort = QUICKLY if held_out < 12 else NORMAL if held_out < 32 else THOROUGH
    plan = plan.replace(validation=min(config.data.validation, held_out), effort=effort)
    afforded = {calls: affordable(plan, source, calls) for calls in plan.calls}
    calls = min(afforded, key=lambda count: afforded[count])
    least = fixed_cost(plan, source, calls) + _growing_cost(plan, calls, LEAST_PAIRS, pair_cost(source, calls))
    if least > whole:
        raise ValueError(f"a budget of {config.budget:,} network calls is too small for a table of {calls} calls: at "
                         f"least {math.ceil(least):,} are needed")
    return plan.replace(pairs=_distinct(plan, afforded[calls]), pairs_cut=True)


def affordable(plan: Plan, source: Source, calls: int) -> int:
    """The most pairs that a table's budget can measure, with all that goes with them, and LEAST_PAIRS at least; made
    already with `pairs_cut`."""
    pair, fixed = pair_cost(source, calls), fixed_cost(plan, source, calls)
    most = bisect_right(range(1, MOST_TURNS * plan.data.pairs + 1), plan.budget,
                        key=lambda total: fixed + _growing_cost(plan, calls, total, pair))
    return max(most, LEAST_PAIRS)


def _growing_cost(plan: Plan, calls: int, total: int, pair: int) -> int:
    """Network calls that grow with the `total` pairs the iterations measure, at `pair` calls each."""
    pairs = plan.data.pairs if plan.pairs_cut else _distinct(plan, total)
    return shared_cost(plan, pairs) + _learning_cost(plan, calls, total, pair)


def _learning_cost(plan: Plan, calls: int, total: int, pair: int) -> int:
    return math.ceil(total / USUAL_BATCH) * plan.data.validation * calls + total * pair


def _distinct(plan: Plan, total: int) -> int:
    """Training pairs that are made: half of those measured, which take turns, and all where tables share their price;
    and enough for the last iteration."""
    return min(plan.data.pairs, max(min(16, total), min(total, total * len(plan.calls) // 2)))


def pair_cost(source: Source, calls: int) -> int:
    return pair_cost_of(Parameters.of(source, schedules_for(source)["time_uniform"](calls)))


def fixed_cost(plan: Plan, source: Source, calls: int) -> int:
    """Network calls before the first step, without the training pairs: held-out pairs and what is measured of teacher
    and network (both shared by the tables), the choice of the start."""
    twice = 2 * plan.teacher.calls * isinstance(source.teacher, tuple)              # to see whether it is deterministic
    check = NOISE_CALLS + twice + probes(plan.budget) * probe_calls(plan.teacher.calls, max(plan.calls))
    check = 0 if plan.warm else plan.checked or check
    return shared_cost(plan, plan.data.validation) + check // len(plan.calls) \
        + search_calls(source, calls, plan) + VALIDATIONS * plan.data.validation * calls


def shared_cost(plan: Plan, pairs: int) -> int:
    """One table's share of so many teacher pairs."""
    return math.ceil(pairs * plan.teacher.calls / len(plan.calls))


def forecast(plan: Plan, source: Source, calls: int) -> int:
    """Network calls of one table after its start is chosen: an upper bound."""
    total = affordable(plan, source, calls)
    if plan.iterations:                                 # each has at most twice the pairs of the one before
        total = min(total, FIRST_BATCH * (2 ** min(plan.iterations, 30) - 1))
    return _learning_cost(plan, calls, total, pair_cost(source, calls))


def nodes_of(config: Config) -> list[CfgNode]:
    """The nodes of a configuration: the highest cfg first, where a teacher has the hardest time, then downwards."""
    highest, *others = sorted(config.cfg, reverse=True)
    if not others:
        return [CfgNode(highest, config)]
    first = max(FIRST, PRICE / len(config.cfg))
    share = (PRICE - first) / len(others)
    return [CfgNode(highest, config, first),
            *(CfgNode(cfg, config, share, above) for above, cfg in zip([highest, *others], others))]


def run_calls(nodes: list[CfgNode], source: Source, *teacher: int) -> int:
    """Network calls of a whole run with its teacher, at most. teacher: its calls and cost, as in `plan_for`."""
    plans = [plan_for(node, source, *teacher) for node in nodes]
    return sum(len(plan.windows) * (fixed_cost(plan, source, calls) + shared_cost(plan, plan.data.pairs)
                                    + forecast(plan, source, calls)) for plan in plans for calls in plan.calls)
