"""Transfer presets: tables learned on all models of a family, for the numbers of calls at which leaving one out won.

They are for checkpoints nobody measured them on, and say so. They name no latent channels: hosts take such a preset
only when they are told to, since at another guidance than its own a table loses more than it wins.
"""

from __future__ import annotations

from s4s_nodes.core import Model, Preset

from . import cells, models
from .page import passes, transferred
from .study import CFG, Setting, Study

NAMES = {"eps": "transfer-eps", "flow": "transfer-flow"}
MODELS = {"eps": Model("transfer-eps", "eps", 0.0292, 14.6146),
          "flow": Model("transfer-flow", "flow", 0.001, 1.0)}


def presets(study: Study, found: dict) -> list[Preset]:
    """What may ship of these rows."""
    made = [transfer_preset(study, family, found[family]) for family in NAMES if family in found]
    return [preset for preset in made if preset is not None]


def transfer_preset(study: Study, family: str, rows: list[dict]) -> Preset | None:
    """The family's preset, or None where it passes at no number of calls."""
    counts = [calls for calls in sorted({row["calls"] for row in rows}) if passes(rows, calls)]
    if not counts:
        return None
    everyone = tuple(Setting(name) for name in dict.fromkeys(row["on"] for row in rows)
                     if name not in models.RACED_ONLY)
    tables = {f"calls{calls}": cells.table(study.table(everyone, calls)["table"]) for calls in counts}
    left_out = {f"calls{calls}": {row["on"]: round(transferred(row).rmse, 3) for row in rows if row["calls"] == calls}
                for calls in counts}
    training = {"imported": "transfer preset, learned on small models of several kinds", "cfg": [CFG, CFG],
                "learned on": [setting.name for setting in everyone], "left out": left_out, "order": 3,
                "teacher": "a classical solver, 50 calls", "mode": "forward", "trainer": "tests/bench/transfer",
                "evidence": _evidence(left_out),
                "note": ("It is taken only where you name it, and it was learned at guidance 3: at 5 and more, a "
                         "table like it lost on another model. It was not measured on your checkpoint: race it there")}
    return Preset(NAMES[family], tables, MODELS[family], training, licence="CC0-1.0",
                  source="learned by S4S on small models of digits, emoji and CIFAR-10 pictures")


def _evidence(left_out: dict) -> str:
    """What leaving each model out gave, in a sentence."""
    told = "; ".join(f"{table.removeprefix('calls')} calls: " + ", ".join(f"{times:.2f} on {name}" for name, times
                                                                         in found.items())
                     for table, found in left_out.items())
    return (f"A table learned on the other models was so many times closer to the fine solver than the best classical "
            f"pair, by RMSE ({told}); docs/transfer.md has the intervals")
