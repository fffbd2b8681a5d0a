"""Which preset runs, which table of it, and why: the one place that decides. Hosts hold no ranking.

A scheduler passes a number of steps and uses `schedule`; a sampler passes levels and uses `table`. A learned table is
selected automatically only for the weights, cfg, size and window it was learned for. Everything else is a fallback: the
family's published schedule, or a classical solver on the model's own levels. Presets of other models are never
considered, so they cannot change an image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..core.experts import turn_of
from ..core.k_sampler import close, same_levels
from ..core.levels import same_top
from ..core.preset_file import Preset
from . import match
from .adapt import above, from_start, starts_near
from .cfg import at_cfg
from .dispatch import Selection, checked_levels, cut_of, fall_back, levels_for, table_for
from .match import ModelFacts


@dataclass(frozen=True)
class Request:
    """What a host asks: a model, and either steps (for a schedule) or its levels. None: unknown."""

    facts: ModelFacts                   # of the model
    installed: Sequence[Preset] = ()    # the presets to select from
    steps: int | None = None            # of the whole schedule, before the host cuts it
    calls: int | None = None            # how many of the last of these steps will run
    levels: object = None               # (N+1,), the noise levels that the host samples on
    cfg: float | None = None            # the guidance scale
    size: tuple | None = None           # (height, width) of the state; for a video (frames, height, width)
    guidance: Sequence = ()             # what a model distilled for guidance is told, for each prompt
    around: str | None = None           # what else changes the model in this sampling, as a phrase: hooks, a guider
    named: Preset | None = None         # the preset that the user chose; None: auto
    strict: bool = False                # refuse a named preset that was learned on another model
    own_schedule: bool | None = None    # whether the levels are a cut of our schedule; None: found out by comparing
    part: tuple | None = None           # (first, last) of the steps between which this sampler runs
    start: float | None = None          # the noise level at which another sampler left the state


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
        return _on_levels(request, checked_levels(request.levels))
    whole = _schedule(request)
    return replace(_on_levels(replace(request, own_schedule=True), running(request, whole)), schedule=whole)


def schedule(request: Request) -> np.ndarray:
    """The whole schedule (steps + 1,) that `select` returns, for a host that samples elsewhere. Raises as it does."""
    whole = _schedule(request)
    running(request, whole)
    return whole


def running(request: Request, whole: np.ndarray) -> np.ndarray:
    """The levels of a schedule that will run: a part of it, else the last calls."""
    first, last = request.part or (len(whole) - 1 - min(request.calls or len(whole), len(whole) - 1), len(whole) - 1)
    return checked_levels(whole[first:last + 1])


def _schedule(request: Request) -> np.ndarray:
    """The levels of the table that will run, else those of the fallback; (steps + 1,)."""
    facts, steps = request.facts, request.steps
    if steps is None:
        raise ValueError("a request has neither steps nor levels: give one of them")
    if request.named is not None:
        usable = match.suits(request.named, facts) is None and not _refused(request)
        return _levels_at(request.named, request, steps) if usable else levels_for(None, facts, steps)
    own = match.own_presets(request.installed, facts)
    if (both := _of_two_models(request, steps, own)) is not None:
        return levels_for(both, facts, steps)
    for windows in (False, True):
        serving = [each for preset in own if (each := _serves(preset, request, steps, windows)) is not None]
        if serving:
            return _levels_at(_preset(_best(serving, request, own)), request, steps)
    return levels_for(_schedule_with(steps, request), facts, steps)


def _of_two_models(request: Request, steps: int, own: list[Preset]) -> Preset | None:
    """The newest preset for this model and another of which a half will run here; both models need its levels.

    A sampler that continues another's state follows that one, even if its own half may not run.
    """
    def usable(preset: Preset) -> bool:
        whole = levels_for(preset, request.facts, steps)
        if request.start is not None and request.part is not None:
            return close(whole[request.part[0]], request.start)
        turn = turn_of(whole, preset.boundary or 0.0)
        parts = [(0, turn), (turn, steps)] if request.part is None else [request.part]
        return preset in own and any(_judged(preset, whole[first:last + 1], request, own=True)[1] is None
                                     for first, last in parts)
    shared = [preset for preset in request.installed if preset.experts and steps in preset.counts]
    return max(filter(usable, match.own_presets(shared, request.facts, any_loras=True)), key=_created, default=None)


def _levels_at(preset: Preset, request: Request, steps: int) -> np.ndarray:
    there, facts = at_cfg(preset, request.cfg)[0], request.facts
    if same_top(there.curve[0], facts.sigma_max):
        return levels_for(there, facts, steps)
    window = next((table.sigmas for table in there.tables.values()
                   if table.calls == request.calls and table.calls < steps), None)
    return levels_for(None, facts, steps) if window is None else above(window, facts.sigma_max, steps, facts.flow)


def _serves(preset: Preset, request: Request, steps: int, windows: bool) -> Selection | None:
    """What the preset runs on the requested part of its schedule; None if it may not run there.

    windows: of a host that does not say which part runs, where a window table may start where a cut does.
    """
    levels, counts = _levels_at(preset, request, steps), [request.calls or steps]
    if windows:
        tables = at_cfg(preset, request.cfg)[0].tables.values() if request.calls is None else ()
        counts = [table.calls for table in tables if table.calls < steps
                  and starts_near(table.sigmas[0], levels[-table.calls - 1], request.facts.flow)]
    judged = (_judged(preset, levels[-calls - 1:], request, own=True) for calls in counts)
    return next((selection for selection, problem in judged if problem is None), None)


def _schedule_with(steps: int, request: Request) -> Preset | None:
    """The family's published schedule if it has this number of steps and wins there."""
    published = match.family_schedule(request.installed, request.facts, request.cfg, steps)
    return published if published is not None and steps in published.counts else None


