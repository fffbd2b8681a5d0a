"""Learned tables from files the user downloaded: read without executing anything, lowered to a preset."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..core import Model, Preset, Table
from ..core.table import check_float32
from . import dyweight, epd, gas, ld3, restricted
from .limits import shown
from .published import UNMEASURED
from .restricted import UnreadableFile

_NO_LICENCE = "none given by its authors: for your own use, not to be redistributed"

# kind: (whether a content is of it, reader, source, licence)
_KINDS: dict[str, tuple[Callable, Callable, str, str]] = {
    "dyweight": (dyweight.fits, dyweight.read, dyweight.SOURCE, _NO_LICENCE),
    "epd": (epd.fits, epd.read, epd.SOURCE, _NO_LICENCE),
    "gas": (gas.fits, gas.read, gas.SOURCE, "MIT"),
    "ld3": (ld3.fits, ld3.read, ld3.SOURCE, _NO_LICENCE),
}
KINDS = tuple(_KINDS)


def read(path, kind: str = "auto", model: Model | None = None) -> Preset:
    """The preset of a downloaded DyWeight, EPD, GAS or LD3 file.

    model is what the numbers are for, where the file does not say or says something else. Raises UnreadableFile (a
    ValueError) for a file that is none of these, is damaged, or means an update no table holds; OSError where the
    system cannot read it.
    """
    if kind != "auto" and kind not in _KINDS:
        raise ValueError(f"{kind!r} is an unknown kind of file: use auto or one of {', '.join(KINDS)}")
    path = Path(path)
    raw = restricted.content_of(path)
    content = restricted.loads(raw, path.name)
    kind = _kind_of(content, kind, path.name)
    _, lower, source, licence = _KINDS[kind]
    more = (ld3.config_beside(path),) if kind == "ld3" else ()
    try:
        table, made_for, record = lower(content, model, *more)
        check_float32(f"calls{table.calls}", table)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise UnreadableFile(f"{path.name}: {_words(error)}") from None
    digest = hashlib.sha256(raw).hexdigest()
    training = {"imported": kind, "file": path.name, "file_sha256": digest, "note": UNMEASURED, **record}
    return Preset(_name(path, kind, table), {f"calls{table.calls}": table}, made_for, training, licence=licence,
                  source=source)


def merged(presets: list[Preset], name: str) -> Preset:
    """One preset of several files' tables. Raises ValueError where they are for different models or equal calls."""
    first, tables = presets[0], {}
    for each in presets:
        if each.model != first.model:
            raise ValueError(f"{each.name} is for {each.model.family}, {first.name} for {first.model.family}: import "
                             "them one by one")
        if twice := set(tables) & set(each.tables):
            raise ValueError(f"{each.name} holds {min(twice)} once more: import one of them")
        tables.update(each.tables)
    record = {**first.training, "file": [each.training["file"] for each in presets],
              "file_sha256": [each.training["file_sha256"] for each in presets]}
    return replace(first, name=name, tables=tables, training=record)


def _kind_of(content, kind: str, name: str) -> str:
    for known, (fits, *_) in _KINDS.items():
        if kind in ("auto", known) and fits(content):
            return known
    wanted = f"a file of {kind}" if kind != "auto" else f"a file of {', '.join(KINDS)}"
    held = f"a {type(content).__name__}"
    if isinstance(content, dict):
        held = ", ".join(shown(key) for key in list(content)[:6])
    raise UnreadableFile(f"{name} is not {wanted}: it holds {held[:120]}")


def _words(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    return f"its numbers are not where they belong ({type(error).__name__}: {str(error)[:120]})"


def _name(path: Path, kind: str, table: Table) -> str:
    """A name a person recognises: the run's folder where the file's own name says nothing."""
    plain = path.stem.startswith(("network-snapshot", "best", "model")) or path.stem.isdigit()
    own = f"{path.parent.name}" if plain and path.parent.name else path.stem
    words = re.sub(r"[^A-Za-z0-9._-]+", "-", own).strip("-")[:60]
    return words if kind in words.lower() else f"{kind}-{words}" if words else f"{kind}-{table.calls}"
