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
    training = {"learned on": [setting.name for setting in everyone], "cfg": [CFG, CFG], "order": 3,
                "teacher": "a classical solver, 50 calls", "mode": "forward",
                "objective": "rmse over that of the best classical pair, the mean of the models",
                "left out": left_out, "trainer": "tests/bench/transfer",
                "note": ("A transfer preset: not measured on any real checkpoint. 'left out': how many times closer "
                         "than the best classical pair a table learned on the other models was on each. Race it.")}
    return Preset(NAMES[family], tables, MODELS[family], training, licence="CC0-1.0",
                  source="learned by S4S on small models of digits, emoji and CIFAR-10 pictures")
