"""Checks of a configuration against a source, before the first network call."""

from __future__ import annotations

from .config import Config
from .optimizers.objective import objective_of
from .source import Source
from .starts.search import check_schedule
from .teacher.solvers import check_teacher


def check(config: Config, source: Source) -> None:
    """Raises ValueError for an objective, an unknown schedule or teacher, or a range of cfg that cannot be had."""
    if len(config.cfg) > 1 and not source.any_cfg:
        raise ValueError(f"{source.name} can be asked at cfg {source.cfg:g} only: give one cfg, or a source whose "
                         "network is told it (any_cfg)")
    objective_of(config.gradient.objective, source)             # raises where lpips lacks something
    check_teacher(source, config.teacher.solver, config.teacher.calls, config.windows)
    check_schedule(source, config)
