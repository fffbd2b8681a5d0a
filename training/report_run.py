"""Races a run's or a file's preset and writes everything a person wants to look at."""

from __future__ import annotations

from pathlib import Path

import click

from . import denoisers, report as draw
from .core import Preset, preset as preset_file, write_atomically
from .evaluate import Entry, calls_to_match, contestants, measure, race_classical, summary
from .pairs import TEST_SEEDS, Pairs, make_pairs, run as sample_run, teacher_solver

SHEET_COLUMNS = 12
MISS_SHOWN = 3                  # times the difference to the teacher is enlarged in the sheet
USUAL = {False: ("dpmpp_2m", "karras"), True: ("euler", "simple")}      # what most people run; by flow
RECOMMENDED_ABOVE = 1.0         # times closer than the best classical pair


def report(run, seeds: int) -> None:
    """Race the run's preset, put its scores into the file, and draw curve, tables, race and sheet."""
    preset = run.preset()
    pairs = test_pairs(run.source, run.config.teacher, run.config.teacher_calls, seeds, 0)
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
        raise ValueError(f"preset {preset.name!r} is for {preset.model.family!r}; this command can sample "
                         f"{', '.join(NAMES)}")
    trained_at = preset.training.get("cfg", [1.0])[0]
    source = denoisers.bundled(preset.model.family, trained_at if cfg is None else cfg, denoisers.pick_device(device))
    pairs = test_pairs(source, "auto", 50, seeds, seed)
    wanted = [name for name, table in preset.tables.items() if calls is None or table.calls in calls]
    if not wanted:
        raise ValueError(f"preset {preset.name!r} has tables for {preset.counts} calls, none for {list(calls)}")
    scores = {name: race_table_of(source, preset, name, pairs, out)[0] for name in wanted}
    print_summary(preset, scores)
    return scores, with_scores(preset, {**preset.scores, **scores})


def test_pairs(source, teacher: str, teacher_calls: int, seeds: int, seed: int) -> Pairs:
    """Teacher pairs on seeds no training run uses."""
    first = TEST_SEEDS + seed
    return make_pairs(source, range(first, first + seeds), teacher_solver(source, teacher, teacher_calls),
                      f"teacher, {seeds} unseen seeds")


def race_table_of(source, preset: Preset, name: str, pairs: Pairs, out=None, compared=None) -> tuple[dict, float]:
    """Race one table, print it, draw it; (its scores, RMSE of the best classical pair)."""
    table = preset.tables[name]
    learned = measure(source, Entry("S4S", "learned", table), pairs)
    ranked = race_classical(source, table.calls, pairs)
    matched = calls_to_match(source, learned, ranked, pairs)
    scores = {**summary(learned, ranked, matched), "cfg": source.cfg, "most_calls_tried": 4 * table.calls}
    click.echo(f"\n{preset.name}, {name}: {table.calls} network calls, cfg {source.cfg:g}\n"
               + draw.race_table(learned, ranked) + "\n" + verdict(scores))
    if out is not None:
        out = Path(out)
        best = next(entry for entry in ranked if entry.name == scores["best_classical"])
        draw.plot_solver(table, out / f"solver-{name}.png", f"{preset.name}, {name}", compared)
        draw.plot_race(learned, ranked, out / f"race-{name}.png", f"{preset.name}: {table.calls} network calls")
        draw_sheet(source, pairs, learned, best, out / f"sheet-{name}.png")
        write_atomically(out / f"race-{name}.txt", (draw.race_table(learned, ranked, len(ranked)) + "\n").encode())
    return scores, scores["best_rmse"]


def draw_sheet(source, pairs: Pairs, learned: Entry, best: Entry, path) -> None:
    """From the same noise: teacher, the usual choice, the best classical pair, the learned table; and their misses."""
    few, calls = pairs.part(slice(0, SHEET_COLUMNS)), learned.solver.calls
    usual = next(iter(contestants(source, calls, {USUAL[source.flow]})))
    rows = {"teacher\n50 calls": few.target}
    for title, entry in (("the usual choice", usual), ("best classical pair", best), ("S4S, learned", learned)):
        images = sample_run(source, entry.solver, few.noise, few.extra)
        words = f"\n{entry.solver_name}, {entry.schedule_name}" if entry is not learned else ""
        rows[f"{title}\n{entry.solver.calls} calls{words}"] = images
        rows[f"{title}:\nits miss, {MISS_SHOWN} times"] = MISS_SHOWN * (images - few.target)
    draw.sheet(rows, path)


def verdict(scores: dict) -> str:
    """One sentence: who is closer to the teacher, by how much, and when the other catches up."""
    low, high = scores["ratio_95"]
    if scores["ratio"] < RECOMMENDED_ABOVE:
        return (f"{scores['best_classical']} is {1 / scores['ratio']:.2f} times closer to the teacher: the preset is "
                "marked as not recommended")
    match = scores["classical_calls_to_match"]
    reached = f"needs {match} calls to match it" if match else (
        f"has not matched it with {scores['most_calls_tried']} calls")
    return (f"S4S is {scores['ratio']:.2f} [{low:.2f}, {high:.2f}] times closer to the teacher than the best classical "
            f"pair ({scores['best_classical']}); by the median seed {scores['ratio_median']:.2f} "
            f"[{scores['ratio_median_95'][0]:.2f}, {scores['ratio_median_95'][1]:.2f}] times. A classical solver "
            f"{reached}.")


def with_scores(preset: Preset, scores: dict) -> Preset:
    """The preset with its race; not recommended if a classical pair beat every table."""
    recommended = all(score["ratio"] >= RECOMMENDED_ABOVE for score in scores.values())
    return preset_file.with_scores(preset, scores, recommended)


def finish(preset: Preset, scores: dict, path) -> None:
    """Write the preset with its scores and print the summary table."""
    preset_file.save(with_scores(preset, scores), path)
    print_summary(preset, scores)


def print_summary(preset: Preset, scores: dict) -> None:
    """All raced tables as one Markdown table."""
    rows = {f"{preset.model.family}, cfg {s['cfg']:g}, {name[5:]} calls": s for name, s in scores.items()}
    click.echo("\n" + draw.race_markdown(rows))
