"""What the commands share: options for settings and lists of numbers, and errors in one line."""

import os
from pathlib import Path

import click

FORCE = click.option("--force", is_flag=True, help="overwrite what is there")


def list_of(kind: type, cfg: bool = False):
    """The callback of an option that is a list of such numbers, or of guidance scales; None stays None."""
    def read(context, parameter, value: str | None) -> tuple | None:
        from ...s4s_nodes.core.lists import numbers
        from ...s4s_nodes.select.cfg import cfg_nodes
        try:
            return None if value is None else cfg_nodes(value) if cfg else numbers(value, kind, parameter.name)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    return read


def config_options(command, only=None):
    """One option per field of Config with its default and its words; of those named, with None as default."""
    from ..config import SETTINGS
    for name, setting in reversed(SETTINGS.items()):
        if only and name not in only:
            continue
        extra: dict = {"type": str if name == "budget" else type(setting.default)}
        default = setting.default
        if isinstance(default, tuple):
            reader = list_of(type(default[0]), setting.name == "cfg")
            default, extra = ",".join(map(str, default)), {"type": str, "callback": reader}
        command = click.option(f"--{name.replace('_', '-')}", default=None if only else default, show_default=True,
                               help=setting.help, **extra)(command)
    return command


def check_free(path: Path, force: bool) -> Path:
    """The path, if nothing is there or it may be overwritten. Raises ValueError with what to do."""
    if not force and os.path.lexists(path):
        raise ValueError(f"{path} exists: choose another name, or overwrite it with --force")
    return path
