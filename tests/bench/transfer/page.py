"""The page: the rows of every question as Markdown, and the verdict on transfer presets."""

from tests.bench.transfer import models
from tests.bench.transfer.cells import OutOfTime
from tests.bench.transfer.questions import CFG_CALLS, TOGETHER, Ratio
from tests.bench.transfer.study import BUDGET, CHECK, FEW, LESSON, TEST, Setting, Study

HEAD = """# What survives a change of model: the transfer study

Made by `python -m tests.bench.transfer --data FOLDER --write docs/transfer.md`. The same command resumes where it was
stopped, and `--minutes 0` writes the page from what is measured.

A learned table is a few dozen numbers fitted to one network at one guidance scale. This page measures what happens when
the model, the data, the guidance, the image size or the precision changes. The networks are small and real, each
trained on real data and guided by class. They share prediction and noise levels with the big ones, but not their size.
A number here is a reason to race a preset on your checkpoint. It does not replace the race.

**How to read the numbers.**

- Each is a ratio: the error of the best baseline over that of the table, at equal calls. The error is the RMSE to a
  fine solver (50 calls), over all pixels of {test} seeds that no table learned from. Above 1 the table wins.
- The interval is a 95 % bootstrap interval over the seeds.
- A **bold** ratio wins by RMSE and by the median seed. One in (brackets) has an interval that reaches below 1.
- The best baseline is chosen on the very seeds of the race, which favors it. About 96 strong baselines took part (8
  solvers, every schedule that suits): all of them on {few} seeds, the best six on {test}.
- Tables learn with forward calls only, on {lesson} seeds. {check} more choose the best state.
- `shipped` are the presets in `solver_presets/`, which were trained far longer.
"""

FOUND = """## What it says

Written by hand for the run of 2026-11-24, whose numbers are in the tables below.

- **With zero terminal SNR (v-prediction), tables carry over.** Learned on two of three models, they beat the best
  baseline on the third at 4, 5, 6 and 8 calls, by 1.16 to 2.48 times. All twelve intervals are above 1. The baselines
  waste calls where the state is pure noise. So `solver_presets/transfer-v-zsnr.safetensors` ships.
- **For eps and flows they hardly do.** At cfg 3, eps passes at 6 calls (1.05, 1.15, 1.34; by the median seed 1.36 to
  1.38). A flow passes at 4 (1.02 to 1.16; 1.02 to 1.24) and at 6 (1.06 to 1.45; 1.12 to 1.46). At the other numbers of
  calls one or two models are lost, down to 0.65. Three of eight cells pass, narrowly, so some of it may be luck. So
  `transfer-eps` holds 6 calls only, and `transfer-flow` 4 and 6. A first run of the flows, without digits-flow among
  the training models, lost emoji-flow at 6 calls with 0.97.
- **A table learned on one model belongs to that model.** At 6 calls, 15 of 24 tables that learned on one model beat the
  best baseline on another of its family, by 1.00 to 2.41 times. The others lost, down to 0.62.
- **At cfg 5 and 7 no family passes.** Each loses at least one model, down to 0.40.
- **A table trained on the model itself, at its cfg, wins.** The trainer had 10,000 network calls, at 6 calls and cfg 3,
  5 and 7. It won 29 of 30 cases by the median seed (1.05 to 2.92 times; the one lost at 0.93), and 26 of 30 by RMSE
  (1.01 to 2.84). emoji-flow and emoji-eps lose by RMSE at 0.80 to 0.93, because of a few seeds whose image changes
  shape. So train at your cfg.
- **Guidance matters more than the model.** On emoji-sd3 the table learned at cfg 3 wins at 1 to 4 and loses at 5
  to 7 (0.83, 0.73, 0.84). The one of cfg 7 wins from 4 on and loses below 3. On digits-eps every table of the study
  except those of cfg 1 to 3 is near 1 or below it.
- **You can interpolate tables in cfg if they lie close.** If the learned cfg are two apart, the interpolated table has
  1.52 and 1.33 at cfg 2 (one learned there: 1.38, 1.32) and 1.41 at cfg 4 (1.65). That is more than the lower of its
  neighbors. On digits-eps at cfg 4 all three lose alike (0.85, 0.86). If they are further apart, it is near the better
  neighbor. Interpolating in cfg or in its logarithm makes no difference. That is what `s4s join` is for: it makes one
  preset from several learned at different cfg, and the hosts interpolate between them.
- **Half precision costs nothing.** A table learned in full precision wins as often if the network's numbers are rounded
  to fp16 or bf16 (1.14 and 1.15 beside 1.14; 1.21 beside 1.21), or if the whole network computes in bf16 (1.14, 1.16).
  A table learned in bf16 is worse (1.06, 1.00): train in full precision if you can.
- **Another size of picture is a toss-up.** From 16 to 32 pixels tables do about as well on other sizes as on their own,
  with wide intervals: of twelve, seven win and one surely loses.
"""


