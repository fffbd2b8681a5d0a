"""What the commands share: options for settings and lists of numbers, and errors in one line."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import click

FORCE = click.option("--force", is_flag=True, help="overwrite what is there")


def list_of(kind: type):
    """The callback of an option that is a list of such numbers; None stays None."""
    def read(context, parameter, value: str | None) -> tuple | None:
        from ...s4s_nodes.core.lists import numbers
        try:
            return None if value is None else numbers(value, kind, parameter.name)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    return read


def scales(context, parameter, value: str) -> tuple:
    from ...s4s_nodes.select.cfg import cfg_nodes
    try:
        return cfg_nodes(value)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def config_options(command, only=None):
    """One option per field of Config with its default and its words; of those named, with None as default."""
    from ..config import SETTINGS
    for name, setting in reversed(SETTINGS.items()):
        if only and name not in only:
            continue
        option = f"--{name.replace('_', '-')}"
        extra: dict = {"type": str if name == "budget" else type(setting.default)}
        if isinstance(setting.default, bool):
            option, extra = f"{option}/--no-{option[2:]}", {}
        if setting.default == ():
            extra = {"type": str, "multiple": True}
        elif isinstance(setting.default, tuple):
            reader = scales if setting.name == "cfg" else list_of(type(setting.default[0]))
            extra = {"type": str, "callback": reader}
        default = ",".join(map(str, setting.default)) or () if isinstance(setting.default, tuple) else setting.default
        command = click.option(option, name, default=None if only else default, show_default=True, help=setting.help,
                               **extra)(command)
    return command


def removed_options(command):
    """Options of older versions, hidden: they are refused in words, or change nothing."""
    from ..config import REMOVED, check_removed

    def check(context, parameter, value) -> None:
        kind = type(REMOVED[parameter.name][0])
        try:
            if value is not None:
                check_removed(parameter.name, value if kind is bool else kind(value))
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    for name, (usual, *_) in REMOVED.items():
        flag: dict = {"is_flag": True, "default": None} if isinstance(usual, bool) else {}
        command = click.option(f"--{name}", hidden=True, expose_value=False, callback=check, **flag)(command)
    return command


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
