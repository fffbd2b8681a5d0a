"""Races a run's or a file's preset and writes everything a person wants to look at."""

from __future__ import annotations

from pathlib import Path

import click

from ...s4s_nodes.core import Preset, preset_file
from ...s4s_nodes.core.preset_file import with_scores
from ...s4s_nodes.library import tables_of
from ...s4s_nodes.select.match import middle_cfg
from ..baselines.halving import FULL, searched
from ..baselines.measure import Entry, baselines, measure
from ..source import pick_device
from ..sources import recorded_teacher
from ..teacher.pairs import Pairs, ends
from ..teacher.solvers import teacher_of
from . import html_report, report as draw
from .race import TableResult, began_at, calls_to_match, finer_targets, pairs_from, result_of, with_finer_errors

TEACHER_CALLS = 50          # of a race on a bundled model
SHEET_COLUMNS = 12
MISS_SHOWN = 3                  # times the difference to the teacher is enlarged in the sheet
USUAL = {False: ("dpmpp_2m", "karras"), True: ("euler", "simple")}      # what most people run; by flow


def report(run, seeds: int) -> None:
    """Race the run's preset, put its scores into the file, and draw curve, tables, race and sheet."""
    folder = run.preset_path.parent
    races, preset = race_tables(run.source, run.teacher, run.preset(), list(run.states), range(seeds), folder)
    preset_file.save(preset, run.preset_path)
    draw_run(run, preset, races)
    click.echo(f"\neverything is in {folder}{'/' if not str(folder).endswith('/') else ''}; "
               f"open {html_report.NAME} first")


def draw_run(run, preset: Preset, races: dict[str, TableResult] | None = None) -> Path:
    """Draw what a run learned and how, beside its preset, and write its page; the page's path."""
    folder = run.preset_path.parent                 # not the run's folder where another run holds that now
    for name, state in run.states.items():
        best = races[name].scores["best_rmse"] if races else None
        draw.draw_table(preset, name, folder / f"solver-{name}.png")
        draw.plot_curve(state.curve, folder / f"curve-{name}.png", f"{preset.name}, {name}", best)
    return html_report.write(folder, preset, races)


def race_preset(preset: Preset, calls, cfg, seeds, seed, device, out) -> Preset:
    """Race a preset for a bundled model; the preset with its scores. Raises ValueError for a foreign model."""
    from ..demo_models import NAMES
    from ..demo_models.source import bundled
    if preset.model.family not in NAMES:
        raise ValueError(f"preset {preset.name!r} is for {preset.model.family!r}, which does not come with S4S: add "
                         f"--checkpoint and --prompts (those of the package are {', '.join(NAMES)})")
    source = bundled(preset.model.family, middle_cfg(preset) if cfg is None else cfg, pick_device(device))
    source.teacher = recorded_teacher(source, preset)
    races, preset = race_tables(source, teacher_of(source, "auto", TEACHER_CALLS), preset,
                                tables_of(preset, calls or ()), range(seed, seed + seeds), out)
    if out is not None:
        for name in races:
            draw.draw_table(preset, name, Path(out) / f"solver-{name}.png")
        click.echo(f"the page: {html_report.write(out, preset, races)}")
    return preset


def race_tables(source, teacher, preset: Preset, names: list[str], seeds: range, out=None) -> tuple[dict, Preset]:
    """({table: its race}, the preset with the scores): print them, one by one and as one Markdown table."""
    pairs = pairs_from(source, teacher, seeds)
    finer = finer_targets(source, teacher, pairs)
    races = {name: race_table_of(source, preset, name, pairs, finer, out) for name in names}
    scores = {name: race.scores for name, race in races.items()}
    click.echo("\n" + draw.race_markdown({f"{preset.model.family}, cfg {score['cfg']:g}, {name[5:]} calls": score
                                          for name, score in scores.items()}))
    return races, with_scores(preset, scores)


def race_table_of(source, preset: Preset, name: str, pairs: Pairs, finer, out=None) -> TableResult:
    """Race one table against all baselines, print it, draw it into the folder `out`; finer: targets of a finer one."""
    table = preset.tables[name]
    learned = measure(source, Entry("S4S", "learned", table), pairs, features=True)
    ranked = searched(source, baselines(source, table.calls), pairs, FULL, began_at(preset, name), True,
                      "baselines")
    learned, *ranked = with_finer_errors(source, [learned, *ranked], pairs, finer)
    calls, pair = calls_to_match(source, learned, ranked, pairs)
    race = result_of(source, learned, ranked, pairs, where=f"s4s {source.device.type}", classical_calls_to_match=calls,
                     matched_by=pair, most_calls_tried=4 * table.calls)
    click.echo(f"\n{preset.name}, {name}: {table.calls} network calls, cfg {source.cfg:g}\n"
               + draw.race_table(learned, ranked, teacher=race.teacher) + "\n" + race.verdict)
    if out is not None:
        out = Path(out)
        draw.race_files(race, name, out, f"{preset.name}: {table.calls} network calls")
        draw_sheet(source, pairs, learned, race.best, out / f"sheet-{name}.png")
    return race


def draw_sheet(source, pairs: Pairs, learned: Entry, best: Entry, path) -> None:
    """From the same noise: teacher, the usual choice, the best baseline, the learned table; and their misses."""
    few, calls = pairs.part(slice(0, SHEET_COLUMNS)), learned.table.calls
    usual = next(iter(baselines(source, calls, {USUAL[source.flow]})))
    rows = {"teacher": few.target}
    for title, entry in (("the usual choice", usual), ("best baseline", best), ("S4S, learned", learned)):
        images = ends(source, entry.table, few)
        words = f"\n{entry.solver_name}, {entry.schedule_name}" if entry is not learned else ""
        rows[f"{title}\n{entry.table.calls} calls{words}"] = images
        rows[f"{title}:\nits miss, {MISS_SHOWN} times"] = MISS_SHOWN * (images - few.target)
    draw.sheet(rows, path)
