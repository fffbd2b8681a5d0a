"""Published schedules as presets, by name: AYS, GITS and OSS.

None of them was measured on the user's checkpoint, and each says so.
"""

from .core import Preset, classical, schedules
from .core.model import model_of

UNMEASURED = ("numbers as their authors published them; not measured on your checkpoint: race them before you trust "
              "them (S4S Race, or the tab of WebUI: one button)")
GONE = ("Version 0.4 was the last that imported NeuralSolver's tables and the files of DyWeight, EPD, GAS and LD3; "
        "presets that it made of them still work")


def names() -> dict[str, str]:
    """{name that `make` knows: the grid of core's published.json that offers a preset of this name}."""
    return {name: grid for grid, entry in schedules.published_grids().items() for name in entry.get("presets", ())}


def make(name: str, calls: int | tuple[int, ...] | None = None) -> Preset:
    """The published preset of this name: every number of calls it was published for, or only the ones asked for.

    Asked for other numbers of calls, it is stretched. Raises ValueError for an unknown name.
    """
    if name not in (known := names()):
        raise ValueError(f"unknown published name {str(name)[:80]!r}; there are: {', '.join(known)}. {GONE}")
    wanted, grid = (calls,) if isinstance(calls, int) else calls, known[name]
    entry, counts = schedules.published_grids()[grid], schedules.published_counts(grid)
    solver, model = entry["presets"][name]["solver"], model_of(entry["model"])
    record = {"imported": f"schedule with the solver {solver}", "published_calls": list(counts), "note": UNMEASURED}
    if evidence := entry["presets"][name].get("evidence"):
        record["evidence"] = evidence
    if stretched := sorted(set(wanted or ()) - set(counts)):
        record["stretched_calls"] = stretched
    on = classical.SOLVERS[solver]
    tables = {f"calls{n}": on(schedules.published(grid, n), model.flow) for n in wanted or counts}
    return Preset(name, tables, model, record, licence=entry["licence"], source=entry["source"])
