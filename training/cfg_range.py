"""The guidance scales of a run, in the order they are learned: each but the first starts from its neighbour's tables.

Tables learned so lie in one valley, and a host can interpolate between them (s4s_nodes/select/cfg.py); tables learned
apart do not interpolate.
"""

from dataclasses import replace
from typing import NamedTuple

from ..s4s_nodes.select.cfg import name_at
from .budget import UNLIMITED, Plan, forecast, plan_for
from .config import Config
from .source import Source

OTHERS = 0.7                # of the first node's budget, for all others together: docs/how-to/several-cfg.md


class CfgNode(NamedTuple):
    """One guidance scale of a run, its configuration cut to its share of the budget, and the cfg of the node whose
    tables its own start from; None: the first."""

    cfg: float
    config: Config
    neighbour: float | None = None

    def plan(self, source: Source, teacher_calls: int = 0, checked: int = 0) -> Plan:
        """Raises ValueError for too small a budget."""
        return plan_for(self.config, source, teacher_calls, checked, self.neighbour is not None)

    def name(self, stem: str, cfg: float | None = None) -> str:
        """The table's name in a run: at the node's own cfg, or at another."""
        return name_at(stem, self.cfg if cfg is None else cfg) if len(self.config.cfg) > 1 else stem


def nodes_of(config: Config) -> list[CfgNode]:
    """The nodes of a configuration: the highest cfg first, where a teacher has the hardest time, then downwards."""
    falling = sorted(config.cfg, reverse=True)
    share = OTHERS / max(1, len(falling) - 1)
    other = replace(config, budget=int(share * (config.budget or UNLIMITED)))
    return [CfgNode(falling[0], config), *(CfgNode(cfg, other, above) for above, cfg in zip(falling, falling[1:]))]


def run_calls(nodes: list[CfgNode], source: Source, *teacher: int) -> int:
    """Network calls of a whole run, at most. teacher: its calls and what measuring it took, as in `plan_for`."""
    return sum(forecast(node.plan(source, *teacher), source) for node in nodes)
