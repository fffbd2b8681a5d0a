"""Races a run's or a file's preset and writes everything a person wants to look at."""

from __future__ import annotations

from pathlib import Path

import click

from . import denoisers, report as draw
from .core import Preset, preset as preset_file, write_atomically
from .evaluate import (Entry, calls_to_match, contestants, crowd, measure, race_classical, summary, unseen_pairs,
                       verdict, with_scores)
from .frechet import features_of
from .pairs import Pairs, ends

SHEET_COLUMNS = 12
MISS_SHOWN = 3                  # times the difference to the teacher is enlarged in the sheet
USUAL = {False: ("dpmpp_2m", "karras"), True: ("euler", "simple")}      # what most people run; by flow


def report(run, seeds: int) -> None:
    """Race the run's preset, put its scores into the file, and draw curve, tables, race and sheet."""
    preset = run.preset()
    pairs = unseen_pairs(run.source, seeds, None, run.plan.teacher, run.plan.teacher_calls)
    scores = {}
    for name, state in run.states.items():
        compared = run.parameters(name).solver(run.parameters(name).initial())
        scores[name], best = race_table_of(run.source, preset, name, pairs, run.folder,
                                           {run.starts[name]["schedule"]: compared})
        draw.plot_curve(state.curve, run.folder / f"curve-{name}.png", f"{preset.name}, {name}", best)
    finish(preset, scores, run.preset_path)
    click.echo(f"\neverything is in {run.folder}{'/' if not str(run.folder).endswith('/') else ''}")


def race_preset(preset: Preset, calls, cfg, seeds, seed, device, out) -> tuple[dict, Preset]:
    """Race a preset's full tables; (scores, the preset with them). Raises ValueError for a foreign model."""
    from .bundled import NAMES
    if preset.model.family not in NAMES:
        raise ValueError(f"preset {preset.name!r} is for {preset.model.family!r}, which does not come with S4S: add "
                         f"--checkpoint and --prompts (those of the package are {', '.join(NAMES)})")
    recorded = preset.training.get("cfg", [1.0])
    source = denoisers.bundled(preset.model.family, (min(recorded) + max(recorded)) / 2 if cfg is None else cfg,
                               denoisers.pick_device(device))
    pairs = unseen_pairs(source, seeds, seed=seed)
    wanted = [name for name, table in preset.tables.items() if calls is None or table.calls in calls]
    if not wanted:
        raise ValueError(f"preset {preset.name!r} has tables for {preset.counts} calls, none for {list(calls)}")
    scores = {name: race_table_of(source, preset, name, pairs, out)[0] for name in wanted}
    print_summary(preset, scores)
    return scores, with_scores(preset, {**preset.scores, **scores})


def race_table_of(source, preset: Preset, name: str, pairs: Pairs, out=None, compared=None) -> tuple[dict, float]:
    """Race one table, print it, draw it; (its scores, RMSE of the best classical pair)."""
    table = preset.tables[name]
    learned = measure(source, Entry("S4S", "learned", table), pairs, features=True)
    ranked = race_classical(source, table.calls, pairs)
    teacher = features_of(source, pairs.target)
    matched = calls_to_match(source, learned, ranked, pairs)
    scores = {**summary(learned, ranked, matched), **crowd(source, learned, ranked, pairs), "cfg": source.cfg,
              "most_calls_tried": 4 * table.calls}
    click.echo(f"\n{preset.name}, {name}: {table.calls} network calls, cfg {source.cfg:g}\n"
               + draw.race_table(learned, ranked, teacher=teacher) + "\n" + verdict(scores))
    if out is not None:
        out = Path(out)
        best = next(entry for entry in ranked if entry.name == scores["best_classical"])
        draw.plot_solver(table, out / f"solver-{name}.png", f"{preset.name}, {name}", compared)
        draw.plot_race(learned, ranked, out / f"race-{name}.png", f"{preset.name}: {table.calls} network calls")
        draw_sheet(source, pairs, learned, best, out / f"sheet-{name}.png")
        everyone = draw.race_table(learned, ranked, len(ranked), teacher)
        write_atomically(out / f"race-{name}.txt", f"{everyone}\n".encode())
    return scores, scores["best_rmse"]


def draw_sheet(source, pairs: Pairs, learned: Entry, best: Entry, path) -> None:
    """From the same noise: teacher, the usual choice, the best classical pair, the learned table; and their misses."""
    few, calls = pairs.part(slice(0, SHEET_COLUMNS)), learned.solver.calls
    usual = next(iter(contestants(source, calls, {USUAL[source.flow]})))
    rows = {"teacher\n50 calls": few.target}
    for title, entry in (("the usual choice", usual), ("best classical pair", best), ("S4S, learned", learned)):
        images = ends(source, entry.solver, few)
        words = f"\n{entry.solver_name}, {entry.schedule_name}" if entry is not learned else ""
        rows[f"{title}\n{entry.solver.calls} calls{words}"] = images
        rows[f"{title}:\nits miss, {MISS_SHOWN} times"] = MISS_SHOWN * (images - few.target)
    draw.sheet(rows, path)


def finish(preset: Preset, scores: dict, path) -> None:
    """Write the preset with its scores and print the summary table."""
    preset_file.save(with_scores(preset, scores), path)
    print_summary(preset, scores)


def print_summary(preset: Preset, scores: dict) -> None:
    """All raced tables as one Markdown table."""
    rows = {f"{preset.model.family}, cfg {s['cfg']:g}, {name[5:]} calls": s for name, s in scores.items()}
    click.echo("\n" + draw.race_markdown(rows))
