"""Races for the command line, of a run, of a bundled model and on a checkpoint: what is printed and what is drawn."""

from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ...s4s_nodes import picture
from ...s4s_nodes.core import Preset, preset_file
from ...s4s_nodes.library import tables_of
from ...s4s_nodes.select import ModelFacts, suits
from ...s4s_nodes.select.match import belongs, cfg_text, middle_cfg, name_text
from .. import sources
from ..baselines.measure import Entry, baselines
from ..config import Config
from ..source import Source, pick_device
from ..teacher.pairs import Pairs, ends
from . import host_race, html_report
from .race import TableResult, row_of
from .verdict import interval

BUNDLED_SEEDS, CHECKPOINT_SEEDS = 256, 24       # where none are asked for
SHEET_COLUMNS = 12
MISS_SHOWN = 3                  # factor by which the sheet enlarges the difference to the teacher
USUAL = {False: ("dpmpp_2m", "karras"), True: ("euler", "simple")}      # what most people run; True: for flows


def report(run, seeds: int) -> None:
    """Race the run's preset, put its scores into the file, and draw tables, race and sheet."""
    folder = run.preset_path.parent
    terms = host_race.Terms(tuple(run.states), range(seeds), 0, run.convergence.calls, match=True)
    held = race_and_show(run.source, run.preset(), terms, folder)
    preset_file.save(held.preset, run.preset_path)
    html_report.write(folder, held.preset, held.raced)
    click.echo(f"\neverything is in {folder}/; open {html_report.NAME} first")


def draw_run(run, preset: Preset) -> Path:
    """Draw what a run learned and how, beside its preset, and write its page; the page's path."""
    folder = run.preset_path.parent                 # not the run's folder where another run holds that now
    for name in run.states:
        picture.save(picture.table(preset, name), folder / f"solver-{name}.png")
    return html_report.write(folder, preset)


def source_for(preset: Preset, opening: dict, cfg: float | None, device: str) -> Source:
    """The checkpoint that is named, else the bundled model that the preset is for.

    opening: CHECKPOINT_SETTINGS by name; None: as it was trained. Raises ValueError for a model it does not suit.
    """
    if opening["checkpoint"]:
        source = sources.of(settings(preset, opening, cfg), device, click.echo)
        click.echo(fit_text(preset, source))
        return source
    from ..demo_models.models import NAMES
    from ..demo_models.source import bundled
    if preset.model.family not in NAMES:
        raise ValueError(f"preset {preset.name!r} is for {preset.model.family!r}, which does not come with S4S: add "
                         f"--checkpoint and --prompts (those of the package are {', '.join(NAMES)})")
    return bundled(preset.model.family, middle_cfg(preset) if cfg is None else cfg, pick_device(device))


def terms_of(preset: Preset, calls, first: int, seeds: int | None, budget: int | None) -> host_race.Terms:
    """The terms of a race of the tables with these calls. budget: for a checkpoint; None: for a bundled model."""
    tables = tuple(sorted(tables_of(preset, calls or ()), key=lambda name: "_from" in name))      # whole pictures first
    count = seeds or (BUNDLED_SEEDS if budget is None else CHECKPOINT_SEEDS)
    return host_race.Terms(tables, range(first, first + count), budget or 0, match=budget is None)


def race_and_show(source: Source, preset: Preset, terms: host_race.Terms, out) -> host_race.RaceResult:
    """Hold the race and print it, table by table; draw it into the folder `out`, if any."""
    with torch.no_grad(), tqdm(unit="call", desc="race", disable=None) as bar:
        def count(done, total):
            bar.total, bar.n = max(total, done), done
            bar.refresh()
        held = host_race.hold_race(source, preset, terms, host_race.RaceProgress(bar.set_description_str, count))
    for name, result in held.raced.items():
        click.echo(f"\n{preset.name}, {name}: {result.learned.table.calls} network calls, cfg {source.cfg:g}\n"
                   + race_table(result) + f"\n{result.verdict}")
    click.echo(f"\n{held.summary}" + ("" if source.features else
                                      "; no feature space is known for this model, so there is no Fréchet distance"))
    if out is not None:
        _draw(source, held, Path(out))
    return held


@torch.no_grad()
def _draw(source: Source, held: host_race.RaceResult, out: Path) -> None:
    # at a cfg between two learned ones the table that ran is none of the preset's
    ran = replace(held.preset, tables={name: result.learned.table for name, result in held.raced.items()})
    for name, result in held.raced.items():
        picture.save(picture.table(ran, name), out / f"solver-{name}.png")
        draw_race(result, out / f"race-{name}.png", f"{ran.name}: {result.learned.table.calls} network calls")
        if source.features is not None and held.whole is not None and "_from" not in name:
            draw_sheet(source, held.whole, result.learned, result.best, out / f"sheet-{name}.png")
    if source.decode is not None and held.whole is not None:
        sheet([(label, caption, source.decode(latents))
               for label, caption, latents in host_race.sheet_rows(source, held)], out / "sheet.png")
    elif source.features is None:
        click.echo("no autoencoder, or no table for whole pictures: no sheet is drawn")


