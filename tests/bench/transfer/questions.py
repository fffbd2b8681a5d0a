"""The four questions: another model, another cfg, another size of picture, other precision. Each gives rows."""

from dataclasses import dataclass

import numpy as np

from s4s.s4s_nodes.select.cfg import between
from s4s.training.benchmark.verdict import interval, pooled
from tests.bench.transfer import cells, models
from tests.bench.transfer.study import CFG, DEFAULTS, SHIPPED, Setting, Study

COUNTS = (4, 5, 6, 8)
FAMILY_CFGS = (CFG, 5.0, 7.0)           # two apart, as tables can be interpolated
TOGETHER = "the others together"
CFG_MODELS, CFG_CALLS = ("digits-eps", "emoji-sd3"), 6
TRAINED_AT, BETWEEN_AT = (1.0, 3.0, 5.0, 7.0, 12.0), (2.0, 4.0, 6.0)
SIZE_MODELS, SIZES = ("emoji-eps", "emoji-flow"), (0, 24, 32)           # 0: the 16 pixels they are known for
ROUNDED_MODELS, ROUNDINGS = ("digits-eps", "emoji-sd3"), ("fp16", "bf16", "bf16 net")


@dataclass(frozen=True)
class Ratio:
    """How many times closer to the fine solver a table is than a baseline, by RMSE and by the median seed."""

    rmse: float
    rmse_95: tuple
    median: float
    median_95: tuple

    @property
    def wins(self) -> bool:
        """Closer by both measures."""
        return min(self.rmse, self.median) > 1.0

    @property
    def surely(self) -> bool:
        """Closer by RMSE with its whole 95 % interval."""
        return self.rmse_95[0] > 1.0


def ratio(baseline: np.ndarray, learned: np.ndarray) -> Ratio:
    """The baseline's error over the learned table's, on the same seeds."""
    if not np.isfinite(baseline).all():
        return Ratio(float("inf"), (float("inf"),) * 2, float("inf"), (float("inf"),) * 2)
    return Ratio(float(pooled(baseline) / pooled(learned)), interval(baseline, learned),
                 float(np.median(baseline) / np.median(learned)), interval(baseline, learned, np.median))


def best(study: Study, on: Setting, calls: int) -> tuple[str, np.ndarray]:
    """The baseline that is closest on the very seeds that are raced, which favors it."""
    found = {name: np.array(errors) for name, errors in study.classical(on, calls)["all"].items()}
    name = min(found, key=lambda key: pooled(found[key]))
    return name, found[name]


def fair(study: Study, on: Setting, calls: int, others: list[Setting]) -> tuple[str, np.ndarray]:
    """The baseline that does best over the other models, as a transferred table is chosen."""
    few = [study.classical(other, calls)["few"] for other in others]
    known = set.intersection(*(set(found) for found in few)) & set(study.classical(on, calls)["few"])
    name = min(sorted(known), key=lambda key: sum(np.log(np.mean(found[key])) for found in few))
    return name, study.pair(on, calls, name)


def default(study: Study, on: Setting, calls: int) -> np.ndarray:
    """The baseline people start with."""
    return study.pair(on, calls, ", ".join(DEFAULTS[study.source(on).model.prediction]))


def family_rows(study: Study, family: str, calls: int, names: tuple | None = None, cfg: float = CFG) -> list[dict]:
    """For each model of a family: its own tables, those of the others, and one learned on all others together.

    At another cfg than CFG its own and the one of all others only; both go on from where they ended at CFG.
    """
    settings = [Setting(name, cfg) for name in names or models.FAMILIES[family]]
    rows = []
    for on in settings:
        others = [setting for setting in settings if setting != on]
        name, top = best(study, on, calls)
        fair_name, equal = fair(study, on, calls, others)
        tables = {"the trainer's": study.trained(on, calls)} if calls == CFG_CALLS else {}
        tables["its own"] = learned_on(study, (on,), calls, on)
        if cfg == CFG:
            tables |= {other.name: study.raced((other,), calls, on) for other in others}
        if len(others) > 1:
            tables[TOGETHER] = learned_on(study, tuple(others), calls, on)
        for shipped in SHIPPED if cfg == CFG else ():
            if models.family_of(shipped) == family and (errors := study.shipped(shipped, calls, on)) is not None:
                tables[f"{shipped}, shipped"] = errors
        rows.append({"on": on.name, "calls": calls, "cfg": cfg, "best": name, "best_rmse": float(pooled(top)),
                     "fair": fair_name, "fair_ratio": ratio(top, equal),
                     "default_ratio": ratio(top, default(study, on, calls)),
                     "tables": {key: ratio(top, errors) for key, errors in tables.items()},
                     "over_fair": {key: ratio(equal, errors) for key, errors in tables.items()}})
    return rows


