"""Which preset runs, which table of it, and why: the one place that decides. Hosts hold no ranking.

A scheduler passes a number of steps and uses `schedule`; a sampler passes levels and uses `table`. A learned table is
selected automatically only for the weights, cfg, size and window it was learned for. Everything else is a fallback: the
family's published schedule, or a classical solver on the model's own levels. Presets of other models are never
considered, so they cannot change an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.k_sampler import close, same_levels
from ..core.levels import same_top
from ..core.preset_file import Preset
from .adapt import above, from_start, starts_near
from .cfg import at_cfg
from .dispatch import Selection, checked, cut_of, fallen_back, is_own, levels_for, table_for
from .match import (
    as_seen,
    belongs,
    called,
    cfg_distance,
    cfg_range,
    changed_by,
    family_schedule,
    near_cfg,
    near_size,
    of_two_models,
    own_presets,
    patched_otherwise,
    range_words,
    suits,
    trained_size,
)
from .model_facts import ModelFacts

TRAIN_ONE = "train one for this model"


@dataclass(frozen=True)
class Request:
    """What a host asks: a model, and either steps (for a schedule) or its levels. None: unknown."""

    facts: ModelFacts
    installed: Sequence[Preset] = ()
    steps: int | None = None            # of the whole schedule, before the host cuts it
    calls: int | None = None            # the last of these steps that will run
    levels: object = None               # (N+1,), what the host samples on
    cfg: float | None = None
    size: tuple | None = None           # (height, width) of the state
    named: Preset | None = None         # the preset the user chose; None for auto
    strict: bool = False                # refuse a named preset that was learned on another model
    own_schedule: bool | None = None    # whether levels are a cut of our schedule; None: found by comparing


@dataclass(frozen=True)
class _Problem:
    """Why one of the model's own presets does not run; a higher stage means that it came nearer."""

    preset: Preset
    stage: int
    why: str
    advice: str


def select(request: Request) -> Selection:
    """The table to run, its preset, and why; with the whole schedule if the request has steps.

    Raises ValueError for levels that no solver can run on, and for no steps.
    """
    if request.levels is not None:
        return _on_levels(request, checked(request.levels))
    whole = schedule(request)
    found = _on_levels(replace(request, own_schedule=True), whole[-_running(request) - 1:])
    return replace(found, schedule=whole)


def schedule(request: Request) -> np.ndarray:
    """The whole schedule (steps + 1,) that `select` returns, for a host that samples elsewhere. Raises as it does."""
    whole = _schedule(request)
    checked(whole[-_running(request) - 1:])
    return whole


def _running(request: Request) -> int:
    return min(request.calls or request.steps, request.steps)


# --- the schedule ---------------------------------------------------------------------------------------------------

def _schedule(request: Request) -> np.ndarray:
    """The levels of the table that will run, else those of the fallback; (steps + 1,)."""
    facts, steps = request.facts, request.steps
    if request.named is not None:
        usable = suits(request.named, facts) is None
        return _levels_at(request.named, request, steps) if usable else levels_for(None, facts, steps)
    own = own_presets(request.installed, facts)
    if (both := _of_two_models(request, steps)) is not None:
        return levels_for(both, facts, steps)
    for serves in (_serves_all, _serves_a_window):
        found = [each for preset in own if (each := serves(preset, request)) is not None]
        if found:
            return _levels_at(_best(found, request, own).preset, request, steps)
    return levels_for(_schedule_with(steps, request), facts, steps)


def _of_two_models(request: Request, steps: int) -> Preset | None:
    """The newest preset that this model shares with another. Its levels hold whatever the cfg and the LoRAs: both
    models must sample on one schedule, also where one of them falls back."""
    usable = [preset for preset in of_two_models(request.installed, request.facts)
              if steps in preset.counts and not preset.unfinished and preset.recommended]
    return max(usable, key=_created, default=None)


def _levels_at(preset: Preset, request: Request, steps: int) -> np.ndarray:
    there, facts = at_cfg(preset, request.cfg)[0], request.facts
    if same_top(there.curve[0], facts.sigma_max):
        return levels_for(there, facts, steps)
    window = next((table.sigmas for table in there.tables.values() if table.calls == request.calls < steps), None)
    return levels_for(None, facts, steps) if window is None else above(window, facts.sigma_max, steps, facts.flow)


