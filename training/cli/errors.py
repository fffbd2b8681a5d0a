"""What users can mend, said in one line at the command line."""

from __future__ import annotations

import functools
import sys

import click


def errors_in_words(command):
    """Turn what users can mend into one message and an exit code, and leave tracebacks to real bugs."""
    @functools.wraps(command)
    def wrapped(*args, **kwargs):
        from ..run import Stopped
        try:
            return command(*args, **kwargs)
        except Stopped as stopped:
            click.echo(f"\n{stopped}", err=True)
            sys.exit(130)
        except KeyboardInterrupt:
            click.echo("\nstopped; nothing was left half-written", err=True)
            sys.exit(130)
        except (ValueError, RuntimeError, OSError) as error:
            raise click.ClickException(str(error)) from (error if "--debug" in sys.argv else None)
    return wrapped