def learned_on(study: Study, settings: tuple, calls: int, on: Setting) -> np.ndarray:
    """Errors of the table learned on these settings, at another cfg than CFG from the same models' at CFG on."""
    return study.raced(settings, calls, on, begun_at(settings))


def begun_at(settings: tuple) -> tuple:
    """The settings at CFG whose table one at another cfg goes on from, so that the two lie in one valley."""
    return () if settings[0].cfg == CFG else tuple(Setting(setting.name) for setting in settings)


def cfg_table(study: Study, name: str, cfg: float):
    """The table learned at a cfg; all go on from the one at 3, so that they lie in one valley."""
    start = (Setting(name, 3.0),)
    return cells.table(study.table((Setting(name, cfg),), CFG_CALLS, () if cfg == 3.0 else start)["table"])


def interpolated(study: Study, name: str, cfg: float, log: bool):
    """The table between the nearest of TRAINED_AT below and above, linear in cfg or in its logarithm.

    Of one that was trained itself its neighbours only: what would be lost without it.
    """
    low = max(at for at in TRAINED_AT if at < cfg)
    high = min(at for at in TRAINED_AT if at > cfg)
    share = np.log(cfg / low) / np.log(high / low) if log else (cfg - low) / (high - low)
    flow = study.source(Setting(name)).flow
    return between(cfg_table(study, name, low), cfg_table(study, name, high), float(share), flow)


def cfg_row(study: Study, name: str, cfg: float) -> dict:
    """At one cfg: the tables of TRAINED_AT, one learned at this very cfg, and the interpolated ones."""
    on = Setting(name, cfg)
    best_name, top = best(study, on, CFG_CALLS)
    tables = {f"cfg {at:g}": study.errors(f"{name}-at{at:g}", cfg_table(study, name, at), on) for at in TRAINED_AT}
    if cfg in BETWEEN_AT:
        tables["this cfg"] = study.errors(f"{name}-at{cfg:g}", cfg_table(study, name, cfg), on)
    if TRAINED_AT[0] < cfg < TRAINED_AT[-1]:
        for log in (False, True):
            key = "between, in log cfg" if log else "between"
            tables[key] = study.errors(f"{name}-between{'-log' if log else ''}",
                                       interpolated(study, name, cfg, log), on)
    return {"on": f"{name}, cfg {cfg:g}", "cfg": cfg, "calls": CFG_CALLS, "best": best_name,
            "best_rmse": float(pooled(top)), "tables": {k: ratio(top, e) for k, e in tables.items()}}


def size_rows(study: Study, name: str, calls: int = 6) -> list[dict]:
    """For each size of picture: tables learned at every size."""
    settings, rows = [Setting(name, size=size) for size in SIZES], []
    for on in settings:
        best_name, top = best(study, on, calls)
        tables = {f"{at.size or 16} px": study.raced((at,), calls, on) for at in settings}
        rows.append({"on": f"{name}, {on.size or 16} px", "calls": calls, "best": best_name,
                     "best_rmse": float(pooled(top)), "tables": {k: ratio(top, e) for k, e in tables.items()}})
    return rows


def rounding_rows(study: Study, name: str, calls: int = 6) -> list[dict]:
    """For each rounding: the table learned in full precision, and the one learned under it."""
    full, rows = Setting(name), []
    for rounding in ("", *ROUNDINGS):
        on = Setting(name, rounding=rounding)
        best_name, top = best(study, on, calls)
        tables = {"fp32": study.raced((full,), calls, on)}
        if rounding:
            tables["this precision"] = study.raced((on,), calls, on)
        rows.append({"on": f"{name}, {rounding or 'fp32'}", "calls": calls, "best": best_name,
                     "best_rmse": float(pooled(top)), "tables": {k: ratio(top, e) for k, e in tables.items()}})
    return rows
