"""What a run will cost, and how it is cut to a budget of network calls."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace

from .baselines.schedules import schedules_for
from .config import Config
from .optimizers import tangents
from .optimizers.budgeted import FIRST, STEPS
from .optimizers.gauss_newton import calls_per_image, pairs_at
from .parametrization.parameters import Parameters
from .source import Source
from .starts.gits import POINTS, SEEDS
from .starts.ranking import ranking_calls
from .teacher.solvers import calls_of

# with a budget: held-out pairs, the teacher's calls, pairs that rank the starts, pairs that check the teacher
HELD_OUT, TEACHER_CALLS, RANKING, CHECKED = 16, 20, 12, 2
LEAST_PAIRS = 16            # fewer would be learned by heart
LAST_STEPS = 4              # steps of the second round that are paid for in advance


@dataclass(frozen=True)
class Plan(Config):
    """A configuration cut to its budget, its mode settled; ranking, checked: held-out pairs for the choice of the
    start and for the check of the teacher."""

    ranking: int = 32
    checked: int = 8


def planned(config: Config, source: Source, mode: str) -> Plan:
    """The plan of a configuration in this mode. Raises ValueError for too small a budget, with what would do."""
    iterations = config.iterations if mode == config.mode or config.budget else config.usual_iterations(mode)
    plan = Plan(**{**asdict(config), "mode": mode, "iterations": iterations})
    if not config.budget:
        return plan
    plan = replace(plan, validation=min(config.validation, HELD_OUT), ranking=RANKING, checked=CHECKED, starts=1,
                   teacher_calls=calls_of(source.teacher, min(config.teacher_calls, TEACHER_CALLS)))
    return _gradient_plan(plan, source) if mode == "gradient" else _forward_plan(plan, source)


def _forward_plan(plan: Plan, source: Source) -> Plan:
    """As many pairs as the budget can teach and measure, for the table that affords the fewest."""
    def affordable(calls):
        return int((plan.budget - before_pairs(plan, source, calls)) / pair_cost(plan, source, calls))
    calls = min(plan.calls, key=affordable)
    if affordable(calls) < LEAST_PAIRS:
        _refuse(plan, calls, before_pairs(plan, source, calls) + LEAST_PAIRS * pair_cost(plan, source, calls))
    return replace(plan, pairs=min(plan.pairs, affordable(calls)))


def before_pairs(plan: Plan, source: Source, calls: int) -> int:
    """Network calls of forward mode that do not grow with the pairs: all before the first step, the first round, and
    the validations of the second."""
    rough = FIRST * tangents.calls_per_image(any_parameters(plan, source, calls), most=tangents.ROUGH)
    steps = calls * (STEPS * (FIRST + plan.validation) + LAST_STEPS * plan.validation)
    return fixed_cost(plan, source, calls) + rough + steps


def _gradient_plan(plan: Plan, source: Source) -> Plan:
    """As many steps as the budget allows, for the table that affords the fewest."""
    plan = replace(plan, pairs=min(plan.pairs, 4 * plan.batch))
    shared = taught_before(plan) * plan.teacher_calls // len(plan.calls)
    before = {calls: fixed_cost(plan, source, calls) + shared + plan.validation * calls      # and the last validation
              for calls in plan.calls}
    steps = {calls: (plan.budget - before[calls]) // step_cost(plan, calls) for calls in plan.calls}
    calls = min(steps, key=steps.get)
    if steps[calls] < 1:
        _refuse(plan, calls, before[calls] + step_cost(plan, calls))
    return replace(plan, iterations=min(plan.iterations or steps[calls], steps[calls]))


def _refuse(plan: Plan, calls: int, least: float) -> None:
    raise ValueError(f"a budget of {plan.budget:,} network calls is too small for a table of {calls} calls: at least "
                     f"{math.ceil(least):,} are needed")


def fixed_cost(plan: Plan, source: Source, calls: int) -> int:
    """Network calls before the first step, without the training pairs: held-out pairs (shared by the tables), the
    check of the teacher, the choice of the start."""
    choice = ranking_calls(source, calls, plan)
    choice += SEEDS * POINTS if plan.schedule == "gits" else 0
    return shared_cost(plan, plan.validation + 2 * plan.checked) + choice + plan.validation * calls


def taught_before(plan: Plan) -> int:
    """Training pairs that are made before the first step."""
    return 0 if plan.fresh else plan.pairs


def shared_cost(plan: Plan, pairs: int) -> int:
    """One table's share of so many teacher pairs."""
    return math.ceil(pairs * plan.teacher_calls / len(plan.calls))


def pair_cost(plan: Plan, source: Source, calls: int) -> float:
    """Network calls a training pair costs: the teacher's, one measured Jacobian, and the steps of the second round."""
    measured = tangents.calls_per_image(any_parameters(plan, source, calls))
    return plan.teacher_calls / len(plan.calls) + measured + LAST_STEPS * calls


def any_parameters(plan: Plan, source: Source, calls: int) -> Parameters:
    """Parameters of a table of so many calls, wherever they start."""
    return Parameters.of(plan, source, schedules_for(source)["time_uniform"](calls))


def step_cost(plan: Plan, calls: int) -> int:
    """Network calls of one step in gradient mode, which runs each call twice, with its share of the validations.

    Relaxed starts are tried once more; fresh noise is taught.
    """
    images, runs = min(plan.batch, plan.pairs), 3 if plan.relaxed else 2
    taught = plan.teacher_calls * images if plan.fresh else 0
    return calls * (runs * images + math.ceil(plan.validation / plan.every)) + taught


def forecast(plan: Plan, source: Source, calls: int | None = None) -> int:
    """Network calls of one table after its start is chosen, or of the whole run with its teacher.

    An upper bound in forward mode without a budget.
    """
    if calls is None:
        each = sum(plan.budget or fixed_cost(plan, source, calls) + shared_cost(plan, taught_before(plan))
                   + forecast(plan, source, calls) for calls in plan.calls)
        return each * len(plan.windows)
    if plan.budget:
        return plan.budget - fixed_cost(plan, source, calls) - shared_cost(plan, taught_before(plan))
    if plan.mode == "gradient":
        return plan.iterations * step_cost(plan, calls)
    per_image = calls_per_image(any_parameters(plan, source, calls)) + 2 * calls
    images = sum(pairs_at(done, plan.iterations, plan.pairs) for done in range(plan.iterations))
    return images * per_image + plan.iterations * plan.validation * calls
