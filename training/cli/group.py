"""All commands together, listed without being imported: torch and the trainer take a second."""

import sys
from contextlib import suppress
from importlib import import_module

import click

from ...s4s_nodes import __version__
from .shelf import COMMANDS

WORDS = {                   # the first sentence of the help of those that import the trainer
    "demo": "Train a preset for a bundled model, race it on unseen seeds, and draw the results.",
    "race": "Race a preset against every classical solver on every schedule at equal calls, on seeds it never saw.",
    "train": "Train a preset: one table for each number of calls.",
}


class Group(click.Group):
    """Imports the trainer when a command that needs it is asked for. Ends in words where a signal stops it, or where
    users can mend what is wrong; tracebacks are for bugs."""

    def invoke(self, context):
        try:
            return super().invoke(context)
        except KeyboardInterrupt as stopped:
            with suppress(OSError):                 # of a terminal that was closed
                click.echo(f"\n{str(stopped) or 'stopped; nothing was left half-written'}", err=True)
            sys.exit(130)
        except (click.exceptions.Exit, click.Abort):
            raise
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            raise click.ClickException(str(error) or "memory ran out") from None

    def list_commands(self, context) -> list[str]:
        return sorted({*self.commands, *WORDS})

    def get_command(self, context, name: str) -> click.Command | None:
        if name in WORDS:
            import_module(".main", __package__)
        return super().get_command(context, name)

    def format_commands(self, context, formatter) -> None:
        """As click writes them, without importing the trainer."""
        commands = {**{name: click.Command(name, help=words) for name, words in WORDS.items()}, **self.commands}
        limit = formatter.width - 6 - max(map(len, commands))
        with formatter.section("Commands"):
            formatter.write_dl([(name, commands[name].get_short_help_str(limit)) for name in sorted(commands)])


@click.group(cls=Group, commands=COMMANDS,
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="s4s")
def main():
    """S4S: learn a few-call solver for a diffusion model, and measure it.

    A preset is a table of 20 to 60 learned numbers: which noise levels to visit and how to weigh the network's
    answers. Start with `s4s demo`: it trains one for a small bundled model and races it against the classical
    solvers, in a few minutes on two cores.
    """
