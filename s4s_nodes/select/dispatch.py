"""What one preset runs on a host's levels: a table, an adapted table or a classical solver, and why.

A host asks for a number of steps, cuts the schedule (denoise below 1, start and end step) and passes levels. The first
and the last level stay the host's: it scales the noise by them. Those in between may be the preset's if the levels came
from our schedule. The number of calls is always the number of steps asked for.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..core import classical, experts, schedules
from ..core.k_sampler import close, same_levels
from ..core.levels import even, same_top, starts_at
from ..core.preset_file import Preset
from ..core.table import MAX_CALLS, Table
from .adapt import adapted, distance, from_start, head, start_ratio, starts_near
from .cfg import at_cfg
from .families import flow_schedule, official
from .match import ModelFacts, as_seen, counts_text, name_text, remarks, suits, turns_text, unknown_text, unproven_text

# True: for flows; docs/constants.md has the measurements
MOVED_LEVELS = {True: 0.065, False: 0.09}               # mean |log ratio| up to which a table may be moved
FALLBACK = {True: "ipndm_2", False: "unipc_bh2_2"}      # for families without an official solver
USUAL_SHIFT = 3.0           # for a rectified flow whose host does not say its own
TWO_SAMPLERS = "sample with two KSamplerAdvanced, scheduler s4s in both, end_at_step and start_at_step there"
_PICK_OURS = "pick scheduler s4s"
_NAMED = ". You named it: it was not learned on this model"
_SPOKEN = {"dpmpp_2m": "DPM++ 2M", "unipc_bh2_2": "UniPC bh2 of order 2", "lms_2": "LMS of order 2",
           "ipndm_2": "iPNDM of order 2", "deis_2": "DEIS of order 2", "euler": "Euler",
           "res_multistep": "RES multistep", "unipc_bh1_sigma": "UniPC bh1"}


@dataclass(frozen=True)
class Selection:
    """What runs on a host's levels, and why.

    If table.keeps_constants is False (a few imported tables), the host has to restore the known region of an
    inpainting itself.
    """

    table: Table                    # the table that runs
    preset: Preset | None           # the preset that it belongs to; None: a classical solver
    table_name: str                 # its name in the preset; "" for a classical solver
    kind: str                       # "exact", "window", "adapted" or "classical"
    why: str                        # why this table runs; for a fallback, why nothing learned does
    own_levels: bool = False        # whether the levels between the ends are the preset's, not the host's
    classical: str = ""             # which classical solver on whose levels, for people
    advice: str = ""                # for a fallback, what to do
    fallback: bool = False          # whether nothing that was learned for this model or named by the user runs
    belongs: bool = True            # whether the preset was learned on this model; False only for a named one
    warns: bool = False             # whether hosts report it at warning level
    schedule: np.ndarray | None = None      # (steps + 1,), the whole schedule if steps were asked for
    about: Preset | None = None     # for a fallback, the preset that came nearest
    details: str = ""               # why each other preset did not run, for the log at debug level

    def message(self) -> str:
        """At most two sentences for the log, the node and the picture's metadata: what ran, and what to do."""
        if self.fallback or self.preset is None:
            ran = self.classical + " ran" if self.preset is None else f"{name_text(self.preset)}, {self.table_name} ran"
            return f"S4S fallback: {self.why}. {ran}{unproven_text(self.preset)}{self.advice and f'; {self.advice}'}."
        return f"S4S {name_text(self.preset)}, {self.table_name}, {self.kind}: {self.why}{_NAMED * (not self.belongs)}"

    def refusal(self, because: str, cure: str) -> str:
        """The message of a fallback that may not run: what it would be, why it is refused, and what to do."""
        advice = self.advice if cure in self.advice else ", or ".join(filter(None, [self.advice, cure]))
        return f"S4S: {self.why}. It was refused because {because}: {advice}"

    def schedule_message(self, cfg: float | None, size: tuple | None) -> str:
        """The same of the levels alone, for another sampler; cfg and size as far as the scheduler knows them."""
        if self.fallback or self.preset is None:
            whose = self.classical.partition(" on ")[2] if self.preset is None else (
                f"the levels of {name_text(self.preset)}{unproven_text(self.preset)}")
            return f"S4S schedule, fallback: {self.why}. It uses {whose}{self.advice and f'; {self.advice}'}."
        clauses = unknown_text(self.preset, cfg, size) + _NAMED * (not self.belongs)
        return f"S4S schedule: {name_text(self.preset)}, {self.table_name}{clauses}"


def levels_for(preset: Preset | None, facts: ModelFacts, steps: int) -> np.ndarray:
    """The schedule for this many steps, (steps+1,): falling strictly from the model's highest level to 0.

    The levels of the preset's full table for these steps, else its curve, stretched. Without a preset, or if it is for
    another range of levels, a classical schedule.
    """
    schedules.check_calls(steps)
    if preset is None or not same_top(preset.curve[0], facts.sigma_max):
        return _classical_levels(facts, steps)
    preset, _ = at_cfg(preset, None)
    levels = np.array(preset.table(steps).sigmas) if steps in preset.counts else schedules.stretched(
        preset.curve, steps, facts.flow)
    if not starts_at(levels[0], facts.sigma_max):
        levels = from_start(levels, facts.sigma_max, facts.flow)    # the hosts' numbers for endless noise differ
    return levels


