"""The teacher that makes the targets, and the check that it is deterministic.

It is a classical solver by name, or a host's k-diffusion sampler function with its levels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...s4s_nodes.core import Table, classical, experts, sample, schedules
from ..source import Source

MOST_KARRAS = 1000.0        # highest level of a model whose teacher takes Karras' levels
AUTO = "unipc_bh2_3"
CHECKED_BY = ("dpmpp_3m", "unipc_bh2_3")    # the solver that checks a teacher, and the one for a teacher of the first
CLEARLY_BELOW = 0.99        # times a window's first level: a level above that would make too short a step
SAME = 1e-3                 # share of the result's size: two runs of a deterministic teacher differ only by rounding


@dataclass(frozen=True)
class HostSampler:
    """A k-diffusion sampler function on its own levels, to be used wherever a Table is run to its end.

    function(model, x, sigmas, extra_args=..., disable=...) -> x: the signature of the hosts' samplers.
    """

    function: Callable
    sigmas: np.ndarray
    calls: int              # per image

    def __call__(self, denoiser: Callable, x: Tensor, extra: dict) -> Tensor:
        levels = torch.as_tensor(self.sigmas, dtype=torch.float32, device=x.device)
        return self.function(denoiser, x, levels, extra_args=dict(extra), disable=True)


@dataclass(frozen=True)
class Teacher:
    """What makes the targets. description: such as "unipc_bh2_3, 32 calls".

    from_level(sigma) -> the Table or HostSampler that makes targets from this level on;
    finer: a solver with about twice the calls, if possible another one, to check the teacher;
    check_calls: the cost of the check for randomness.
    """

    description: str
    from_level: Callable
    finer: Callable
    check_calls: int = 0


def carried(source: Source, table, start: Tensor, extra: dict, on_call=None) -> Tensor:
    """Where a Table, or a HostSampler, carries the start states (n, ...)."""
    if isinstance(table, HostSampler):
        return table(source.denoiser, start, extra)
    return sample(source.denoiser, start, table, extra, on_call)


def teacher_of(source: Source, name: str, calls: int) -> Teacher:
    """The source's own teacher if it brings one, else the classical solver of this name, on its teacher's model.

    Raises ValueError for a stochastic sampler or an unknown name.
    """
    if source.teacher is not None:
        return _host_teacher(source, *source.teacher)
    name = AUTO if name == "auto" else name
    other, model = CHECKED_BY[name == CHECKED_BY[0]], source.teacher_source
    whose = "" if model is None else f"{model.name} at cfg {model.cfg:g}: "

    def on(solver: str, calls: int) -> Callable:
        return lambda top: on_teacher(source, teacher_table(source, solver, calls, top))
    return Teacher(f"{whose}{name}, {calls} calls", on(name, calls), on(other, 2 * calls))


def on_teacher(source: Source, table: Table) -> Table | HostSampler:
    """The table, run on the source's other model if that makes the targets; its calls count as the source's."""
    if (model := source.teacher_source) is None:
        return table

    def run(denoiser, x, levels, extra_args, disable):
        student = denoiser.__self__                 # the Source: it counts, checks, and halves where memory runs out
        extra = {name: value for name, value in extra_args.items() if name != "cfg"}
        if model.any_cfg:
            extra["cfg"] = torch.full((len(x),), model.cfg, device=x.device)
        own, student.network = student.network, model.network
        try:
            return sample(denoiser, x, table, extra)
        finally:
            student.network = own
    return HostSampler(run, table.sigmas.copy(), table.calls)


def calls_of(teacher, calls: int) -> int:
    """Calls per image of a source's own teacher, before it has run; else the configured ones."""
    return calls if teacher is None else len(teacher[1]) - 1