def _on_levels(request: Request, levels: np.ndarray) -> Selection:
    own = match.own_presets(request.installed, request.facts)
    origin = _origin(request, levels, own)
    # a host's "simple" may be the plain schedule to the digit: only a learned preset's levels make way for another's
    of_a_preset = origin is not None if request.own_schedule is None else request.own_schedule
    if request.named is not None:
        return _of_the_named(request.named, request, levels, of_a_preset)
    judged = [_judged(preset, levels, request, of_a_preset) for preset in own]
    running = [selection for selection, problem in judged if problem is None]
    problems = [problem for _, problem in judged if problem is not None]
    details = "; ".join(f"{match.name_text(problem.preset)}: {problem.why}" for problem in problems)
    if running:
        best = _best(running, request, own, levels)
        return replace(best, why=best.why + match.frames_text(_preset(best), request.size), details=details)
    return replace(_fallback(request, levels, origin, problems), details=details)


def _judged(preset: Preset, levels: np.ndarray, request: Request, own: bool) -> tuple[Selection, _Problem | None]:
    """(what one of the model's own presets would run, why it is not selected automatically)."""
    selection = table_for(levels, request.facts, preset, request.cfg, own)
    whole, preset = preset, match.as_seen(preset, request.facts)
    there, name, cfg, table = at_cfg(preset, request.cfg)[0], preset.name, request.cfg, selection.table_name
    problems = (
        (preset.unfinished, f"the training of {name} is unfinished", "finish it, or choose it by name"),
        (not preset.recommended, f"{name} lost its race against the classical solvers", "choose it by name to run it"),
        (selection.fallback, selection.why, selection.advice),
        (not there.recommends(table, cfg, request.size),
         f"{table} of {name} lost its race against the classical solvers", "choose it by name to run it"),
        *match.differences(preset, table, cfg, request.size, request.guidance, request.around))
    for stage, (holds, why, advice) in enumerate(problems):
        if holds:
            return selection, _Problem(whole, stage, why, advice)
    return selection, None


def _best(running: list[Selection], request: Request, own: list[Preset], levels=None) -> Selection:
    """The distance to cfg decides; then the table whose levels were given, an unmoved one, the model's shift, the
    number of tables, the newer. Without a cfg the oldest one's cfg does: a preset for another cfg changes nothing.
    """
    def rank(selection: Selection) -> tuple:
        preset = _preset(selection)
        outside, beside = match.cfg_distance(preset, selection.table_name, request.cfg)
        first = "" if request.cfg is not None else min(
            _created(each) for each in own if match.cfg_range(each) == match.cfg_range(preset))
        given = levels is not None and same_levels(selection.table, levels)
        shifted = request.facts.shift is None or preset.model.shift != request.facts.shift
        return outside, beside, first, not given, selection.kind == "adapted", shifted, -len(preset.tables)
    least = min(map(rank, running))
    alike = [selection for selection in running if rank(selection) == least]
    return max(alike, key=lambda selection: _created(_preset(selection)))           # of true equals the first


def _preset(selection: Selection) -> Preset:
    assert selection.preset is not None         # what was learned and may run
    return selection.preset


