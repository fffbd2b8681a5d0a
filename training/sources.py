"""The source of a configuration: a bundled model or a checkpoint with its prompts; a teacher by a baseline's name."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ..s4s_nodes.core import Preset, classical, sample
from ..s4s_nodes.core.levels import starts_at
from ..s4s_nodes.core.model import is_number
from .baselines.schedules import schedules_for
from .config import TEACHER_CFG, Config
from .source import Source, pick_device


def of(config: Config, device: str, say: Callable = print) -> Source:
    """The Source of a configuration on this device. Raises ValueError if it cannot be opened."""
    if not config.model.checkpoint:
        from .demo_models.source import bundled  # a host's package comes without the small models
        source = bundled(config.model.name, config.cfg[0], pick_device(device))
    else:
        from .checkpoints.source import checkpoint  # diffusers is imported for checkpoints only
        source = checkpoint(config.model, config.cfg, pick_device(device), say)
        if other := config.model.teacher_checkpoint:
            its = replace(config.model, checkpoint=other, teacher_checkpoint="", teacher_cfg=TEACHER_CFG)
            source.teacher_source = checkpoint(its, (config.model.teacher_cfg,), pick_device(device), say)
    take_teacher(source, config)
    return source


def take_teacher(source: Source, config: Config) -> None:
    """Give the source the teacher that its configuration names, if any. Raises ValueError as `baseline_teacher`."""
    if "," in config.teacher.solver:
        source.teacher = baseline_teacher(source, config.teacher.solver, config.teacher.calls)


def baseline_teacher(source: Source, name: str, calls: int) -> tuple:
    """A baseline by its name, such as "euler, sgm_uniform", as Source.teacher: with exactly that many calls.

    Raises ValueError for an unknown solver or schedule.
    """
    solver, schedule = (part.strip() for part in name.split(",", 1))
    known = schedules_for(source)
    if solver not in classical.SOLVERS or schedule not in known:
        raise ValueError(f"unknown teacher {name!r}: use a solver and a schedule, such as \"euler, sgm_uniform\". "
                         f"Solvers: {', '.join(classical.SOLVERS)}. Schedules: {', '.join(known)}")
    levels = known[schedule](max(1, calls // classical.SOLVERS[solver].calls_per_step))
    return _sampler(solver, f"{solver}, {schedule}", source.flow), levels


def recorded_teacher(source: Source, preset: Preset) -> tuple | None:
    """The teacher of its own that a preset was trained with, as Source.teacher; None if it had none known here."""
    name = str(preset.training.get("teacher", "")).rpartition(", ")[0]
    levels, solver = preset.training.get("teacher_levels"), name.split(", ")[0]
    if solver not in classical.SOLVERS or not isinstance(levels, list) or not levels \
            or not all(map(is_number, levels)) or not starts_at(levels[0], source.sigma_max):
        return None
    return _sampler(solver, name, source.flow), np.array(levels, dtype=np.float64)


def _sampler(solver: str, name: str, flow: bool) -> Callable:
    def run(model, x, sigmas, extra_args=None, disable=None):
        return sample(model, x, classical.SOLVERS[solver](sigmas.cpu().double().numpy(), flow=flow), extra_args)
    run.__name__ = name
    return run