def teacher_table(source: Source, name: str, calls: int, top: float | None = None) -> Table:
    """A classical solver on a schedule that suits many calls. Raises ValueError for an unknown name.

    top: start from this level of the schedule instead. Where two models take turns it starts anew at the boundary.
    """
    if name not in classical.SOLVERS:
        raise ValueError(f"unknown solver {name!r}; there are: {', '.join(classical.SOLVERS)}")
    steps = max(1, calls // classical.SOLVERS[name].calls_per_step)
    levels = teacher_levels(source, steps)
    if source.boundary is not None:
        pinned = experts.pinned(levels, source.boundary)
        return experts.restarted(classical.SOLVERS[name], pinned, source.boundary, source.flow)
    return classical.SOLVERS[name](levels if top is None else below(levels, top), flow=source.flow)


def teacher_levels(source: Source, steps: int) -> np.ndarray:
    """Levels (steps + 1,) for many steps, from the model's highest to 0: Karras', or even in an angle.

    With noise over signal r = cot^2(a), even steps in a are dense at both ends of a flow, where networks that predict
    the image are stiff, and spend few steps where a zero terminal SNR model's states are noise and nothing else.
    docs/constants.md has the measurements.
    """
    low, top = float(source.levels[0]), source.sigma_max
    if not source.flow and top <= MOST_KARRAS or steps < 2:
        return schedules.karras(steps, low, top)
    ends = np.array([top, low])
    ratios = ends / np.maximum(1 - ends, 1e-12) if source.flow else ends
    first, last = np.arctan(ratios ** -0.5)
    squares = np.tan(np.linspace(first, last, steps)) ** 2                              # signal over noise
    inner = 1 / (1 + squares) if source.flow else 1 / squares
    return np.concatenate([[top], inner[1:], [0.0]])


def below(levels: np.ndarray, top: float) -> np.ndarray:
    """The levels from `top` on: it, and those clearly below it."""
    return np.append(top, levels[levels < CLEARLY_BELOW * top])


def tried(source: Source, sampler: HostSampler) -> tuple[int, float]:
    """(network calls an image, how far two runs from one start end apart, of the result's size) of a host's sampler.

    The two runs see different global random numbers, so that noise drawn from them shows.
    """
    seeds = [0]
    start, extra = source.noise(seeds) * float(sampler.sigmas[0]), source.extra(seeds)
    ends, before = [], source.model_calls
    for seed in (1, 2):
        with torch.random.fork_rng(enabled=True), torch.no_grad():
            torch.manual_seed(seed)
            ends.append(sampler(source.denoiser, start.clone(), extra).cpu().double())
    apart = float((ends[0] - ends[1]).square().mean().sqrt() / ends[0].square().mean().sqrt().clamp(min=1e-12))
    return max(1, (source.model_calls - before) // 2), apart


def _host_teacher(source: Source, function: Callable, sigmas) -> Teacher:
    """The Teacher that such a sampler is. Raises ValueError if two runs from one start differ."""
    levels, words = host_levels(function, sigmas)
    calls, apart = tried(source, HostSampler(function, levels, 0))
    if not apart <= SAME:
        raise ValueError(f"the teacher {words} is stochastic: two runs from the same noise differ by {100 * apart:.3g} "
                         "%. Choose a deterministic one such as dpmpp_2m, heun or lms, not an ancestral or SDE one")
    per_step = calls / (len(levels) - 1)

    def on(levels, top):
        levels = levels if top is None else below(levels, top)
        return HostSampler(function, levels, round(per_step * (len(levels) - 1)))
    return Teacher(f"{words}, {calls} calls", lambda top: on(levels, top),
                   lambda top: on(refined(levels, source.flow), top), 2 * calls)


def host_levels(function: Callable, sigmas) -> tuple[np.ndarray, str]:
    """(levels, the sampler's name). Raises ValueError for levels that do not fall to 0."""
    words = getattr(function, "__name__", type(function).__name__)
    levels = np.asarray(torch.as_tensor(sigmas).detach().cpu().double())
    if levels.ndim != 1 or len(levels) < 2 or not (np.diff(levels) < 0).all() or levels[-1] != 0:
        raise ValueError(f"the teacher {words} has levels of shape {levels.shape}: expected at least two "
                         "falling ones that end in 0")
    return levels, words


def refined(levels: np.ndarray, flow: bool) -> np.ndarray:
    """The same schedule with twice the steps: levels between, ends kept (linear in log sigma; flow: in s)."""
    inner = levels[:-1] if flow else np.log(levels[:-1])
    places = np.linspace(0, len(inner) - 1, 2 * len(inner))
    between = np.interp(places, np.arange(len(inner)), inner)
    return np.append(between if flow else np.exp(between), 0.0)