def page(study: Study, found: dict, names: list[str], missing: list[str] = ()) -> str:
    """The whole page in Markdown."""
    parts = [HEAD.format(test=TEST, few=FEW, lesson=LESSON, check=CHECK), FOUND, _models(study, names)]
    families = {family: rows for family, rows in found.items() if family in models.FAMILIES}
    if families:
        parts += [_verdict(families), "## Another model of the family\n\nLearned and raced at the same guidance.\n\n"
                  "- *the trainer's*: learned on this very model by the trainer, forward only, within "
                  f"{BUDGET:,} network calls: what one button gives. The other tables are the study's own, which begin "
                  "alike so that several models can share one.\n"
                  "- *the others together*: one table learned on all other models of the family at once. None of its "
                  "numbers have seen the model it is raced on.\n"
                  "- *fair baseline*: the best one over the other models, chosen as a transferred table is.\n"
                  "- *default*: DPM++ 2M Karras; for a flow and for v, Euler simple.\n\n"
                  "The last two are compared with the best baseline, too.\n"]
        parts += [_family(family, rows) for family, rows in families.items()]
    if found.get("cfg"):
        parts.append(_section("Another guidance scale", found["cfg"], f"{CFG_CALLS} calls. Rows: the guidance used to "
                     "sample. Columns: the guidance a table was learned at. *between*: interpolated from the two "
                     "nearest learned tables (`s4s_nodes/select/cfg.py`), linearly in cfg or in its logarithm. *this "
                     "cfg*: learned at the same guidance."))
    if found.get("sizes"):
        parts.append(_section("Another size of picture", found["sizes"], "6 calls, guidance 3, networks trained on "
                     "all three sizes. Columns: the size a table was learned at."))
    if found.get("rounding"):
        parts.append(_section("Half precision", found["rounding"], "6 calls, guidance 3. fp16 and bf16: the network's "
                     "inputs and outputs are rounded. bf16 net: the whole network computes in bf16. The fine solver "
                     "runs in the same precision."))
    if missing:
        parts.append(f"## Not measured\n\nThe run that made this page had no time for: {', '.join(missing)}. The same "
                     "command resumes where it stopped.\n")
    return "\n".join(parts)


def _ratio(found: Ratio, interval: bool = True) -> str:
    """A ratio as the page shows it."""
    if found.rmse == float("inf"):
        return "–"
    text = f"{found.rmse:.2f}"
    text = f"**{text}**" if found.wins else text
    if not interval:
        return text
    low, high = found.rmse_95
    return f"({text} [{low:.2f}, {high:.2f}])" if low < 1 < high else f"{text} [{low:.2f}, {high:.2f}]"


def _table(head: list[str], lines: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]) + "\n"


def _models(study: Study, names: list[str]) -> str:
    """What the models are, and how exact the fine solver is on each."""
    lines = []
    for name in names:
        source = study.source(Setting(name))
        kind = models.TRAINED.get(name)
        made = ("comes with the package" if kind is None and name.startswith("digits") else "tests/assets/emoji"
                if kind is None else f"{kind.iterations:,} batches of 64, seed {kind.seed}")
        network = {"digits-flow": "DiT", "emoji-sd3": "MMDiT (SD 3)"}.get(name, "U-Net")
        lines.append([name, models.family_of(name), network, " x ".join(map(str, source.shape)), made,
                      _teacher(study, name)])
    return "## The models\n\n" + _table(["model", "family", "network", "state", "made", "fine solver off by"], lines)


def _teacher(study: Study, name: str) -> str:
    try:
        return f"{study.teacher(Setting(name))['error']:.4f}"
    except OutOfTime:
        return "not measured"


def _family(family: str, rows: list[dict]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row["tables"]))
    head = ["raced on", "calls", "cfg", "best baseline", "RMSE", *keys, "fair baseline", "default"]
    lines = [[row["on"], str(row["calls"]), f"{row['cfg']:g}", row["best"].replace(", ", " "),
              f"{row['best_rmse']:.3f}", *(_ratio(row["tables"][key]) if key in row["tables"] else "" for key in keys),
              _ratio(row["fair_ratio"], False), _ratio(row["default_ratio"], False)] for row in rows]
    return f"### {family}\n\n" + _table(head, lines)


def _section(title: str, rows: list[dict], words: str) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row["tables"]))
    lines = [[row["on"], row["best"].replace(", ", " "), f"{row['best_rmse']:.3f}",
              *(_ratio(row["tables"][key]) if key in row["tables"] else "" for key in keys)] for row in rows]
    return f"## {title}\n\n{words}\n\n" + _table(["raced on", "best baseline", "RMSE", *keys], lines)


def transferred(row: dict) -> Ratio:
    """The ratio of the table that was learned on everything but this model."""
    mine = ("the trainer's", "its own")
    return row["tables"].get(TOGETHER) or next(
        found for key, found in row["tables"].items() if key not in mine and not key.endswith("shipped"))


def passes(rows: list[dict], calls: int, cfg: float) -> bool:
    """Whether the table of the others beats the best baseline on every left-out model of the family.

    With fewer than two others to learn on for each there is nothing to be sure of.
    """
    mine = [row for row in rows if (row["calls"], row["cfg"]) == (calls, cfg)]
    return bool(mine) and all(TOGETHER in row["tables"] and transferred(row).wins for row in mine)


def _verdict(families: dict) -> str:
    """Which families may ship a transfer preset, at which calls and guidance."""
    lines = []
    for family, rows in families.items():
        for calls, cfg in sorted({(row["calls"], row["cfg"]) for row in rows}):
            mine = [row for row in rows if (row["calls"], row["cfg"]) == (calls, cfg)]
            won = [row["on"] for row in mine if transferred(row).wins]
            over_fair = [row["over_fair"].get(TOGETHER) for row in mine]
            fair = " ".join(f"{found.rmse:.2f}" for found in over_fair if found)
            lines.append([family, str(calls), f"{cfg:g}", f"{len(won)} of {len(mine)}", " ".join(
                f"{transferred(row).rmse:.2f}" for row in mine), fair, "yes" if passes(rows, calls, cfg) else "no"
                          if all(TOGETHER in row["tables"] for row in mine) else "no: too few to learn on"])
    return ("## The verdict\n\nA transfer preset ships for a family only if the table learned on the others beats the "
            "best baseline on every left-out model, by RMSE and by the median seed, and there were at least two "
            "others to learn on each time.\n\n"
            + _table(["family", "calls", "cfg", "models it wins on", "times closer than the best baseline",
                      "than the fair baseline", "passes"], lines))
