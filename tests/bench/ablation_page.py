"""The ablation's page: its cells in a table, and the paper's findings beside what was found here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from s4s.training.benchmark.verdict import interval

HEAD = """# What each part of the method is worth

Made by `python -m tests.bench.ablation --write`: five network calls at guidance 3 on the two bundled models, the mean
RMSE to a 40-call teacher over {seeds} unseen seeds, with 95 % bootstrap intervals over the seeds (of ratios: paired).
All cells of a model learn on the same 40 pairs and start on the same levels, where DPM-Solver++(2M) did best. The state
that is best on 24 held-out pairs counts. A cell takes 4 Gauss-Newton steps; a cell by Adam takes 60 steps of 8
pairs. These are small models and one number of calls, and the papers' numbers are Fréchet distances of other models, so
these findings need not hold elsewhere.
{note}
## The findings of the papers, and ours

Each ratio says how many times closer the first is than the second.
"""
FORMER = ("fixed", "sum to one", "random", "paper's clock", "noises", "paper's own")    # cells of version 0.4.0 only
NOTE = """
All of this was measured with version 0.4.0. Its options for one set of coefficients, rows that sum to one, a random
start, predicted noises and the paper's clock did not help here and were removed after it; the rows that used them stay
as a record.
"""
HOLDS, FAILS, OPEN = "holds", "does NOT hold here", "not decided here"


@dataclass(frozen=True)
class Claim:
    """A finding of the literature: which cell should end closer to the teacher than which."""

    words: str
    source: str
    better: str
    worse: str


CLAIMS = (
    Claim("coefficients of their own for every row beat one set for all", "S4S 5.3", "coefficients", "fixed"),
    Claim("order 3 beats order 1", "S4S, Table 5", "coefficients", "order 1"),
    Claim("order 3 beats order 2", "S4S, Table 5", "coefficients", "order 2"),
    Claim("order 3 beats order 4", "S4S, Table 5", "coefficients", "order 4"),
    Claim("order 3 beats the whole history", "S4S, Table 5", "coefficients", "all"),
    Claim("a solver's coefficients are a better start than random ones", "S4S, Table 10", "coefficients", "random"),
    Claim("a random start still beats the solver that did not learn", "S4S, Table 10", "random", "start"),
    Claim("free row sums beat sums of one", "S4S, Table 7", "coefficients", "sum to one"),
    Claim("query times of their own help a learned schedule (LD3's largest step)", "LD3", "schedule", "levels"),
    Claim("and a table that learns everything", "S4S, LD3", "joint", "joint, tied"),
    Claim("schedule and coefficients together beat the coefficients", "S4S", "alternate", "coefficients"),
    Claim("and the schedule", "S4S", "alternate", "schedule"),
    Claim("learning them in turn beats learning them at once, by Gauss-Newton", "S4S, Table 6", "alternate", "joint"),
    Claim("and by Adam", "S4S, Table 6 (GS, DyWeight: at once)", "alternate by Adam", "rmse"),
    Claim("coefficients of predicted noises end closer than of predicted images", "(not compared)", "noises",
          "coefficients"),
    Claim("the paper's clock ends closer than the host's", "(not compared)", "paper's clock", "joint"),
    Claim("and with predicted noises, as the paper has both", "(not compared)", "paper's own", "joint"),
    Claim("with everything free the whole history pays", "GS", "joint, all", "joint"),
    Claim("each row's share of the first state pays, too", "BNS, GS", "generalized", "joint, all"),
    Claim("a relaxed start helps at few calls", "S4S, LD3", "relaxed 1", "rmse"),
    Claim("a larger radius helps more", "S4S, Fig. 4", "relaxed 4", "relaxed 1"),
    Claim("L1 ends closer than L2", "GS trains on it", "l1", "rmse"),
    Claim("pseudo-Huber ends closer than L2", "consistency models train on it", "pseudo-Huber", "rmse"),
)


def judged(claim: Claim, cells: dict) -> tuple[float, tuple, str]:
    """(how many times closer the better cell is, 95 % interval over the seeds, the verdict)."""
    worse, better = (np.array(cells[name]["errors"]) for name in (claim.worse, claim.better))
    low, high = interval(worse, better, np.mean)
    return worse.mean() / better.mean(), (low, high), HOLDS if low > 1 else FAILS if high < 1 else OPEN


def _result(claim: Claim, cells: dict) -> str:
    if not {claim.better, claim.worse} <= set(cells):
        return "not run"
    ratio, (low, high), verdict = judged(claim, cells)
    return f"{ratio:.2f} [{low:.2f}, {high:.2f}]: {verdict}"


def shown(name: str, cell: dict, start: dict) -> str:
    """One cell as a line of the table: its error, and how many times closer than the start it is."""
    missed, before = np.array(cell["errors"]), np.array(start["errors"])
    low, high = interval(before, missed, np.mean)
    error = "{:.4f} [{:.4f}, {:.4f}]".format(missed.mean(), *interval(missed, statistic=np.mean))
    ratio = "" if cell is start else f"{before.mean() / missed.mean():.2f} [{low:.2f}, {high:.2f}]"
    return f"| {cell['words']} | {cell['numbers']} | {error} | {ratio} | {cell['calls']:,} |"


def page(found: dict) -> str:
    """The whole page as Markdown, from {model: {cell: numbers}}."""
    first = next(iter(found.values()))["start"]
    note = NOTE if any(set(FORMER) & set(cells) for cells in found.values()) else ""
    lines = [HEAD.format(seeds=len(first["errors"]), note=note), "| finding | source | " + " | ".join(found) + " |",
             "|---|---|" + "---|" * len(found)]
    ran = {name for cells in found.values() for name in cells}
    for claim in (claim for claim in CLAIMS if {claim.better, claim.worse} <= ran):
        lines.append(f"| {claim.words} | {claim.source} | "
                     + " | ".join(_result(claim, cells) for cells in found.values()) + " |")
    for model, cells in found.items():
        lines += ["", f"## {model}, from {cells['start']['about']['start']}", "",
                  "| learned | free numbers | RMSE [95 %] | times closer than the start | network calls |",
                  "|---|---|---|---|---|"]
        lines += [shown(name, cell, cells["start"]) for name, cell in cells.items()]
    return "\n".join(lines) + "\n"
