"""One table learned on several models at once, without a backward pass.

What is lowered is the mean over the models of (mean RMSE of its images) / (its unit), the unit being what a classical
solver leaves on that model: a table learns to be so many times closer everywhere. The normal equations of a
Gauss-Newton step are sums over images, so those of several models add (training/optimizers/gauss_newton.py does it for
one).
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from s4s.s4s_nodes.core import classical
from s4s.training.baselines.schedules import schedules_for
from s4s.training.optimizers.linearized import Slopes, measured
from s4s.training.parametrization.parameters import Parameters
from s4s.training.source import Source
from s4s.training.teacher.pairs import Pairs, ends, errors

BASES = ("dpmpp_2m", "unipc_bh2_2", "ipndm_2", "deis_2")         # what a table may start as
ORDER = 3                               # of the free weights: the paper's, and fewer than the trainer's default
ROUNDS, STEPS = (8, 16, 32), 4          # pairs of a model in each round, and most steps in one
ENOUGH = 0.01                           # share a step must win for another one to follow
DAMPINGS = (1e-2, 1e-1, 1.0, 10.0)
FLOOR = 1e-6


@dataclass
class Lesson:
    """A model, its pairs to learn from and to be checked by, and its unit of error; and what was measured on it."""

    source: Source
    pairs: Pairs
    held_out: Pairs
    unit: float = 1.0
    miss: Tensor | None = None          # (n, d)
    jacobian: Tensor | None = None      # (n, free numbers, d)

    def measure(self, parameters: Parameters, vector: Tensor, count: int) -> None:
        """Measure the first pairs at these numbers."""
        model = measured(self.source, parameters, vector, self.pairs.part(slice(0, count)))
        miss, changes = model.run(parameters.frozen(vector), Slopes(parameters, vector))
        self.miss, self.jacobian = (miss.float() @ model.tensors)[:, 0], changes.float() @ model.tensors

    def error(self, parameters: Parameters, vector: Tensor, held_out: bool) -> tuple[float, Tensor | None]:
        """(mean RMSE in units, misses) on the held-out pairs or on those measured; infinite where there is no table."""
        pairs = self.held_out if held_out else self.pairs.part(slice(0, len(self.miss)))
        try:
            miss = (ends(self.source, parameters.frozen(vector), pairs) - pairs.target).flatten(1).float()
        except ValueError:
            return float("inf"), None
        found = float(miss.square().mean(1).sqrt().mean()) / self.unit
        return (found if np.isfinite(found) else float("inf")), miss

    def normal_equations(self) -> tuple[Tensor, Tensor]:
        """(J^T W J, J^T W r) of the mean RMSE in units; W weighs an image by 1 / its RMSE."""
        count, size = self.miss.shape
        weight = 1 / (self.miss.square().mean(1).sqrt().clamp(min=FLOOR) * size * count * self.unit)
        columns = self.jacobian.transpose(0, 1)
        weighed = (columns * weight[None, :, None]).flatten(1)
        return (weighed @ columns.flatten(1).T).double(), (weighed @ self.miss.flatten()).double()

    def moved(self, step: Tensor, there: Tensor) -> None:
        """Broyden's correction of the Jacobian after a step that led to these misses."""
        wrong = there - self.miss - torch.einsum("nkd,k->nd", self.jacobian, step)
        self.jacobian = self.jacobian + torch.einsum("k,nd->nkd", step / step.square().sum(), wrong)
        self.miss = there


@dataclass(frozen=True)
class Learned:
    """Free numbers, their parametrisation, and the held-out error in units before and after."""

    parameters: Parameters
    vector: Tensor
    before: float
    after: float
    curve: list = field(default_factory=list)

    @property
    def table(self):
        return self.parameters.frozen(self.vector)


def start(lessons: list[Lesson], calls: int, few: int = 6) -> Parameters:
    """The base solver and the schedule, of all that any of the models has, that are best over all of them."""
    flow, tried = lessons[0].source.flow, []
    for lesson in lessons:
        for levels in schedules_for(lesson.source).values():
            there = levels(calls)
            if not any(np.allclose(there, other) for other in tried):
                tried.append(there)
    scores = {(base, i): np.mean([np.log(_mean(lesson, classical.SOLVERS[base](levels, flow=flow), few))
                                  for lesson in lessons]) for i, levels in enumerate(tried) for base in BASES}
    base, i = min(scores, key=scores.get)
    highest = max(lesson.source.sigma_max for lesson in lessons)
    return Parameters(tried[i], base, flow, highest=highest)


def moving(parameters: Parameters) -> Tensor:
    """Which of the numbers are learned: levels, queries, and the weights of the newest ORDER predictions."""
    rows, columns = parameters.places
    return torch.cat([torch.ones(sum(parameters.sizes[:2]), dtype=torch.bool), rows - columns < ORDER])


def _mean(lesson: Lesson, table, few: int) -> float:
    some = lesson.held_out.part(slice(0, few))
    return float(errors(ends(lesson.source, table, some), some.target).mean()) + FLOOR


def learn(lessons: list[Lesson], calls: int, begun: tuple | None = None) -> Learned:
    """The table of this many calls for all lessons together; begun: (parameters, vector) to go on from."""
    if begun is None:
        parameters = start(lessons, calls)
        vector = parameters.initial()
    else:
        parameters, vector = begun
    before = best_error = _checked(lessons, parameters, vector)
    best, curve = vector, [before]
    for count in ROUNDS:
        for lesson in lessons:
            lesson.measure(parameters, vector, count)
        for _ in range(STEPS):
            loss = sum(float(lesson.miss.square().mean(1).sqrt().mean()) / lesson.unit for lesson in lessons)
            found = _step(lessons, parameters, vector, loss)
            if found is None:
                break
            vector, after = found
            curve.append(_checked(lessons, parameters, vector))
            if curve[-1] < best_error:
                best, best_error = vector, curve[-1]
            if loss - after < ENOUGH * loss:
                break
    return Learned(parameters, best, before, best_error, curve)


def _checked(lessons: list[Lesson], parameters: Parameters, vector: Tensor) -> float:
    """The mean error in units on the held-out pairs."""
    return float(np.mean([lesson.error(parameters, vector, held_out=True)[0] for lesson in lessons]))


@torch.no_grad()
def _step(lessons: list[Lesson], parameters: Parameters, vector: Tensor, loss: float):
    """(new numbers, their loss), by the damping that helps most of those tried in turn; None where none helps."""
    parts = [lesson.normal_equations() for lesson in lessons]
    normal, slope = sum(part[0] for part in parts), sum(part[1] for part in parts)
    free = moving(parameters) & (normal.diagonal() > 0)
    best = None
    for damping in DAMPINGS:
        step = torch.zeros_like(vector)
        inner = normal[free][:, free]
        step[free] = -torch.linalg.solve(inner + damping * torch.diag(inner.diagonal()), slope[free])
        step = step / step.abs().max().clamp(min=1.0)       # a longer one leaves what the Jacobian knows
        there = [lesson.error(parameters, vector + step, held_out=False) for lesson in lessons]
        after = sum(error for error, _ in there)
        if after < loss * (1 - 1e-4) and (best is None or after < best[1]):
            best = (step, after, there)
        elif best is not None:
            break                                           # more damping only shortens the step that was found
    if best is None:
        return None
    for lesson, (_, miss) in zip(lessons, best[2]):
        lesson.moved(best[0].float(), miss)
    return vector + best[0], best[1]
