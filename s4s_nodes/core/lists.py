"""Lists of numbers as users write them, the same in every host and at the command line."""

from __future__ import annotations

import re

_SEPARATORS = re.compile(r"[\s,;，；、]+")


def numbers(text, kind: type, what: str, wanted: bool = True) -> tuple:
    """The numbers of a list such as "4, 5; 6". what: the list's name; wanted: whether it may not be empty.

    Raises ValueError with what to write instead.
    """
    example, whole = ("4,5,6", "whole ") if kind is int else ("1,0.75,0.5", "")
    parts = [part for part in _SEPARATORS.split(str(text)) if part]
    if wanted and not parts:
        raise ValueError(f"{what} is empty: write one number or several, such as {example}")
    try:
        return tuple(kind(part) for part in parts)
    except ValueError:
        raise ValueError(f"{what}: {text!r} is not a list of {whole}numbers such as {example}") from None
