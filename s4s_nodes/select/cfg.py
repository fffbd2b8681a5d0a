"""Tables learned at several guidance scales in one preset, and the table that runs at a given cfg.

Such a table is named STEM_cfgNUMBER: calls6_cfg3, calls6_cfg7.5. Inside the trained range it is interpolated, linearly
in cfg: both tables are first moved to common levels (adapt.py), where their carries agree, so that a mean of them obeys
the constant law as they do. Outside the nearest runs, unchanged. Nothing is ever extrapolated.

A training for a range of cfg learns such tables at a few nodes, each from its neighbour's, so that they interpolate.
"""

import math
import re
from contextlib import suppress
from dataclasses import replace

import numpy as np

from ..core.preset_file import Preset, PresetError
from ..core.scores import condition, near
from ..core.sketch import same_weights
from ..core.table import Table
from .adapt import adapted, lawful

SPACING = 2.0               # largest ratio of two nodes of a range: docs/how-to/several-cfg.md has the measurements
_LEARNED_AT = re.compile(r"(.+)_cfg(\d+(?:\.\d+)?)")
_RANGE = re.compile(r"\s*([\d.]+)\s*[-:\u2013]\s*([\d.]+)\s*")


def cfg_nodes(given) -> tuple[float, ...]:
    """The guidance scales to learn tables at, rising: of "3-7" or "3:7" both ends and those needed between, of "3,5",
    (3, 5) or 3 those named.

    The nodes of a range are even in the logarithm, about a factor of `SPACING` apart at most, and rounded. Raises
    ValueError for anything else.
    """
    try:
        if isinstance(given, str) and (match := _RANGE.fullmatch(given)):
            low, high = float(match[1]), float(match[2])
            if not 0 < low < high:
                raise ValueError
            steps = max(1, math.ceil(math.log(high / low, SPACING) - 0.02))
            inner = [float(f"{low * (high / low) ** (step / steps):.2g}") for step in range(1, steps)]
            return low, *inner, high
        several = given.split(",") if isinstance(given, str) else given if isinstance(given, (tuple, list)) else [given]
        nodes = tuple(sorted(float(f"{float(scale):.6g}") for scale in several))
        if not nodes or not all(0 <= node < math.inf for node in nodes) or len(set(nodes)) < len(nodes):
            raise ValueError
    except (TypeError, ValueError):
        raise ValueError(f"cfg {given!r}: write a guidance scale such as 5, a range such as 3-7, or a list such as "
                         "3,5,7") from None
    return nodes


