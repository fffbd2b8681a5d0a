"""All commands together, listed without being imported: torch and the trainer take a second."""

import sys
from contextlib import suppress
from importlib import import_module

import click

from ...s4s_nodes import __version__
from .shelf import COMMANDS

WORDS = {                   # of commands that import the trainer: the first sentence of their help
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

    def resolve_command(self, context, args):
        if args[0] in WORDS:
            import_module(".main", __package__)     # which puts the commands in their places
        return super().resolve_command(context, args)


@click.group(cls=Group, commands=[*COMMANDS, *(click.Command(name, help=words) for name, words in WORDS.items())],
             context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="s4s")
def main():
    """S4S: learn a few-call solver for a diffusion model, and measure it.

    A preset holds tables of learned numbers, 31 for six calls: which noise levels to visit and how to weigh the
    network's answers. Start with `s4s demo`: it trains one for a small bundled model and races it against the classical
    solvers, in a few minutes on two cores.
    """
