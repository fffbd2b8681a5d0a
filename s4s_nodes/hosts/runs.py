"""What a training writes: the folder of its run, and the preset of one that was stopped."""

import os
from dataclasses import asdict, replace
from pathlib import Path

from ...training.config import Config
from ..core import preset_file, write_atomically
from ..core.preset_file import Model, Preset, PresetError
from ..library import ENDING, file_name
from .digest import digest

ROOM = 1 << 20              # bytes that must be free for a preset or a run: either file takes less


def run_key(config: Config, model: Model, settings) -> str:
    """10 digits that name all that a run depends on, but for its seed."""
    return digest([config.replace(seed=0).flat(), asdict(model), settings], exact=True)[:10]


def run_folder(runs: Path, name: str, key: str, seed: int, resume: bool = True) -> tuple[Path, int]:
    """(folder, seed) of a run: NAME-KEY-SEED, or the newest of another seed that is not done.

    The user may never have chosen a seed: a fresh node draws another for each run.
    """
    start, folders = f"{file_name(name)}-{key}-", runs.iterdir() if runs.is_dir() else ()
    own = runs / f"{start}{seed}"
    stopped = [folder for folder in folders if folder.name.startswith(start) and (folder / "config.json").exists()
               and not (folder / "saved").exists()]
    if resume and stopped and not own.exists():
        own = max(stopped, key=lambda folder: (folder / "config.json").stat().st_mtime)
    return own, int(own.name.removeprefix(start))


def check_places(presets: Path, runs: Path, name: str) -> None:
    """Raise ValueError where a training of this name could not be saved: before anything is loaded for it."""
    for folder in (presets, runs):
        check_writable(folder, name)


def check_writable(folder: Path, name: str) -> None:
    """Raise ValueError where a preset of this name could not be saved now: a full disk, no right, a refused name."""
    try:
        write_atomically(folder / f".{file_name(name)}{ENDING}", os.urandom(ROOM)).unlink()
    except OSError as error:
        raise ValueError(f"{name!r} cannot be saved in {folder} ({error.strerror or error}). Make room there or allow "
                         "writing, or choose another name") from None


def has_learned(preset: Preset) -> bool:
    """Whether any table of a run is better than the classical solver it started from."""
    return any(best < start for start, best in preset.training.get("held_out_rmse", {}).values())


def unfinished(preset: Preset, run: str) -> Preset:
    """The preset of a run that was stopped: nothing selects it automatically, and the finished one replaces it."""
    record = {name: value for name, value in preset.training.items() if name != "created"}
    return replace(preset, recommended=False, training={**record, "run": run, "unfinished": True})


def readable(path: Path) -> Preset | None:
    """The preset in a file, or None where there is none."""
    try:
        return preset_file.load(path) if path.exists() else None
    except (PresetError, OSError):
        return None