def _serves_all(preset: Preset, request: Request) -> Selection | None:
    """What the preset runs on the requested part of its schedule; None if it may not run there."""
    levels = _levels_at(preset, request, request.steps)
    found, problem = _judged(preset, levels[-(request.calls or request.steps) - 1:], request, own=True)
    return found if problem is None else None


def _serves_a_window(preset: Preset, request: Request) -> Selection | None:
    """The same for a host that does not say which part runs: a window table may start where a cut does."""
    levels, there = _levels_at(preset, request, request.steps), at_cfg(preset, request.cfg)[0]
    for table in there.tables.values():
        if request.calls is None and table.calls < request.steps and starts_near(
                table.sigmas[0], levels[-table.calls - 1], request.facts.flow):
            found, problem = _judged(preset, levels[-table.calls - 1:], request, own=True)
            if problem is None:
                return found
    return None


def _schedule_with(steps: int, request: Request) -> Preset | None:
    """The family's published schedule if it has this number of steps."""
    published = family_schedule(request.installed, request.facts)
    return published if published is not None and steps in published.counts else None


# --- the table ------------------------------------------------------------------------------------------------------

def _on_levels(request: Request, levels: np.ndarray) -> Selection:
    own = own_presets(request.installed, request.facts)
    origin = _origin(request, levels, own)
    # a host's "simple" may be the plain schedule to the digit: only a learned preset's levels make way for another's
    of_a_preset = origin is not None if request.own_schedule is None else request.own_schedule
    if request.named is not None:
        return _of_the_named(request, levels, of_a_preset)
    judged = [_judged(preset, levels, request, of_a_preset) for preset in own]
    running = [found for found, problem in judged if problem is None]
    problems = [problem for _, problem in judged if problem is not None]
    details = "; ".join(f"{called(problem.preset)}: {problem.why}" for problem in problems)
    if running:
        return replace(_best(running, request, own, levels), details=details)
    return replace(_fallback(request, levels, origin, problems), details=details)


def _if_ours(preset: Preset, levels: np.ndarray, request: Request, problem: _Problem) -> _Problem:
    """Why a preset does not run on the fallback's own schedule: what made the scheduler give that, if anything did."""
    return _judged(preset, levels, request, own=True)[1] or problem


def _judged(preset: Preset, levels: np.ndarray, request: Request, own: bool) -> tuple[Selection, _Problem | None]:
    """(what one of the model's own presets would run, why it is not selected automatically)."""
    found = table_for(levels, request.facts, preset, request.cfg, own)
    whole, preset = preset, as_seen(preset, request.facts)
    there, name, cfg, table = at_cfg(preset, request.cfg)[0], preset.name, request.cfg, found.table_name
    problems = (
        (preset.unfinished, f"the training of {name} is unfinished", "finish it, or choose it by name"),
        (not preset.recommended, f"{name} lost its race against the classical solvers", "choose it by name to run it"),
        (found.fallback, found.why, found.advice),
        (not there.recommends(table, cfg, request.size),
         f"{table} of {name} lost its race against the classical solvers", "choose it by name to run it"),
        (not near_size(preset, request.size), f"{name} was learned on latents of {_by(trained_size(preset))}, this one "
                                              f"is {_by(request.size)}", "train at this size"),
        (not near_cfg(preset, table, cfg), f"{name} was learned at {range_words(cfg_range(preset, table) or (0, 0))}, "
                                           f"you use {cfg or 0:g}", f"train at cfg {cfg or 0:g}, or use that"))
    for stage, (holds, why, advice) in enumerate(problems):
        if holds:
            return found, _Problem(whole, stage, why, advice)
    return found, None


def _by(size: tuple | None) -> str:
    return " x ".join(map(str, (size or ())[-2:]))


def _best(running: list[Selection], request: Request, own: list[Preset], levels=None) -> Selection:
    """The distance to cfg decides; then the table whose levels were given, an unmoved one, the model's shift, the
    number of tables, the newer. Without a cfg the oldest one's cfg does: a preset for another cfg changes nothing.
    """
    def rank(found: Selection) -> tuple:
        preset = found.preset
        outside, beside = cfg_distance(preset, found.table_name, request.cfg)
        first = "" if request.cfg is not None else min(
            _created(each) for each in own if cfg_range(each) == cfg_range(preset))
        given = levels is not None and same_levels(found.table, levels)
        shifted = request.facts.shift is None or preset.model.shift != request.facts.shift
        return outside, beside, first, not given, found.kind == "adapted", shifted, -len(preset.tables)
    least = min(map(rank, running))
    alike = [found for found in running if rank(found) == least]
    return max(alike, key=lambda found: _created(found.preset))             # of true equals the first


