"""Published tables and schedules as presets, by name: NeuralSolver, AYS, GITS and OSS.

None of them was measured on the user's checkpoint, and each says so.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path

from ..core import Model, Preset, classical, schedules
from ..core.model import model_of
from . import clock, neuralsolver

UNMEASURED = ("numbers as their authors published them; not measured on your checkpoint: race them before you trust "
              "them (S4S Race, or the tab of WebUI: one button)")

_SD_RANGE = (0.0291671582, 14.6146411896)
_SD15 = Model("sd15", "eps", *_SD_RANGE, channels=4)
_FLOW = partial(Model, prediction="flow", sigma_min=0.001, sigma_max=1.0)

# name: (table in neuralsolver.json, the model it was searched on or is carried over to, its clock)
_LEARNED: dict[str, tuple[str, Model, clock.Clock | None]] = {
    "neuralsolver-sit": ("neuralsolver-sit", _FLOW("sit-xl-2"), None),
    "neuralsolver-dcn": ("neuralsolver-dcn", _FLOW("flowdcn-b-2"), None),
    "neuralsolver-ddpm": ("neuralsolver-ddpm", Model("dit-xl-2", "eps", 0.0100005, 157.407, channels=4), None),
    "neuralsolver-ddpm-sd": ("neuralsolver-ddpm", _SD15, clock.stable_diffusion),
}


@cache
def _tables() -> dict:
    return json.loads((Path(__file__).parent / "neuralsolver.json").read_text(encoding="utf-8"))


def published() -> tuple[str, ...]:
    """The names that `make` knows."""
    return *_LEARNED, *_grids()


def _grids() -> dict[str, str]:
    """{name: the grid of core's published.json that offers a preset of this name}."""
    return {name: grid for grid, entry in schedules.published_grids().items() for name in entry.get("presets", ())}


def make(name: str, calls: int | tuple[int, ...] | None = None) -> Preset:
    """The published preset of this name: every number of calls it was published for, or only the ones asked for.

    A schedule can be asked for other numbers of calls and is then stretched; a learned table cannot. Raises
    ValueError for an unknown name, or with the numbers of calls there are.
    """
    wanted = (calls,) if isinstance(calls, int) else calls
    if name in _LEARNED:
        return _learned(name, wanted)
    if name in _grids():
        return _scheduled(name, wanted)
    raise ValueError(f"unknown published name {str(name)[:80]!r}; there are: {', '.join(published())}")


def _learned(name: str, wanted: tuple[int, ...] | None) -> Preset:
    table, model, carried = _LEARNED[name]
    entry = _tables()[table]
    by_calls = {len(each["steps"]): each for each in entry["tables"]}
    if missing := sorted(set(wanted or ()) - set(by_calls)):
        raise ValueError(f"{name} was published for {', '.join(map(str, by_calls))} calls, not for {missing[0]}: a "
                         "learned table cannot be stretched")
    lower = neuralsolver.flow_table if entry["kind"] == "flow" else partial(
        neuralsolver.vp_table, sigma=carried, to_zero=carried is not None)
    record = {"imported": "NeuralSolver", "learned_on": entry["learned_on"], "note": UNMEASURED}
    if carried:
        record["note"] = (f"{UNMEASURED}; their grid of network times is read on Stable Diffusion's noise levels, down "
                          "to 0, which its authors did not do")
    # on the bundled models classical solvers do better in 23 of 24 cells: tests/bench/published_tables.py
    tables = {f"calls{n}": lower(by_calls[n]["steps"], by_calls[n]["coefficients"]) for n in wanted or by_calls}
    return Preset(name, tables, model, record, recommended=False, licence=f"{entry['licence']}, {entry['credit']}",
                  source=entry["source"])


def _scheduled(name: str, wanted: tuple[int, ...] | None) -> Preset:
    grid = _grids()[name]
    entry, counts = schedules.published_grids()[grid], schedules.published_counts(grid)
    solver, model = entry["presets"][name]["solver"], model_of(entry["model"])
    stretched = sorted(set(wanted or ()) - set(counts))
    record = {"imported": f"schedule with the solver {solver}", "published_calls": list(counts), "note": UNMEASURED}
    if evidence := entry["presets"][name].get("evidence"):
        record["evidence"] = evidence
    if stretched:
        record["stretched_calls"] = stretched
    on = classical.SOLVERS[solver]
    tables = {f"calls{n}": on(schedules.published(grid, n), model.flow) for n in wanted or counts}
    return Preset(name, tables, model, record, licence=entry["licence"], source=entry["source"])
