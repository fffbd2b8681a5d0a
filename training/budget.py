"""What a run will cost, and how it is cut to a budget of network calls."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from .config import MODES, Config
from .denoisers import Source
from .evaluate import schedules
from .forward_only import calls_per_image
from .parameters import Parameters

# with a budget
PAIRS, HELD_OUT, TEACHER_CALLS, RANKING, CHECKED = 32, 16, 24, 8, 2


@dataclass(frozen=True)
class Plan(Config):
    """A configuration cut to its budget, its mode settled; ranking, checked: held-out pairs for the choice of the
    start and for the check of the teacher."""

    ranking: int = 32
    checked: int = 8


def planned(config: Config, source: Source, mode: str) -> Plan:
    """The plan of a configuration in this mode. Raises ValueError for too small a budget, with what would do."""
    iterations = config.iterations if mode == config.mode or config.budget else MODES[mode]
    plan = Plan(**{**asdict(config), "mode": mode, "iterations": iterations})
    if not config.budget:
        return plan
    plan = replace(plan, pairs=min(config.pairs, PAIRS), validation=min(config.validation, HELD_OUT),
                   teacher_calls=min(config.teacher_calls, TEACHER_CALLS), ranking=RANKING, checked=CHECKED, starts=1)
    for calls in config.calls:
        left = config.budget - fixed_cost(plan, source, calls)
        iterations = left // step_cost(plan, source, calls)
        if iterations < 1:
            least = fixed_cost(plan, source, calls) + step_cost(plan, source, calls)
            raise ValueError(f"a budget of {config.budget:,} network calls is too small for a table of {calls} calls: "
                             f"at least {least:,} are needed")
        plan = replace(plan, iterations=min(plan.iterations or iterations, iterations))
    return plan


def fixed_cost(plan: Plan, source: Source, calls: int) -> int:
    """Network calls before the first step: teacher (shared by the tables), its check, choice of the start."""
    teacher = (plan.pairs + plan.validation + 2 * plan.checked) * plan.teacher_calls
    choice = min(plan.ranking, plan.validation) * calls * (len(schedules(source)) if plan.schedule == "auto" else 1)
    return teacher // len(plan.calls) + choice + plan.validation * calls


def step_cost(plan: Plan, source: Source, calls: int) -> int:
    """Network calls of one iteration, on average over a forward run without a budget."""
    if plan.mode == "gradient":
        return calls * (2 * min(plan.batch, plan.pairs) + plan.validation // plan.every)
    known = schedules(source)
    parameters = Parameters(known["time_uniform"](calls), plan.base, plan.order, source.flow, plan.learn)
    return plan.pairs * (calls_per_image(parameters) + 2 * calls) + plan.validation * calls


def forecast(plan: Plan, source: Source, calls: int | None = None) -> int:
    """Network calls of one table after its start is chosen, or of the whole run with its teacher."""
    if calls is not None and plan.budget:
        return plan.budget - fixed_cost(plan, source, calls)
    if calls is not None:
        return plan.iterations * step_cost(plan, source, calls)
    each = sum(plan.budget or fixed_cost(plan, source, calls) + forecast(plan, source, calls) for calls in plan.calls)
    return each * len(plan.windows)
