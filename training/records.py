"""What a preset records of the run that made it."""

from __future__ import annotations

from ..s4s_nodes import __version__
from ..s4s_nodes.core import Preset

TRAINER = f"s4s {__version__}"
SETTINGS = ("family", "base", "order", "learn", "mode", "objective", "relaxed", "seed", "budget")


def preset_of(run) -> Preset:
    """The best tables that a Run has learned so far. Raises ValueError while there is none."""
    tables = {name: run.table(name) for name in run.states}
    if not tables or run.teacher is None:           # of a run that was stopped before it was under way again
        raise ValueError("no table has been learned yet")
    return Preset(run.plan.name, tables, run.source.model, training(run), licence="CC0-1.0",
                  source="trained with S4S")


def training(run) -> dict:
    """How its tables were made: teacher, settings, pairs, errors, price."""
    plan, scales = run.plan, {run.starts[name]["cfg"] for name in run.states}
    return {"teacher": run.teacher.words, "teacher_error": run.starts["teacher"]["error"],
            "cfg": [min(scales), max(scales)], "resolution": list(run.source.shape[1:]),
            **{name: value for name, value in plan.flat().items() if name in SETTINGS}, "budget": run.config.budget,
            "pairs": plan.iterations * plan.gradient.batch if plan.gradient.fresh else plan.data.pairs,
            "iterations": {name: state.iteration for name, state in run.states.items()},
            "held_out_rmse": {name: [state.curve[0][2], state.best_error] for name, state in run.states.items()},
            "start": {name: run.starts[name]["schedule"] for name in run.states},
            "baseline": {name: ", ".join(run.starts[name]["baseline"]) for name in run.states},
            "nothing_gained": [name for name in run.states if not run.starts[name]["gained"]],
            "denoise": {name: run.starts[name]["denoise"] for name in run.states},
            "model_calls": run.model_calls, "seconds": round(run.seconds, 1), "trainer": ", then ".join(run.programs),
            "identity": run.identity,
            **run.source.about, **({"processes": run.world.size} if run.world else {})}