def table_for(sigmas, facts: ModelFacts, preset: Preset, cfg: float | None = None,
              own_schedule: bool | None = None) -> Selection:
    """The table for a host's levels, N calls; the first and last level stay the host's.

    Args:
        sigmas (N+1,): the host's noise levels.
        facts: of the model.
        preset: the preset to use.
        cfg: the guidance scale; None: unknown.
        own_schedule: whether the levels are our schedule's or a cut of it, so that those between may be replaced;
            None: found out by comparing them with this preset's.

    Raises ValueError for levels no solver can run on (rising, not finite, fewer than two).
    """
    levels = checked_levels(sigmas)
    if (reason := suits(preset, facts)) is not None:
        return fall_back(levels, facts, f"{preset.name} does not suit: {reason}")
    if preset.experts:
        return _of_experts(levels, facts, preset, cfg)
    own = cut_of(levels, preset, facts) is not None if own_schedule is None else own_schedule
    there, clause = at_cfg(preset, cfg)
    selection = _of_preset(levels, facts, there, cfg, own)
    if selection.fallback or not clause:
        return selection
    return replace(selection, preset=preset, why=selection.why + clause)


def _of_preset(levels: np.ndarray, facts: ModelFacts, preset: Preset, cfg: float | None, own: bool) -> Selection:
    """What runs of a suitable preset, which has one table for each number of calls and start."""
    for name, table in preset.tables.items():
        if same_levels(table, levels):
            why = f"these are its levels{remarks(preset, cfg, name)}"
            return Selection(table, preset, name, _kind(preset, table), why)
    if levels[-1] > 0:
        return _on_a_head(levels, facts, preset, cfg)
    fitting = [(start_ratio(table.sigmas[0], levels[0], facts.flow), name) for name, table in preset.tables.items()
               if table.calls == len(levels) - 1 and table.sigmas[-1] == 0]
    if not fitting:
        calls, counts = len(levels) - 1, counts_text(preset.counts)
        return fall_back(levels, facts, f"{preset.name} has {counts} steps, you asked for {calls}",
                         f"set the steps to one of these, or train for {calls}")
    return _moved(levels, facts, preset, min(fitting)[1], cfg, own)


def _of_experts(levels: np.ndarray, facts: ModelFacts, preset: Preset, cfg: float | None) -> Selection:
    """What runs of a preset for two models: the half of a table that has these levels, on the model it is for."""
    mine = as_seen(preset, facts)
    for place, part in enumerate(preset.experts):
        for name, table in part.tables.items():
            if not same_levels(table, levels):
                continue
            whose, end = experts.NAMES[place], ("first", "last")[place]
            if mine is preset.experts[1 - place]:
                return fall_back(levels, facts, f"this is the {experts.NAMES[1 - place]} model of {preset.name}, "
                                 f"where the {whose} one belongs", "swap the two models")
            why = f"the {end} {table.calls} of its {preset.tables[name].calls} calls, of the {whose} model"
            return Selection(table, preset, name, "exact", why + remarks(part, cfg, name))
    return fall_back(levels, facts, f"{preset.name} changes models at {turns_text(preset)}, and these levels go "
                     f"from {levels[0]:.4g} to {levels[-1]:.4g}", TWO_SAMPLERS)


def checked_levels(sigmas) -> np.ndarray:
    """The host's levels in float64. Raises ValueError if no solver can run on them."""
    levels = np.array(sigmas.detach().cpu() if hasattr(sigmas, "detach") else sigmas, dtype=np.float64)
    if levels.ndim != 1 or len(levels) < 2:
        raise ValueError(f"sigmas of shape {levels.shape}: expected at least two levels in one dimension, the start "
                         "and the end")
    if not bool(np.isfinite(levels).all() and (np.diff(levels) <= 0).all() and levels[-2] > 0 and levels[-1] >= 0):
        raise ValueError(f"sigmas must fall, and only their last may be 0, got {levels.tolist()[:6]}: connect a "
                         "schedule that is not flipped; for a flipped one (unsampling) use the sampler euler")
    return levels


def cut_of(levels, preset: Preset | None, facts: ModelFacts) -> tuple[int, int] | None:
    """(steps, index of the first level) of `levels_for` that levels were cut from (their end may be 0), or None."""
    levels = np.asarray(levels, dtype=np.float64)
    for steps in sorted(_possible_steps(levels, preset, facts)):
        whole = levels_for(preset, facts, steps)
        first = int(np.argmin(np.abs(whole - levels[0])))
        part = whole[first:first + len(levels)]
        if len(part) == len(levels) and close(part[:-1], levels[:-1]) and (
                levels[-1] == 0 or close(part[-1], levels[-1])):
            return steps, first
    return None


