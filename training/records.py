"""What a preset records of the run that made it."""

from ..s4s_nodes import __version__
from ..s4s_nodes.core import Preset

TRAINER = f"s4s {__version__}"


def preset_of(run) -> Preset:
    """The best tables that a Run has learned so far. Raises ValueError while there is none."""
    tables = {name: run.tables.table(name) for name in begun(run)}
    if not tables or run.teacher is None:           # of a run that was stopped before it was under way again
        raise ValueError("no table has been learned yet")
    return Preset(run.plan.name, tables, run.source.model, training(run), licence="CC0-1.0",
                  source="trained with S4S")


def begun(run) -> dict:
    """The states by name of the tables that have been measured at least once."""
    return {name: state for name, state in run.states.items() if state.curve}


def training(run) -> dict:
    """How its tables were made: teacher, settings, pairs, errors, price."""
    plan, starts = run.plan, {name: run.tables.starts[name] for name in begun(run)}
    scales = {start.cfg for start in starts.values()}
    own = run.source.teacher            # a sampler with its levels: a race judges by it, too
    levels = {"teacher_levels": [float(level) for level in own[1]]} if own else {}
    return {"teacher": run.teacher.description, **levels, "teacher_error": run.facts["teacher"]["error"],
            "cfg": [min(scales), max(scales)], "resolution": run.source.size,
            "seed": plan.data.seed, "budget": run.config.budget, "pairs": plan.data.pairs,
            "iterations": {name: state.iteration for name, state in begun(run).items()},
            "held_out_rmse": {name: [state.curve[0][2], state.best_error] for name, state in begun(run).items()},
            "start": {name: start.schedule for name, start in starts.items()},
            "baseline": {name: ", ".join(start.baseline) for name, start in starts.items()},
            "nothing_gained": [name for name, start in starts.items() if not start.gained],
            "denoise": {name: start.denoise for name, start in starts.items()},
            "model_calls": run.model_calls, "seconds": round(run.seconds, 1), "trainer": ", then ".join(run.programs),
            "identity": run.identity, **run.source.about, **({"processes": run.world.size} if run.world else {})}
