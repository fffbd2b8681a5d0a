"""What a configuration asks of a source that it cannot have, said before the first network call."""

from __future__ import annotations

from .config import Config
from .optimizers.objective import objective_of
from .source import Source
from .starts.search import check_schedule
from .teacher.solvers import check_teacher


def check(config: Config, source: Source) -> None:
    """Raises ValueError for an objective, an unknown schedule or an unknown teacher."""
    objective_of(config.objective, source)              # raises where lpips lacks something
    check_teacher(source, config.teacher, config.teacher_calls, config.windows)
    check_schedule(source, config)
