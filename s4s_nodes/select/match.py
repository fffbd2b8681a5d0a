"""Which preset is for a model: what a host can see of the model, held against what a preset says of its own.

Pure: nothing is read or hashed here, and every decision comes with its reason in words.
"""

from __future__ import annotations

from ..core import sketch
from ..core.levels import same_top
from ..core.model import is_number
from ..core.preset_file import Preset
from .adapt import start_ratio, starts_near
from .model_facts import ModelFacts

HASHES = (sketch.KIND, "tensors_sha256", "sha256_10", "file")       # the most telling first: a file name tells little


def suits(preset: Preset, facts: ModelFacts) -> str | None:
    """None if the preset's tables are valid for such a model, else the reason in words.

    A flow's shift is no reason: it moves the model's schedule, and a preset brings its own levels. Nor is the
    family: it decides between presets that suit.
    """
    model = preset.model
    if model.prediction != facts.prediction:
        return f"it is for {model.prediction} prediction, the model's is {facts.prediction}"
    if model.zero_terminal_snr != facts.zero_terminal_snr:
        return "it is for " + ("" if model.zero_terminal_snr else "no ") + "zero terminal SNR, the model " + (
            "has it" if facts.zero_terminal_snr else "has none")
    if not same_top(model.sigma_max, facts.sigma_max):
        return f"it is for levels up to {model.sigma_max:.4g}, the model's go up to {facts.sigma_max:.4g}"
    if None not in (model.channels, facts.channels) and model.channels != facts.channels:
        return f"it is for {model.channels} latent channels, the model has {facts.channels}"
    return None


def choose(presets: list[Preset], facts: ModelFacts, cfg: float | None = None, calls: int | None = None,
           strict: bool = False, start: float | None = None) -> tuple[Preset | None, str]:
    """(the preset for this model, why), or (None, why none): what a host prints.

    A preset made for these very weights (hash) comes first, then one for the model's family, then one whose
    prediction, levels and latent channels are the model's; strict leaves these out. Among equals: one whose numbers
    were measured somewhere, a table of this many calls from near the level `start` (None: the highest), a trained
    range that holds cfg, the model's shift, more tables, the newer (training["created"], an ISO date), the earlier in
    the list.
    Never taken by itself is a preset whose table for these calls from there is marked as not recommended. Published
    numbers that nobody measured (`unproven`) are taken for their own family and their own numbers of calls only, and
    not where they lost a race on these very weights.
    """
    if not presets:
        return None, "no preset is installed"
    reasons = [suits(preset, facts) for preset in presets]
    ours = _own_hashes([preset for preset, reason in zip(presets, reasons) if reason is None], facts)
    lost = {preset.short_hash for preset, reason in zip(presets, reasons)
            if reason is None and _made_for(preset, ours) and _not_recommended(preset, calls, start)}
    reasons = [reason or _not_recommended(preset, calls, start) or _held_back(preset, facts, ours, calls, strict, lost)
               for preset, reason in zip(presets, reasons)]
    usable = [i for i, reason in enumerate(reasons) if reason is None]
    if not usable:
        return None, "no preset is for this model" + _passed_over(presets, reasons)
    best = max(usable, key=lambda i: (*_rank(presets[i], facts, cfg, calls, start, ours), -i))
    reasons = [reason or "it fits less well" for reason in reasons]
    reasons[best] = None
    why = f"{called(presets[best])} is {_merit(presets[best], facts, ours)}{remarks(presets[best], cfg)}"
    return presets[best], why + _passed_over(presets, reasons)


def unproven(preset: Preset) -> bool:
    """Whether a preset is published numbers without a race: a starting point, and no claim."""
    return "imported" in preset.training and not preset.scores


def remarks(preset: Preset, cfg: float | None, table: str = "") -> str:
    """What has to be said of a preset, or of its table, wherever it runs, as clauses in brackets; mostly nothing."""
    unmeasured = " (published numbers, not measured on this checkpoint)" if unproven(preset) else ""
    lost = " (not recommended: a classical solver did better in its race)" if table in preset.lost else ""
    stopped = " (unfinished: its training was stopped)" if preset.unfinished else ""
    return cfg_words(preset, cfg) + unmeasured + (stopped or lost)


def called(preset: Preset) -> str:
    """A preset's name and the hash of its numbers, in a sentence."""
    return f"{preset.name} ({preset.short_hash})"


def cfg_words(preset: Preset, cfg: float | None) -> str:
    """A clause when cfg is outside what the preset was trained at, else nothing."""
    if cfg is None or (trained := cfg_range(preset)) is None or trained[0] <= cfg <= trained[1]:
        return ""
    low, high = trained
    return f" (trained at cfg {low:g}{f' to {high:g}' if high > low else ''}, not at {cfg:g})"


