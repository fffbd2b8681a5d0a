"""Checks of a configuration against a source, before the first network call."""

from ..s4s_nodes.core.levels import starts_at
from .baselines.schedules import schedules_for
from .config import Config
from .source import Source
from .teacher.solvers import host_levels, teacher_of


def check(config: Config, source: Source) -> None:
    """Raises ValueError for an unknown schedule or teacher, another model that cannot teach this one, or a range of cfg
    that cannot be had."""
    if len(config.cfg) > 1 and not source.any_cfg:
        raise ValueError(f"{source.name} can be sampled at cfg {source.cfg:g} only: give one cfg, or an any_cfg source")
    if source.boundary is not None:
        check_two_models(config, source.boundary, source.sigma_max)
    if (teacher := source.teacher_source) is not None:
        if source.teacher is not None or source.boundary is not None:
            raise ValueError(f"{teacher.name} as the teacher runs the trainer's own solver, for one model: leave "
                             "out a solver with its schedule, teacher_sampler and low_noise_model")
        if (source.flow, source.shapes) != (teacher.flow, teacher.shapes) \
                or not starts_at(teacher.sigma_max, source.sigma_max):
            raise ValueError(f"{teacher.name} cannot be the teacher of {source.name}: their noise levels or latents "
                             "differ. Use the model that it was distilled from")
    if source.teacher is not None:
        host_levels(*source.teacher)
    else:
        teacher_of(source, config.teacher.solver, config.teacher.calls).from_level(None)
    if config.schedule not in ("auto", *(known := schedules_for(source))):
        raise ValueError(f"unknown schedule {config.schedule!r} for {source.name}; there are: auto, {', '.join(known)}")


def check_two_models(config: Config, boundary: float, top: float = 1.0) -> None:
    """Raise ValueError for settings that a table for two models cannot have."""
    if not 0 < boundary < top:
        raise ValueError(f"boundary {boundary:g}: the models change at a level between 0 and {top:g}, e.g. 0.875")
    fixed = {"calls of at least 2": min(config.calls) >= 2, "windows 1": config.windows == (1.0,),
             "one cfg for each": len(config.cfg) == 1}
    if refused := [words for words, kept in fixed.items() if not kept]:
        raise ValueError(f"a training for two models takes {', '.join(refused)}: change that, or train one model")
