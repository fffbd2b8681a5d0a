"""Names of presets: which names are allowed, and the file name of each."""

import re
import unicodedata

from .model import PresetError

LONGEST, MOST_BYTES = 100, 200      # file systems take 255 bytes: room for the ending and a temporary file's mark
_MARKS = set(" ._-+(),='&@#!~[]" "（）【】「」、，・")
_KINDS = {"L", "M", "N", "So"}      # Unicode's letters, the marks on them, numbers; and signs such as emoji
_INVISIBLE = set("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")      # though letters, marks or signs
# no file name on Windows, which drops spaces before the dot
_DEVICES = re.compile(r"(con|prn|aux|nul|com[\d¹²³]|lpt[\d¹²³]) *(\.|$)", re.IGNORECASE)
_UNSAFE = re.compile(rf"[^\w .,()+=-]|[{''.join(_INVISIBLE)}]")
_OF_A_RUN = {"state", "config"}     # state.safetensors and config.json lie in a run's folder beside its preset


def preset_name(text) -> str:
    """Return the text if a new preset may have this name: a file of this name is safe on every system.

    Raises PresetError otherwise. Older files may hold other names: they are displayed, and have a `file_name`, too.
    """
    if reason := _reason(text):
        raise PresetError(f"preset name {str(text)[:120]!r}: {reason}. Choose another name")
    return text


def file_name(name: str) -> str:
    """A file name for a preset that every file system accepts: no folders, no device names, not too long."""
    if _reason(name) is None:
        return name
    plain = _UNSAFE.sub("_", name).encode()[:MOST_BYTES].decode(errors="ignore").strip(" .").lstrip("-")
    return f"_{plain}" if not plain or _DEVICES.match(plain) else plain


def numbered(name: str, number: int) -> str:
    """The name with a suffix "-2", "-3", ..., shortened if it would be too long."""
    mark = f"-{number}"
    return name[:LONGEST - len(mark)].encode()[:MOST_BYTES - len(mark)].decode(errors="ignore").rstrip(" .") + mark


def _reason(text) -> str | None:
    if not isinstance(text, str) or not 0 < len(text) <= LONGEST or not text.isprintable():
        return f"expected 1 to {LONGEST} printable characters, without line breaks or marks of direction"
    if len(text.encode()) > MOST_BYTES:
        return f"it takes {len(text.encode())} bytes as UTF-8, and a file's name has room for {MOST_BYTES}"
    if wrong := sorted({c for c in text if not _fits(c)}):
        return f"expected letters, digits and {''.join(sorted(_MARKS & set(map(chr, range(128)))))!r}, not " \
               f"{' '.join(wrong[:8])}"
    if text[0] in " .-" or text[-1] in " .":
        return "it must not begin or end with a dot or a space, or begin with a dash"
    if unicodedata.category(text[0])[0] == "M":
        return "it must not begin with a mark that belongs on a letter"
    if _DEVICES.match(text):
        return "Windows keeps this name for a device"
    return "a run keeps a file of its own under this name" \
        if unicodedata.normalize("NFKC", text).casefold() in _OF_A_RUN else None


def _fits(character: str) -> bool:
    kind = unicodedata.category(character)
    return character in _MARKS or (kind in _KINDS or kind[0] in _KINDS) and character not in _INVISIBLE
