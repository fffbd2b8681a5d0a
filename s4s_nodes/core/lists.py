"""Lists of numbers as users write and read them, the same in every host and at the command line."""

import re

_SEPARATORS = re.compile(r"[\s,;，；、]+")
_SIZE = re.compile(r"(\d+)[x×*](\d+)", re.IGNORECASE)
LEAST, MOST = 8, 65_536     # pixels of a side


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


def sizes(text, what: str) -> tuple:
    """((width, height), ...) in pixels of a list such as "768x512, 1024x1024", each once; () of an empty one.

    Raises ValueError with what to write instead.
    """
    read = [_SIZE.fullmatch(part) for part in _SEPARATORS.split(str(text)) if part]
    pixels = tuple(dict.fromkeys((int(size[1]), int(size[2])) for size in read if size))
    if None in read or any(not LEAST <= side <= MOST for size in pixels for side in size):
        raise ValueError(f"{what}: {text!r} is not a list of widths and heights in pixels such as 768x512,1024x1024")
    return pixels


def range_text(values) -> str:
    """A number, or the lowest and the highest of several: "3", "3 to 7"."""
    several = values if isinstance(values, (list, tuple)) else [values]
    low, high = min(several), max(several)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
