"""What a training writes: the folder of its run, its report, and the preset of one that was stopped."""

import os
from dataclasses import asdict, replace
from pathlib import Path

from ...training.benchmark.host_race import RaceResult, TableResult, table_lines
from ...training.config import Config
from ..core import experts, write_atomically
from ..core.lists import range_text
from ..core.preset_file import Model, Preset
from ..core.scores import size_text
from ..library import file_in, file_name
from ..select.dispatch import TWO_SAMPLERS
from ..select.match import turns_text
from .digest import digest

SHOWN = 8                   # baselines named in a report
ROOM = 1 << 20              # bytes that must be free for a preset or a run; each file takes less


def run_key(config: Config, model: Model, settings) -> str:
    """10 digits that identify everything a run depends on, except its seed."""
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


def check_places(name: str, *folders: Path) -> None:
    """Raise ValueError if a preset of this name could not be saved now: a full disk, no permission, a refused name."""
    for folder in folders:
        try:
            file = file_in(folder, name)
            write_atomically(file.with_name(f".{file.name}"), os.urandom(ROOM)).unlink()
        except OSError as error:
            raise ValueError(f"{name!r} cannot be saved in {folder} ({error.strerror or error}). Make room there or "
                             "allow writing, or choose another name") from None


def unfinished(preset: Preset, run: str) -> Preset:
    """The preset of a run that was stopped: nothing selects it automatically, and the finished one replaces it."""
    record = {name: value for name, value in preset.training.items() if name != "created"}
    return replace(preset, recommended=False, training={**record, "run": run, "unfinished": True})


def training_report(preset: Preset, held: RaceResult, saved: str) -> str:
    """What was made, from what, at which cost, and how it did."""
    record = preset.training
    lines = [f"{preset.name} ({preset.short_hash}) for {preset.model.family}, {preset.model.prediction} prediction",
             saved,
             f"training: {record['model_calls']:,} network calls, {record['seconds']:.0f} s, teacher "
             f"{record['teacher']}, {record['conditionings']} conditioning"
             f"{'s' * (record['conditionings'] > 1)}, cfg {range_text(record['cfg'])}, "
             f"latent {size_text(record['latent'])}", f"race: {held.summary}"]
    if preset.experts:
        lines.insert(3, f"two models, which change at {turns_text(preset)}; cfg "
                        f"{preset.experts[experts.LOW].training['cfg']:g} from there. To use it, {TWO_SAMPLERS}")
    if kept := record.get("nothing_gained"):
        lines.append(f"Nothing was gained at {', '.join(kept)}: the best baseline is kept there.")
    return "\n".join([*lines, *result_lines(held.raced)])


def result_lines(raced: dict[str, TableResult]) -> list[str]:
    """What a race found, table by table."""
    return [line for name, one in raced.items() for line in ("", f"{name}: {one.verdict}", *table_lines(one, SHOWN))]
