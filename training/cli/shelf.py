"""The commands for preset files: s4s show, import, export, list, join."""

from pathlib import Path

import click

from .options import FORCE, check_free, list_of


@click.command("list")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path, exists=True,
                                                                            file_okay=False))
def list_(folders):
    """The presets in these folders and those that ship, with what each is for; files that cannot be read are named.

    ComfyUI and WebUI keep theirs in models/s4s_presets.
    """
    from ...s4s_nodes.library import Library, measured_text, recommended_text
    library = Library(folders)
    rows = [("name", "hash", "for", "calls", "measured", "recommended")]
    rows += [(name, preset.short_hash, f"{preset.model.family}, {preset.model.prediction}",
              ",".join(map(str, preset.counts)), measured_text(preset), recommended_text(preset))
             for name, preset in library.named().items()]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for problem in library.problems():
        click.echo(f"! {problem}", err=True)


def _saved(preset, folder: Path, force: bool) -> Path:
    """The file of the preset, written; of two programs that write one name at once, one is told."""
    from ...s4s_nodes.library import PresetError, file_in, save_new
    try:
        return save_new(preset, folder, force)
    except PresetError:
        check_free(file_in(folder, preset.name), force)             # says what to do here
        raise


@click.command()
@click.argument("name")
@click.argument("preset_files", nargs=-1, metavar="FILE FILE...", required=True,
                type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--folder", default=".", show_default=True, help="where to write NAME.safetensors",
              type=click.Path(path_type=Path, exists=True, file_okay=False))
@FORCE
def join(name, preset_files, folder, force):
    """Join presets, learned for one model at different cfg, into one by the name NAME.

    At a cfg between two of them the hosts run the table between theirs, beyond all of them the last one.
    """
    from ...s4s_nodes.core import names, preset_file as preset_module
    from ...s4s_nodes.select.cfg import join_presets
    preset = join_presets([preset_module.load(file) for file in preset_files], names.preset_name(name))
    path = _saved(preset, folder, force)
    low, high = preset.training["cfg"]
    click.echo(f"{path}: {len(preset.tables)} tables of {', '.join(map(str, preset.counts))} calls, for cfg {low:g} to "
               f"{high:g}")


@click.command()
@click.argument("preset_file", type=click.Path(path_type=Path))
@click.option("--plot", default=None, type=click.Path(path_type=Path), help="also draw the tables into this folder")
@click.option("--json", "as_json", is_flag=True, help="every number, as JSON")
@FORCE
def show(preset_file, plot, as_json, force):
    """Describe a preset: its model, training, tables and scores; replay its self-test."""
    from ...s4s_nodes.core import names, preset_file as preset_module
    from ...s4s_nodes.exporters import json_text
    preset = preset_module.load(preset_file)
    if as_json:
        click.echo(json_text(preset))
        return
    click.echo(preset_module.describe(preset) + _rights(preset))
    click.echo(f"  self-test   replayed here, deviation {preset_module.verify(preset):.2g}")
    if plot is not None:
        from ...s4s_nodes import picture
        pictures = {name: check_free(plot / f"{names.file_name(preset.name)}-{name}.png", force)
                    for name in preset.tables}
        for name, path in pictures.items():
            click.echo(f"wrote {picture.save(picture.table(preset, name), path)}")


def _rights(preset) -> str:
    return f"\n  licence     {preset.licence}\n  source      {preset.source}" if preset.licence else ""


@click.command("import")
@click.argument("sources", nargs=-1, metavar="[NAME|IMAGE]...")
@click.option("--calls", default=None, callback=list_of(int),
              help="for a NAME: only these numbers of calls [default: all that were published]")
@click.option("--name", default=None, help="the preset's name [default: NAME, or the one in the IMAGE]")
@click.option("--out", default=".", show_default=True, type=click.Path(path_type=Path, file_okay=False),
              help="folder to write to")
@FORCE
def import_(sources, calls, name, out, force):
    """Make a preset of a published schedule (NAME), or the one that an IMAGE was made with; without either, list the
    names.

    A published schedule was not measured on your checkpoint: race it before you trust it. Of an image's preset the
    tables that ran come back.
    """
    from dataclasses import replace

    from ...s4s_nodes import metadata, published
    from ...s4s_nodes.core import names, preset_file as preset_module
    if not sources:
        click.echo("\n".join(published.names()))
        return
    if name is not None:
        names.preset_name(name)
    presets = [preset for source in sources for preset in
               (metadata.from_image(source) if metadata.is_image(source) else [published.make(source, calls)])]
    if name is not None and len(presets) > 1:
        raise ValueError(f"{', '.join(each.name for each in presets)}: --name is for one preset; import one by one")
    for each in presets if name is None else [replace(presets[0], name=name)]:
        written = _saved(each, out, force)
        click.echo(preset_module.describe(each) + _rights(each))
        click.echo(f"  note        {each.training['note']}\nwrote {written}")


@click.command()
@click.argument("preset_file", type=click.Path(path_type=Path))
@click.option("--to", default="sigmas", show_default=True, type=click.Choice(["sigmas", "diffusers"]),
              help="plain levels, or a folder with a diffusers scheduler")
@click.option("--calls", default=None, type=int, help="for sigmas: only the table with this number of calls")
@click.option("--out", default=None, type=click.Path(path_type=Path),
              help="for diffusers: the folder to write [default: beside the preset]")
@FORCE
def export(preset_file, to, calls, out, force):
    """Print a preset's levels, or write it for diffusers."""
    from ...s4s_nodes.core import preset_file as preset_module
    from ...s4s_nodes.exporters import sigmas_text
    preset = preset_module.load(preset_file)
    if to == "sigmas":
        for count in [calls] if calls else preset.counts:
            click.echo(sigmas_text(preset, count))
        return
    out = out or preset_file.with_name(f"{preset_file.stem}-diffusers")
    if out.is_file():
        raise ValueError(f"{out} is a file: name a folder with --out")
    file = check_free(out / "scheduler_config.json", force)
    from ...s4s_nodes.exporters.scheduler import S4SScheduler
    S4SScheduler.from_preset(preset).save_config(out)
    click.echo(f"wrote {file}")


COMMANDS = (show, import_, export, list_, join)
