"""All commands together, listed without being imported: torch and the trainer take a second."""

from __future__ import annotations

from importlib import import_module

import click

from ...s4s_nodes import __version__

WORDS = {                   # the first sentence of each command's help
    "delete": "Delete a preset of yours, damaged or not; what ships stays, and what is a link or no preset.",
    "demo": "Train a preset for a bundled model, race it on unseen seeds, and draw the results.",
    "export": "Write a preset for other programs; plain levels without --out are printed.",
    "import": "Make a preset of published numbers (NAME) or of downloaded files (FILE); without either, list "
              "the names.",
    "join": "Join presets, learned for one model at different cfg, into one by the name NAME.",
    "list": "The presets in these folders and those that ship, with what each is for; files that cannot be "
            "read are named.",
    "passports": "The passports of all presets in a FOLDER as one Markdown page [default: those that ship].",
    "race": "Race a preset against every classical solver on every schedule at equal calls, on seeds it never saw.",
    "rename": "Give a preset of yours another NAME, in the file and of the file; nothing is overwritten "
              "without --force.",
    "show": "Describe a preset: its model, training, tables and scores; replay its self-test.",
    "train": "Train a preset: one table for each number of calls.",
}


class Group(click.Group):
    """Imports the commands when one of them is asked for."""

    def list_commands(self, context) -> list[str]:
        return sorted(WORDS)

    def get_command(self, context, name: str) -> click.Command | None:
        if name in WORDS:
            import_module(".main", __package__)
        return super().get_command(context, name)

    def format_commands(self, context, formatter) -> None:
        """As click writes them, from WORDS."""
        limit = formatter.width - 6 - max(map(len, WORDS))
        with formatter.section("Commands"):
            formatter.write_dl([(name, click.Command(name, help=WORDS[name]).get_short_help_str(limit))
                                for name in self.list_commands(context)])


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="s4s")
def main():
    """S4S: learn a few-call solver for a diffusion model, and measure it.

    A preset is a table of 20 to 60 learned numbers: which noise levels to visit and how to weigh the network's
    answers. Start with `s4s demo`: it trains one for a small bundled model and races it against the classical
    solvers, in a few minutes on two cores.
    """
