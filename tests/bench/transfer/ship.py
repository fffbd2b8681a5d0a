"""Transfer presets: tables learned on all models of a family, for the numbers of calls at which leaving one out won.

They are for checkpoints nobody measured them on, and say so. They name no latent channels: hosts take such a preset
only when they are told to.
"""

from s4s.s4s_nodes.core import Model, Preset
from tests.bench.transfer import cells, models
from tests.bench.transfer.page import passes, transferred
from tests.bench.transfer.questions import begun_at
from tests.bench.transfer.study import CFG, Setting, Study

MODELS = {"eps": Model("transfer-eps", "eps", 0.0292, 14.6146),
          "flow": Model("transfer-flow", "flow", 0.001, 1.0),
          "v, zero SNR": Model("transfer-v-zsnr", "v", 0.0292, models.ZERO_SNR_TOP, zero_terminal_snr=True)}


def presets(study: Study, found: dict) -> list[Preset]:
    """What may ship of these rows."""
    made = [transfer_preset(study, family, found[family]) for family in MODELS if family in found]
    return [preset for preset in made if preset is not None]


def passed(rows: list[dict]) -> dict[int, list[float]]:
    """{calls: guidance scales}: from CFG upwards, as far as every one of those that were tried passes."""
    found: dict[int, list[float]] = {}
    for calls in sorted({row["calls"] for row in rows}):
        for cfg in sorted({row["cfg"] for row in rows if row["calls"] == calls and row["cfg"] >= CFG}):
            if not passes(rows, calls, cfg):
                break
            found.setdefault(calls, []).append(cfg)
    return found


def transfer_preset(study: Study, family: str, rows: list[dict]) -> Preset | None:
    """The family's preset, or None where it passes at no number of calls.

    Where several guidance scales passed it holds a table for each (select/cfg.py): hosts interpolate.
    """
    if not (counts := passed(rows)):
        return None
    names = list(dict.fromkeys(row["on"] for row in rows))
    tables, left_out, several = {}, {}, any(len(cfgs) > 1 for cfgs in counts.values())
    for calls, cfg in ((calls, cfg) for calls, cfgs in counts.items() for cfg in cfgs):
        name = f"calls{calls}" + (f"_cfg{cfg:g}" if several else "")
        everyone = tuple(Setting(each, cfg) for each in names)
        tables[name] = cells.table(study.table(everyone, calls, begun_at(everyone))["table"])
        left_out[name] = {row["on"]: round(transferred(row).rmse, 3) for row in rows
                          if (row["calls"], row["cfg"]) == (calls, cfg)}
    scales = [cfg for cfgs in counts.values() for cfg in cfgs]
    training = {"imported": "transfer preset, learned on small models of several kinds",
                "cfg": [min(scales), max(scales)], "learned on": names, "left out": left_out, "order": 3,
                "teacher": "a classical solver, 50 calls", "trainer": "tests/bench/transfer",
                "evidence": _evidence(left_out),
                "note": ("It runs only if you choose it by name. It was not measured on your checkpoint: race it there "
                         f"at your cfg (it was learned at {_listed(sorted(set(scales)))}; at 5 and 7 tables like it "
                         "lost on a model of each kind)")}
    about = MODELS[family]
    return Preset(about.family, tables, about, training, licence="CC0-1.0",
                  source="learned by S4S on small models of digits, emoji and CIFAR-10 pictures")


def _listed(scales: list[float]) -> str:
    return ", ".join(f"{cfg:g}" for cfg in scales)


def _evidence(left_out: dict) -> str:
    """What leaving each model out gave, in a sentence."""
    told = "; ".join(f"{table.removeprefix('calls').replace('_cfg', ' calls, cfg ')}"
                     f"{'' if '_cfg' in table else ' calls'}: "
                     + ", ".join(f"{times:.2f} on {name}" for name, times in found.items())
                     for table, found in left_out.items())
    return (f"A table learned on the other models was this many times closer to the fine solver than the best "
            f"baseline, by RMSE ({told}); docs/transfer.md has the intervals")
