"""What users can mend, said in one line at the command line."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import click

FORCE = click.option("--force", is_flag=True, help="overwrite what is there")


def check_free(path: Path, force: bool) -> Path:
    """The path, if nothing is there or it may be overwritten. Raises ValueError with what to do."""
    if not force and os.path.lexists(path):
        raise ValueError(f"{path} exists: choose another name, or overwrite it with --force")
    return path


def user_errors(command):
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