def _created(preset: Preset) -> str:
    return str(preset.training.get("created", ""))


def _of_the_named(request: Request, levels: np.ndarray, own: bool) -> Selection:
    """What the preset that the user named runs, even if it is of another model, unless strict."""
    named, facts, cfg = request.named, request.facts, request.cfg
    mine = belongs(named, facts)
    if request.strict and not mine and suits(named, facts) is None:
        found = fallen_back(levels, facts, f"{named.name} was not learned on this model, and matching is strict",
                            "turn strict off to run it", own)
    else:
        found = table_for(levels, facts, named, cfg, own)
    near = near_cfg(as_seen(named, facts), found.table_name, cfg) and near_size(named, request.size)
    return replace(found, belongs=mine or found.fallback, about=named, warns=found.fallback or not (mine and near))


# --- whose levels these are, and the fallback -----------------------------------------------------------------------

def _origin(request: Request, levels: np.ndarray, own: list[Preset]) -> tuple[int, int] | None:
    """(steps, index) of the learned preset's schedule that levels were cut from; None if of none.

    Every preset of the model counts: its scheduler may know less of what is asked than the sampler.
    """
    facts = request.facts
    learned = [preset for preset in ([request.named] if request.named is not None else []) + own
               if suits(preset, facts) is None]
    cuts = (cut_of(levels, at, facts) for preset in learned for at in (preset, at_cfg(preset, request.cfg)[0]))
    return next((cut for cut in cuts if cut is not None), None)


def _fallback(request: Request, levels: np.ndarray, origin, problems: list[_Problem]) -> Selection:
    """The family's published schedule if it has a table, else a classical solver; as if no preset were there."""
    facts, published = request.facts, family_schedule(request.installed, request.facts)
    plain = is_own(levels, None, facts) or published is not None and is_own(levels, published, facts)
    there = levels if origin is None or plain else _without_preset(levels, origin, request)
    ours = bool(request.own_schedule) or plain or origin is not None
    found = None if published is None else table_for(there, facts, published, None, ours)
    runs = found is not None and not found.fallback and not _lost(published, found.table_name, request)
    if plain:
        problems = [_if_ours(problem.preset, levels, request, problem) for problem in problems]
    last = max(problems, key=lambda problem: problem.stage, default=None)
    why, advice = (facts.unfit, "") if facts.unfit else _none_of_its_own(request)
    if last is not None:
        why, advice = last.why, last.advice
    elif found is not None and not runs:
        why, advice = (found.why, found.advice) if found.fallback else (
            f"{published.name} lost its race on this model", TRAIN_ONE)
    about = last.preset if last is not None else published
    if not runs:
        found = fallen_back(there, facts, why, advice, own=ours)
    return replace(found, why=why, advice=advice, fallback=True, warns=True, about=about,
                   own_levels=found.own_levels or there is not levels)


def _none_of_its_own(request: Request) -> tuple[str, str]:
    """(why there is no preset of the model's own, what to do)."""
    others = patched_otherwise(request.installed, request.facts)
    if not others:
        return "no preset was trained for this model", TRAIN_ONE
    how = "with other" if changed_by(others[0]) else "without"
    return f"{others[0].name} was learned on this model {how} LoRAs and patches", f"{TRAIN_ONE}, or choose it by name"


def _without_preset(levels: np.ndarray, cut: tuple[int, int], request: Request) -> np.ndarray:
    """The same cut of the schedule there is without any learned preset; what ends above 0 stays: another resumes it."""
    if levels[-1] > 0:
        return levels
    steps, first = cut
    there = levels_for(_schedule_with(steps, request), request.facts, steps)[first:first + len(levels)].copy()
    there[-1] = 0.0
    return there if close(there[0], levels[0]) else from_start(there, levels[0], request.facts.flow)


def _lost(published: Preset, table: str, request: Request) -> bool:
    """Whether the same numbers lost a race on these very weights."""
    return any(preset.short_hash == published.short_hash and not preset.recommends(table, request.cfg, request.size)
               for preset in own_presets(request.installed, request.facts))
