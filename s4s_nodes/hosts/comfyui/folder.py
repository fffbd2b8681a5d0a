"""The folder models/s4s_presets, with the user's own from extra_model_paths.yaml and the presets that ship."""

import hashlib
import logging
from functools import cache
from pathlib import Path

import folder_paths

from ...core.files import stamp
from ...library import Library, shipped_folder

NAME = "s4s_presets"


def register() -> None:
    """Make the folder known to the host, once or again. A path the user configured comes first: presets go there."""
    folder_paths.add_model_folder_path(NAME, str(Path(folder_paths.models_dir) / NAME))
    folder_paths.add_model_folder_path(NAME, str(shipped_folder()))
    folder_paths.folder_names_and_paths[NAME][1].add(".safetensors")


def presets() -> Library:
    """Every installed preset, those that ship last; a file is read again when it changed."""
    return _library(tuple(folder_paths.get_folder_paths(NAME)))


def folder_mark() -> str:
    """10 hex digits of every installed preset's file: another value as soon as one is added, changed or removed."""
    stamps = sorted((name, stamp(path)) for name, path in presets().files().items() if path.exists())
    return hashlib.sha256(repr(stamps).encode()).hexdigest()[:10]


_library = cache(Library)            # one Library for the same folders, because it remembers what it has read
_reported: set[str] = set()


def tell_problems() -> None:
    """Log every file that cannot be read, and every name that hides another, once."""
    for problem in presets().problems():
        if problem not in _reported:
            _reported.add(problem)
            logging.warning("S4S: %s", problem)


def home() -> Path:
    return Path(folder_paths.get_folder_paths(NAME)[0])