def _created(preset: Preset) -> str:
    return str(preset.training.get("created", ""))


def _of_the_named(named: Preset, request: Request, levels: np.ndarray, own: bool) -> Selection:
    """What the preset that the user named runs, even if it is of another model, unless strict."""
    facts, cfg = request.facts, request.cfg
    mine = match.belongs(named, facts)
    if _refused(request):
        own = bool(request.own_schedule) or cut_of(levels, None, facts) is not None
        selection = fall_back(levels, facts, f"{named.name} was not learned on this model, and matching is strict",
                              "turn strict off to run it", own)
    else:
        selection = table_for(levels, facts, named, cfg, own)
    differences = match.differences(match.as_seen(named, facts), selection.table_name, cfg, request.size,
                                    request.guidance, request.around)
    warns = selection.fallback or not mine or any(differs for differs, *_ in differences)
    why = selection.why + match.frames_text(named, request.size) * (not selection.fallback)
    return replace(selection, why=why, belongs=mine or selection.fallback, about=named, warns=warns)


def _refused(request: Request) -> bool:
    """Whether the named preset was learned on another model of this kind, and matching is strict."""
    named, facts = request.named, request.facts
    return request.strict and named is not None and match.suits(named, facts) is None and not match.belongs(
        named, facts)


def _origin(request: Request, levels: np.ndarray, own: list[Preset]) -> tuple[int, int] | None:
    """(steps, index) of the learned preset's schedule that levels were cut from; None if of none.

    Every preset of the model counts: its scheduler may know less of what is asked than the sampler.
    """
    facts = request.facts
    learned = [preset for preset in ([request.named] if request.named is not None else []) + own
               if match.suits(preset, facts) is None]
    cuts = (cut_of(levels, at, facts) for preset in learned for at in (preset, at_cfg(preset, request.cfg)[0]))
    return next((cut for cut in cuts if cut is not None), None)


def _fallback(request: Request, levels: np.ndarray, origin, problems: list[_Problem]) -> Selection:
    """The family's published schedule if it has a table, else a classical solver; as if no preset were there."""
    facts = request.facts
    published = match.family_schedule(request.installed, facts, request.cfg, len(levels) - 1)
    plain = bool(cut_of(levels, None, facts) or published is not None and cut_of(levels, published, facts))
    there = levels if origin is None or plain else _without_preset(levels, origin, request)
    ours = bool(request.own_schedule) and request.start is None or plain or there is not levels
    selection = None
    why, advice = (facts.unfit, "") if facts.unfit else match.none_of_its_own(request.installed, facts)
    if published is not None:
        selection = table_for(there, facts, published, None, ours)
        if selection.fallback:
            why, advice, selection = selection.why, selection.advice, None
        elif not all(preset.recommends(selection.table_name, request.cfg, request.size) for preset in
                     match.own_presets(request.installed, facts) if preset.short_hash == published.short_hash):
            why, advice, selection = f"{published.name} lost its race on this model", match.TRAIN_ONE, None
    if plain:
        # on the fallback's own schedule: what made the scheduler give that, if anything did
        problems = [_judged(problem.preset, _of_its_own(problem.preset, levels, facts), request, own=True)[1] or problem
                    for problem in problems]
    nearest = max(problems, key=lambda problem: problem.stage, default=None)
    if nearest is not None:
        why, advice = nearest.why, nearest.advice
    selection = selection or fall_back(there, facts, why, advice, own=ours)
    return replace(selection, why=why, advice=advice, fallback=True, warns=True,
                   about=published if nearest is None else nearest.preset,
                   own_levels=selection.own_levels or there is not levels)


def _of_its_own(preset: Preset, levels: np.ndarray, facts: ModelFacts) -> np.ndarray:
    """The levels of a preset for two models instead of these plain ones, if one fits; else the levels."""
    steps, first = (preset.experts and cut_of(levels, None, facts)) or (0, 0)
    return levels_for(preset, facts, steps)[first:first + len(levels)] if steps in preset.counts else levels


def _without_preset(levels: np.ndarray, cut: tuple[int, int], request: Request) -> np.ndarray:
    """The same cut of the schedule there is without any learned preset; what ends above 0 stays: another resumes it."""
    if levels[-1] > 0:
        return levels
    steps, first = cut
    there = levels_for(_schedule_with(steps, request), request.facts, steps)[first:first + len(levels)].copy()
    there[-1] = 0.0
    return there if close(there[0], levels[0]) else from_start(there, levels[0], request.facts.flow)
