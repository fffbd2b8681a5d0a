"""The commands for the presets one has: s4s list, rename, delete, join, passports."""

from __future__ import annotations

from pathlib import Path

import click

from .errors import FORCE, check_free, errors_in_words


@click.command("list")
@click.argument("folders", nargs=-1, metavar="[FOLDER]...", type=click.Path(path_type=Path, exists=True,
                                                                            file_okay=False))
@errors_in_words
def list_(folders):
    """The presets in these folders and those that ship, with what each is for; files that cannot be read are named.

    ComfyUI and WebUI keep theirs in models/s4s_presets.
    """
    from ...s4s_nodes.library import Library, measured, recommended
    library = Library(folders)
    rows = [("name", "hash", "for", "calls", "measured", "recommended")]
    rows += [(name, made.short_hash, f"{made.model.family}, {made.model.prediction}",
              ",".join(map(str, made.counts)), measured(made), recommended(made))
             for name, made in zip(library.names(), library.presets())]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    for problem in library.problems():
        click.echo(f"! {problem}", err=True)


def _one_of_mine(preset_file: Path):
    """(library, name) of a preset file."""
    from ...s4s_nodes.library import Library
    return Library([preset_file.parent]), preset_file.name.removesuffix(".safetensors")


@click.command()
@click.argument("preset_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("name")
@FORCE
@errors_in_words
def rename(preset_file, name, force):
    """Give a preset of yours another NAME, in the file and of the file; nothing is overwritten without --force."""
    library, known = _one_of_mine(preset_file)
    click.echo(f"{preset_file} is now {library.rename(known, name, force)}")


@click.command()
@click.argument("preset_file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--yes", is_flag=True, help="do not ask")
@errors_in_words
def delete(preset_file, yes):
    """Delete a preset of yours, damaged or not; what ships stays, and what is a link or no preset."""
    library, known = _one_of_mine(preset_file)
    if reason := library.why_kept(known):
        raise ValueError(reason)
    if not yes:
        click.confirm(f"delete {preset_file}?", abort=True)
    library.delete(known)
    click.echo(f"deleted {preset_file}")


@click.command()
@click.argument("name")
@click.argument("preset_files", nargs=-1, metavar="FILE FILE...", required=True,
                type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--folder", default=".", show_default=True, help="where to write NAME.safetensors",
              type=click.Path(path_type=Path, exists=True, file_okay=False))
@FORCE
@errors_in_words
def join(name, preset_files, folder, force):
    """Join presets, learned for one model at different cfg, into one by the name NAME.

    At a cfg between two of them the hosts run the table between theirs, beyond all of them the last one.
    """
    from ...s4s_nodes.core import names, preset_file as preset_module
    from ...s4s_nodes.select.cfg import joined
    path = check_free(folder / f"{names.preset_name(name)}.safetensors", force)
    preset = joined([preset_module.load(file) for file in preset_files], name)
    preset_module.save(preset, path)
    low, high = preset.training["cfg"]
    click.echo(f"{path}: {len(preset.tables)} tables of {', '.join(map(str, preset.counts))} calls, for cfg {low:g} to "
               f"{high:g}")


@click.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--write", is_flag=True, help="write it into the folder's README.md")
@errors_in_words
def passports(folder, write):
    """The passports of all presets in a FOLDER as one Markdown page [default: those that ship]."""
    from ...s4s_nodes.core import write_atomically
    from ...s4s_nodes.library import shipped_folder
    from ..benchmark.passports import SHIPPED, page
    text = page(folder) if folder else page(shipped_folder(), SHIPPED)
    folder = folder or shipped_folder()
    if write:
        text = f"wrote {write_atomically(folder / 'README.md', text.encode())}"
    click.echo(text.rstrip("\n"))


COMMANDS = (list_, rename, delete, join, passports)