def draw_sheet(source, pairs: Pairs, learned: Entry, best: Entry, path) -> None:
    """From the same noise: teacher, usual choice, best baseline, learned table; and their errors."""
    few, calls = pairs.part(slice(0, SHEET_COLUMNS)), learned.table.calls
    [usual] = baselines(source, calls, {USUAL[source.flow]})
    rows = [("teacher", "", few.target)]
    for title, entry in (("the usual choice", usual), ("best baseline", best), ("S4S, learned", learned)):
        images = ends(source, entry.table, few)
        caption = f"{entry.table.calls} calls{f', {entry.name}' * (entry is not learned)}"
        rows += [(title, caption, images),
                 (f"{title}: its miss", f"enlarged {MISS_SHOWN} times", MISS_SHOWN * (images - few.target))]
    sheet(rows, path)


def settings(preset: Preset, opening: dict, cfg: float | None) -> Config:
    """The configuration that opens the checkpoint for this preset: size, guidance, shift and cfg as it was trained."""
    given = {name: value for name, value in opening.items() if value is not None}
    trained, size = preset.training, preset.training.get("size")
    if size and not {"width", "height"} & set(given):
        given |= {"width": int(size[0]), "height": int(size[1])}
    if preset.trained_guidance:
        given.setdefault("guidance", float(preset.trained_guidance[0]))
    if preset.model.flow and preset.model.shift:
        given.setdefault("shift", preset.model.shift)
    if trained.get("negative") and "negative" not in given:
        click.echo("WARNING: the preset was trained with a negative prompt: give the same with --negative")
    return Config.of(**given, cfg=cfg if cfg is not None else middle_cfg(preset))


def fit_text(preset: Preset, source: Source) -> str:
    """Words on whether the preset was made for this checkpoint. Raises ValueError if its tables are not valid."""
    seen = replace(ModelFacts.of(source.model), fingerprint=lambda: source.model.hashes)
    if reason := suits(preset, seen):
        raise ValueError(f"preset {preset.name!r} cannot run on {source.name}: {reason}")
    whose = "" if belongs(preset, seen) else "not "
    return f"{name_text(preset)} was {whose}made for this model{cfg_text(preset, source.cfg)}"


def draw_race(race: TableResult, path, title: str) -> Path:
    """Errors of the learned table and the best baselines, with 95 % intervals over seeds."""
    rows = [("S4S" if entry is race.learned else entry.name, entry.rmse, *interval(entry.errors), entry is race.learned)
            for entry in [race.learned, *race.finalists][:14] if np.isfinite(entry.errors).all()]
    note = f"RMSE to the teacher, {len(race.learned.errors)} unseen seeds (95 % interval)"
    return picture.save(picture.bars(title, note, rows), path)


def sheet(rows: list[tuple[str, str, Tensor]], path) -> Path:
    """Images side by side, one row per (label, caption, (n, 1 or 3, H, W) in -1..1), the same seeds in a column."""
    drawn = [(label, caption, [_picture(image) for image in images]) for label, caption, images in rows]
    return picture.save(picture.sheet(drawn), path)


def _picture(values: Tensor) -> Image.Image:
    pixels = ((values.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().expand(3, -1, -1)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def race_table(race: TableResult, shown: int = 12) -> str:
    """The race as text, best first, those that ran fewer seeds below a line; the page has them all.

    Finalists get their Fréchet distance where the source has a feature space.
    """
    def line(entry):
        row = row_of(entry, race)
        far = "" if race.teacher is None else f"{'-':>9}" if row.frechet is None else f"{row.frechet:9.4f}"
        times = "" if row.ours else row.doubt or f"{row.times:6.2f}x"
        return f"{row.name:36} {entry.rmse:8.4f} {entry.median:8.4f} {far} {len(entry.errors):6d}  {times}".rstrip()
    lines = [f"{'solver, schedule':36} {'RMSE':>8} {'median':>8} {'  Fréchet' if race.teacher is not None else ''} "
             f"{'seeds':>6}  times S4S", line(race.learned)]
    for number, entry in enumerate(race.ranked[:shown]):
        lines += ["dropped earlier, on fewer seeds:"] if number == len(race.finalists) else []
        lines.append(line(entry))
    return "\n".join([*lines, f"... and {max(0, len(race.ranked) - shown)} more"])