def _rank(preset: Preset, facts: ModelFacts, cfg: float | None, calls: int | None, start: float | None,
          ours: dict) -> tuple:
    model, has_table = preset.model, _has_table(preset, calls, start)
    return (_made_for(preset, ours), _same_family(preset, facts), not unproven(preset), has_table,
            not cfg_words(preset, cfg), facts.shift is not None and model.shift == facts.shift, len(preset.tables),
            str(preset.training.get("created", "")))


def _has_table(preset: Preset, calls: int | None, start: float | None) -> bool:
    """Whether a recommended table of this many calls starts near this level (None: the highest)."""
    flow, start = preset.model.flow, start or preset.curve[0]
    return any(table.calls == calls and preset.recommends(name) and starts_near(table.sigmas[0], start, flow)
               for name, table in preset.tables.items())


def _own_hashes(presets: list[Preset], facts: ModelFacts) -> dict:
    """The model's hashes, asked for only where a preset has some."""
    if facts.fingerprint is None or not any(preset.model.hashes for preset in presets):
        return {}
    return facts.fingerprint()


def _made_for(preset: Preset, ours: dict) -> bool:
    """Whether the most telling hash that both sides have is the same."""
    for kind in HASHES:
        theirs, here = preset.model.hashes.get(kind), ours.get(kind)
        if theirs and here:
            return sketch.same(theirs, here) if kind == sketch.KIND else theirs == here
    return False


def _same_family(preset: Preset, facts: ModelFacts) -> bool:
    return facts.family is not None and preset.model.family.lower() == facts.family


def _merit(preset: Preset, facts: ModelFacts, ours: dict) -> str:
    if _made_for(preset, ours):
        return "made for these weights"
    levels = f"{facts.prediction} prediction with levels up to {facts.sigma_max:.4g}"
    if _same_family(preset, facts):
        return f"for the family {facts.family}, {levels}"
    return (f"for {levels}, like the model, but was made for {preset.model.family}, not "
            f"{facts.family or 'a known family'}: race it before you trust it")


def cfg_range(preset: Preset) -> tuple[float, float] | None:
    """What training recorded: a number or [lowest, highest]; None where it says neither."""
    recorded = preset.training.get("cfg")
    values = recorded if isinstance(recorded, (list, tuple)) else [recorded]
    numbers = [value for value in values if is_number(value)]
    return (min(numbers), max(numbers)) if numbers else None


def middle_cfg(preset: Preset) -> float:
    """The guidance scale to try a preset at: the middle of those it was learned at, 1 where it says none."""
    return sum(cfg_range(preset) or (1.0, 1.0)) / 2


def _table_for(preset: Preset, calls: int, start: float | None) -> str | None:
    """The table of this many calls that starts nearest to a level (None: the highest there is)."""
    flow, names = preset.model.flow, [name for name, table in preset.tables.items() if table.calls == calls]
    start = start or preset.curve[0]
    return min(names, key=lambda name: start_ratio(preset.tables[name].sigmas[0], start, flow), default=None)


def _not_recommended(preset: Preset, calls: int | None, start: float | None) -> str | None:
    if preset.unfinished:
        return "its training is unfinished"
    if not preset.recommended:
        return "it is marked as not recommended"
    if calls is not None and (table := _table_for(preset, calls, start)) in preset.lost:
        return f"its table {table} is marked as not recommended"
    return None


def _held_back(preset: Preset, facts: ModelFacts, ours: dict, calls: int | None, strict: bool,
               lost: set[str]) -> str | None:
    """Why a preset that is recommended is not taken by itself; lost: hashes of numbers that lost on these weights."""
    if _made_for(preset, ours):
        return None
    if unproven(preset) and preset.short_hash in lost:
        return "its numbers lost a race on these weights"
    family = f"it is for {preset.model.family}, the model's family is {facts.family or 'unknown'}"
    if not _same_family(preset, facts):
        if strict:
            return f"{family}, and matching is strict"
        if unproven(preset):
            return f"{family}, and its published numbers were not measured elsewhere"
        if preset.model.channels is None or facts.channels is None:
            return f"{family}, and whether their latents are alike is not known"
    if unproven(preset) and calls is not None and all(table.calls != calls for table in preset.tables.values()):
        return f"it has no table for {calls} calls, and its published numbers promise nothing there"
    return None


def _passed_over(presets: list[Preset], reasons: list) -> str:
    """Every preset that was not taken, those with the same reason together."""
    alike: dict[str, list[str]] = {}
    for preset, reason in zip(presets, reasons):
        if reason:
            alike.setdefault(reason, []).append(called(preset))
    others = [f"{', '.join(names)}: {reason}" for reason, names in alike.items()]
    return f". Passed over: {'; '.join(others)}" if others else ""