def _possible_steps(levels: np.ndarray, preset: Preset | None, facts: ModelFacts) -> set[int]:
    """The numbers of steps whose schedule could have been cut to these levels: a few, by their places on the curve."""
    curve = levels_for(preset, facts, 64) if preset is None else preset.curve
    into, _ = even(facts.flow)
    place = np.interp(-into(levels), -into(curve), np.linspace(0, 1, len(curve)))
    calls = len(levels) - 1
    gaps = [(calls, place[-1] - place[0]), (calls - 1, place[-2] - place[0])]        # the end may have been set to 0
    guesses = {round(steps / gap) for steps, gap in gaps if gap > 1e-6}
    near = {guess + off for guess in guesses for off in (-1, 0, 1)} | set(preset.counts if preset else ())
    return {steps for steps in near if calls <= steps <= MAX_CALLS}


def _on_a_head(levels, facts: ModelFacts, preset: Preset, cfg: float | None) -> Selection:
    """The first rows of a table that begins with these levels (docs/constants.md)."""
    for name, table in preset.tables.items():
        if len(levels) <= table.calls and close(table.sigmas[:len(levels)], levels):
            first = head(table, len(levels) - 1, facts.flow)
            clause = remarks(preset, cfg, name)
            return Selection(first, preset, name, "adapted", f"the first {first.calls} of its calls{clause}")
    return fall_back(levels, facts, f"the levels end at {levels[-1]:.4g}, and no table of {preset.name} begins with "
                     "them", "use another sampler for a middle slice")


def _moved(levels, facts: ModelFacts, preset: Preset, name: str, cfg: float | None, own: bool) -> Selection:
    """The table of the nearest start, on its own levels from the host's start, or moved to the host's if near."""
    table, clause = preset.tables[name], remarks(preset, cfg, name)
    if own and close(table.sigmas[0], levels[0]):
        return Selection(table, preset, name, _kind(preset, table),
                         f"its levels replace the schedule's{clause}", own_levels=True)
    starts = starts_near(table.sigmas[0], levels[0], facts.flow) if own else same_top(table.sigmas[0], levels[0])
    if not starts:
        return fall_back(levels, facts, f"{preset.name} has no table of {table.calls} steps that starts "
                         f"{'near' if own else 'at'} {levels[0]:.4g}",
                         "train with this denoise among the windows" if own else _PICK_OURS)
    if own:
        there = from_start(table.sigmas, levels[0], facts.flow)
        why = f"moved from a start at {table.sigmas[0]:.4g} to {levels[0]:.4g}{clause}"
    else:
        there, falls = levels, bool((np.diff(levels) < 0).all())
        if not falls or (far := distance(levels, table.sigmas)) > MOVED_LEVELS[facts.flow]:
            return fall_back(levels, facts, f"the levels are too far from those of {preset.name}", _PICK_OURS)
        why = f"moved to levels {far:.0%} away from its own{clause}"
    try:
        moved = adapted(table, there, facts.flow)
    except ValueError as error:                     # a table of a kind that cannot be moved
        return fall_back(levels, facts, f"{name} of {preset.name} cannot be moved there: {error}", _PICK_OURS)
    return Selection(moved, preset, name, "adapted", why, own_levels=own)


def _kind(preset: Preset, table: Table) -> str:
    return "exact" if same_top(table.sigmas[0], preset.curve[0]) else "window"


def fall_back(levels: np.ndarray, facts: ModelFacts, why: str, advice: str = "", own: bool = False) -> Selection:
    """The family's official solver on levels, else FALLBACK; Euler's method where they repeat, and else for a model
    that no table is for. own: they are the model's own."""
    named = official(facts.family)[0] if facts.flow else ""
    name = named or ("euler" if facts.unfit else FALLBACK[facts.flow])
    whose = "the model's own levels" if own else "the given levels"
    if bool((np.diff(levels) == 0).any()):
        name, whose, kept = "euler", f"{whose}, some of which repeat,", levels[1:] / levels[:-1]
        table = Table(levels, levels[:-1], np.ones_like(kept), kept, np.diag(1 - kept))     # such a row changes nothing
    else:
        table = classical.SOLVERS[name](levels, facts.flow)
    return Selection(table, None, "", "classical", why, classical=f"{_SPOKEN[name]} on {whose}", advice=advice,
                     fallback=True, warns=True)


def _classical_levels(facts: ModelFacts, steps: int) -> np.ndarray:
    """A schedule that needs no tuning: a flow's official one; else Karras et al. (2022), rho 5, open.

    Open: the model's lowest level is left out, which saves a call (docs/constants.md). With zero terminal SNR Karras'
    levels would crowd where nothing happens: "simple" it is.
    """
    if facts.flow:
        return flow_schedule(facts.family, steps, facts.shift or USUAL_SHIFT)
    if facts.zero_terminal_snr:
        return schedules.simple(steps, schedules.zero_snr_levels(facts.sigma_max))
    levels = schedules.karras(steps + 1, max(facts.sigma_min, 2e-3), facts.sigma_max, rho=5)
    return np.concatenate([[facts.sigma_max], levels[1:steps], [0.0]])
