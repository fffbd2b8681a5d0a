"""Races a preset on a real checkpoint, by the hosts' rules, and writes what a person wants to look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import torch
from tqdm.auto import tqdm

from ...s4s_nodes.core import Preset
from ...s4s_nodes.library import tables_of
from ...s4s_nodes.select import ModelFacts, suits
from ...s4s_nodes.select.match import belongs, cfg_text, middle_cfg, name_text
from .. import sources
from ..config import Config
from ..source import Source
from . import host_race, html_report, report as draw

SEEDS = 24                  # of a race, where none are asked for


def race_checkpoint(preset: Preset, terms: host_race.Terms, opening: dict, cfg: float | None, device: str,
                    out: Path | None) -> Preset:
    """Race the tables on a checkpoint, print and draw what came out, and return the preset with its scores.

    opening: CHECKPOINT_SETTINGS by name; what is None is as the preset was trained. Raises ValueError for a
    checkpoint the preset does not suit.
    """
    source = sources.of(settings(preset, opening, cfg), device, click.echo)
    click.echo(fit_text(preset, source))
    with torch.no_grad(), tqdm(unit="call", desc="race", disable=None) as bar:
        def count(done, total):
            bar.total, bar.n = max(total, done), done
            bar.refresh()
        progress = host_race.RaceProgress(status=bar.set_description_str, count=count)
        held = host_race.hold(source, preset, terms, progress)
    for name, result in held.raced.items():
        click.echo(f"\n{preset.name}, {name}: {result.learned.table.calls} network calls\n"
                   + draw.race_table(result.learned, result.ranked) + f"\n{result.verdict}")
    click.echo(f"\n{held.summary}" + ("" if source.features else
                                      "; no feature space is known for this model, so there is no Fréchet distance"))
    if out is not None:
        _draw(source, held, Path(out))
        click.echo(f"the page: {html_report.write(out, held.preset, held.raced)}")
    return held.preset


def tables(preset: Preset, calls) -> tuple:
    """The tables with these numbers of calls, all for None, whole pictures first. Raises ValueError for none."""
    return tuple(sorted(tables_of(preset, calls or ()), key=lambda name: "_from" in name))


def settings(preset: Preset, opening: dict, cfg: float | None) -> Config:
    """The configuration that opens the checkpoint for this preset: size, guidance, shift and cfg as it was trained."""
    given = {name: value for name, value in opening.items() if value is not None}
    trained, size = preset.training, preset.training.get("size")
    if size and not {"width", "height"} & set(given):
        given |= {"width": int(size[0]), "height": int(size[1])}
    if "guidance" in trained:
        given.setdefault("guidance", float(trained["guidance"]))
    if preset.model.flow and preset.model.shift:
        given.setdefault("shift", preset.model.shift)
    if trained.get("negative") and "negative" not in given:
        click.echo("WARNING: the preset was trained with a negative prompt: give the same with --negative")
    if trained.get("loras") and not given.get("lora"):
        click.echo("WARNING: the preset was trained with LoRAs: give the same with "
                   + " ".join(f"--lora {words}" for words in trained["loras"]))
    return Config.of(**given, cfg=cfg if cfg is not None else middle_cfg(preset))


def fit_text(preset: Preset, source: Source) -> str:
    """Words on whether the preset was made for this checkpoint. Raises ValueError where its tables are not valid."""
    seen = replace(ModelFacts.of(source.model), fingerprint=lambda: source.model.hashes)
    if reason := suits(preset, seen):
        raise ValueError(f"preset {preset.name!r} cannot run on {source.name}: {reason}")
    whose = "" if belongs(preset, seen) else "not "
    return f"{name_text(preset)} was {whose}made for this model{cfg_text(preset, source.cfg)}"


def _draw(source: Source, held: host_race.RaceResult, out: Path) -> None:
    # at a cfg between two learned ones the table that ran is none of the preset's
    ran = replace(held.preset, tables={name: result.learned.table for name, result in held.raced.items()})
    for name, result in held.raced.items():
        title = f"{held.preset.name}, {name}"
        draw.draw_table(ran, name, out / f"solver-{name}.png")
        draw.race_files(result, name, out, title)
    if source.decode is None or held.whole is None:
        click.echo("no autoencoder, or no table for whole pictures: no sheet is drawn")
        return
    with torch.no_grad():
        rows = {f"{label}\n{caption}".strip(): source.decode(latents)
                for label, caption, latents in host_race.sheet_rows(source, held)}
    draw.sheet(rows, out / "sheet.png", zoom=1)