def middle_node(nodes: tuple[float, ...]) -> float:
    """The one that a training samples and races at. Not 1 if another is learned: at 1 hosts read no negative prompt."""
    guided = [cfg for cfg in nodes if cfg != 1] or nodes
    return guided[len(guided) // 2]


def name_at(stem: str, cfg: float) -> str:
    """The name of a table that was learned at one of several guidance scales."""
    return f"{stem}_cfg{cfg:g}"


def learned_at(preset: Preset) -> dict:
    """{stem: {cfg: table name}} of the tables that were learned at several guidance scales, cfg rising."""
    stems: dict = {}
    for name in preset.tables:
        if match := _LEARNED_AT.fullmatch(name):
            stems.setdefault(match[1], {})[float(match[2])] = name
    return {stem: dict(sorted(names.items())) for stem, names in stems.items()}


def at_cfg(preset: Preset, cfg: float | None) -> tuple[Preset, str]:
    """(the preset with one table per stem, a clause on the cfg used); a preset without such tables as it is.

    cfg None, as for a scheduler that is not told: the middle one of those learned. A stem's score is of a race at this
    cfg, else the worst of the tables it is made of.
    """
    groups = learned_at(preset)
    if not groups:
        return preset, ""
    tables = {name: table for name, table in preset.tables.items() if not _LEARNED_AT.fullmatch(name)}
    scores = {name: score for name, score in preset.scores.items() if not _LEARNED_AT.fullmatch(name)}
    clauses = []
    for stem, names in groups.items():
        tables[stem], used, clause = _table_at(preset, names, cfg)
        clauses.append(clause)
        if cfg is None or not near(preset.scores.get(stem, {}), cfg):
            known = [score for name in used if "ratio" in (score := preset.score(name))]
            scores[stem] = {condition(worst): worst for worst in sorted(known, key=lambda score: score["ratio"])[:1]}
    return replace(preset, tables=tables, scores=scores), max(clauses, key=clauses.count)


def _table_at(preset: Preset, names: dict, cfg: float | None) -> tuple[Table, list[str], str]:
    """(table, the names of those it is made of, clause) of one stem."""
    known = np.array(list(names))
    nearest = known[len(known) // 2] if cfg is None else known[np.abs(known - cfg).argmin()]
    alone = names[float(nearest)]
    if cfg is not None and cfg not in names and known[0] < cfg < known[-1]:
        low, high = known[known < cfg].max(), known[known > cfg].min()
        used = [names[float(low)], names[float(high)]]
        with suppress(ValueError):              # a table that cannot be moved, or other ends: use the nearest
            below, above = (preset.tables[name] for name in used)
            mixed = between(below, above, (cfg - low) / (high - low), preset.model.flow)
            return mixed, used, f", between those learned at cfg {low:g} and {high:g}"
    return preset.tables[alone], [alone], f", as learned at cfg {nearest:g}"


def between(low: Table, high: Table, share: float, flow: bool) -> Table:
    """Interpolate two tables: `low` at share 0, `high` at share 1; levels and queries in log, weights linearly.

    Raises ValueError where the tables have different numbers of calls or ends, or one of a kind that cannot be moved.
    """
    there = low.sigmas ** (1 - share) * high.sigmas ** share
    first, second = adapted(low, there, flow), adapted(high, there, flow)
    table = Table(there, first.query ** (1 - share) * second.query ** share,
                  first.scale ** (1 - share) * second.scale ** share,
                  (1 - share) * first.carry + share * second.carry,
                  (1 - share) * first.weights + share * second.weights, keeps_constants=False)
    return lawful(table, flow) if low.keeps_constants and high.keeps_constants else table


def running(preset: Preset, names, cfg: float) -> dict:
    """{name: table} that a race at this cfg runs for these tables.

    Each stem once: under its table's name if that was learned at this cfg, else under the stem. A stem is not a table
    of the preset, so its result is not stored as a score.
    """
    there, groups, tables = at_cfg(preset, cfg)[0], learned_at(preset), {}
    for name in names:
        stem = match[1] if (match := _LEARNED_AT.fullmatch(name)) else name
        tables[groups.get(stem, {}).get(cfg, stem)] = there.tables[stem]
    return tables


def join_presets(presets: list[Preset], name: str) -> Preset:
    """Join presets that were learned for the same model at different guidance scales.

    Args:
        presets: at least two.
        name: of the joined preset.

    Every table keeps its score and verdict; the joined preset is recommended if one of them is. Raises PresetError
    if models differ, a preset does not record one cfg, or two have the same.
    """
    tables, scores, seen = {}, {}, {}
    for preset in presets:
        ours, first = vars(preset.model), vars(presets[0].model)
        if unlike := [name for name in ours if ours[name] != first[name] and not (
                name == "hashes" and same_weights(ours[name], first[name]))]:
            raise PresetError(f"{preset.name} is for {preset.model.family}, {presets[0].name} for "
                              f"{presets[0].model.family}, other in {', '.join(unlike)}: only presets for one model "
                              "can be joined")
        recorded, scales = preset.training.get("cfg"), preset.trained_cfg
        if len(set(scales)) != 1 or scales[0] <= 0 or recorded not in (scales[0], scales, tuple(scales)):
            raise PresetError(f"{preset.name} says cfg {recorded!r}: expected a preset learned at one cfg above 0")
        cfg = float(scales[0])
        if preset.experts:
            raise PresetError(f"{preset.name} is for two models: such presets cannot be joined")
        if cfg in seen:
            raise PresetError(f"{seen[cfg]} and {preset.name} were both learned at cfg {cfg:g}: give one of each")
        seen[cfg] = preset.name
        tables |= {name_at(stem, cfg): table for stem, table in preset.tables.items()}
        verdict = {} if preset.recommended else {"recommended": False}          # older files have only the preset's
        scores |= {name_at(stem, cfg): {at: {**verdict, **score} for at, score in results.items()}
                   for stem, results in preset.scores.items()}
    if len(seen) < 2:
        raise PresetError(f"{len(seen)} preset was given: at least two, learned at different cfg, can be joined")
    training = {key: value for key, value in presets[0].training.items() if key != "self_test"}
    training |= {"cfg": [min(seen), max(seen)], "joined": sorted(seen.values())}
    return replace(presets[0], name=name, tables=tables, scores=scores, training=training,
                   recommended=any(preset.recommended for preset in presets))
