"""The presets on this machine: those that ship and the user's own, by name; reading, saving, renaming, deleting.

select/selection.py decides which of them runs; its names are exported here, so that a host needs only this module.
"""

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from .core import preset_file
from .core.container import is_preset_file
from .core.files import TICK, stamp
from .core.names import file_name, numbered, preset_name
from .core.preset_file import Preset, PresetError
from .core.scores import compared
from .core.sketch import same_weights
from .select.dispatch import Selection, levels_for
from .select.match import ModelFacts, cfg_range, suits
from .select.selection import Request, schedule, select

ENDING = ".safetensors"
__all__ = ["Library", "ModelFacts", "Preset", "PresetError", "Request", "Selection", "cfg_range", "file_in",
           "file_name", "levels_for", "measured", "measured_text", "preset_name", "readable", "recommended_text",
           "save_new", "save_scores", "save_version", "schedule", "select", "shipped_folder", "suits", "tables_of"]


def shipped_folder() -> Path:
    """The folder of the presets that ship with S4S."""
    return Path(__file__).resolve().parents[1] / "solver_presets"


def file_in(folder, name: str) -> Path:
    """The file in a folder of a preset of this name."""
    return Path(folder) / (file_name(name) + ENDING)


class Library:
    """The presets in some folders and their sub-folders; the user's come before those that ship.

    A preset's name here is its relative path without the suffix, "portraits/sd15"; if two folders hold the same name,
    the earlier folder wins. Every query scans the folders again; a file is read again only if its size, times or inode
    changed. Unreadable files are left out and listed in `problems`.

    Args:
        folders: the user's folders, the first one first.
        shipped: the folder of the presets that ship; None: `solver_presets`.
    """

    def __init__(self, folders, shipped: Path | None = None):
        self._shipped = Path(shipped or shipped_folder()).resolve()
        self._folders = [*(Path(one) for one in folders if Path(one).resolve() != self._shipped), self._shipped]
        self._read: dict[Path, tuple[tuple, Preset | str]] = {}         # path -> (stamp, preset or problem)

    def named(self) -> dict[str, Preset]:
        """{name: preset} of all readable presets, the user's first."""
        return {name: entry for name, entry in self._scan()[0].items() if isinstance(entry, Preset)}

    def offered(self) -> dict[str, Preset]:
        """{name: preset} of those to choose from in a host, the user's first: without what ships for models of one
        channel, the trainer's own of digits, which no host loads."""
        return {name: preset for name, preset in self.named().items()
                if preset.model.channels != 1 or not self.ships(name)}

    def candidates(self) -> list[Preset]:
        """All readable presets to select from, those too that a namesake hides: a file's name changes no image."""
        self._scan()
        read = list(self._read.values())            # another thread may read one more
        return [entry for _, entry in read if isinstance(entry, Preset)]

    def get(self, name: str) -> Preset:
        """The preset with this name. Raises PresetError with the known names, or with what is wrong with the file."""
        path = self.path(str(name))
        self._read[path] = self._entry(path)
        if isinstance(entry := self._read[path][1], Preset):
            return entry
        raise PresetError(entry)

    def files(self) -> dict[str, Path]:
        """{name: file} of everything there, readable or not."""
        return self._paths()[0]

    def path(self, name: str) -> Path:
        """The file of a preset. Raises PresetError if there is none."""
        if name not in (paths := self.files()):
            raise PresetError(f"there is no preset {str(name)[:100]!r}; installed are: {', '.join(paths) or 'none'}")
        return paths[name]

    def ships(self, name: str) -> bool:
        """Whether a preset came with S4S. Raises PresetError if there is none."""
        return self.in_shipped(self.path(name))

    def in_shipped(self, path: Path) -> bool:
        """Whether a file came with S4S."""
        return self._shipped in path.resolve().parents

    def listed(self) -> list[str]:
        """The names of the user's own files, damaged ones too, and of what ships and is offered."""
        offered = self.offered()
        return [name for name, path in self.files().items()
                if (name in offered if self.in_shipped(path) else self.why_kept(name, path) is None)]

    def why_kept(self, name: str, path: Path | None = None) -> str | None:
        """Why a file may not be renamed or deleted, or None. Raises PresetError if there is none.

        Only presets in the folder itself may be: links are followed for reading, never for changing.
        """
        path = path or self.path(name)
        if self.in_shipped(path):
            return f"preset {name!r} ships with S4S: save a copy under another name instead"
        folder = next(folder for folder in self._folders if folder in path.parents)
        if Path(os.path.realpath(path)) != Path(os.path.realpath(folder)) / path.relative_to(folder):
            return f"{name!r} is behind a link: rename or delete the file itself, by hand"
        if not is_preset_file(path):
            return f"{name!r} is not an S4S preset: rename or delete it by hand"
        return None

    def rename(self, name: str, new: str) -> Path:
        """Rename one of the user's presets, the file and the name inside it, and return the new file.

        Raises PresetError if it ships, is unreadable or lies elsewhere, or if the new name is taken or not a valid one.
        """
        old, preset, new = self._own(name), self.get(name), preset_name(new)
        there = file_in(old.parent, new)
        its_own = preset.name != new and there.exists() and there.samefile(old)      # a file somebody named by hand
        path = save_new(replace(preset, name=new), old.parent, overwrite=its_own)
        if not path.samefile(old):
            old.unlink()
        return path

    def delete(self, name: str) -> None:
        """Delete one of the user's presets, damaged or not. Raises PresetError with the reason of `why_kept`."""
        self._own(name).unlink()

    def _own(self, name: str) -> Path:
        if reason := self.why_kept(name):
            raise PresetError(reason)
        return self.path(name)

    def problems(self) -> list[str]:
        """What is wrong with files that could not be read, and which names hide others."""
        return [*self.unreadable(),
                *(f"{path} is hidden by {other}, which has the same name" for path, other in self._paths()[1])]

    def unreadable(self) -> list[str]:
        """What is wrong with files that could not be read."""
        return [problem for problem in self._scan()[0].values() if isinstance(problem, str)]

    def _scan(self) -> tuple[dict, list[tuple]]:
        """({name: preset or problem}, [(hidden file, the one of its name)]), as the folders are now."""
        paths, hidden = self._paths()
        read = {path: self._entry(path) for path in (*paths.values(), *(path for path, _ in hidden))}
        self._read = read                           # files that are gone are forgotten
        return {name: read[path][1] for name, path in paths.items()}, hidden

    def _paths(self) -> tuple[dict[str, Path], list[tuple]]:
        paths, hidden = {}, []
        for folder in self._folders:
            for path in _files(folder):
                name = path.relative_to(folder).with_suffix("").as_posix()
                if paths.setdefault(name, path) is not path:
                    hidden.append((path, paths[name]))
        return paths, hidden

    def _entry(self, path: Path) -> tuple[tuple, Preset | str]:
        try:
            mark = stamp(path)
            if path in self._read and self._read[path][0] == mark:
                return self._read[path]
            if time.time_ns() - max(mark[1:3]) < TICK * 1e9:        # the next change might not show in it
                mark = ()
        except OSError as error:
            return (), f"{path}: {error.strerror or error}"
        try:
            return mark, preset_file.load(path)
        except PresetError as error:
            return mark, str(error).replace(path.name, str(path), 1) if str(error).startswith(path.name) else str(error)


def save_new(preset: Preset, folder, overwrite: bool = False) -> Path:
    """Write the preset into the folder under its own name, and return the file.

    Raises PresetError if the file exists, unless told to overwrite; OSError from the system.
    """
    path = file_in(folder, preset.name)
    try:
        return preset_file.save(preset, path, new=not overwrite)
    except FileExistsError:
        raise PresetError(f"{path} already exists: give the preset another name, or rename, delete or overwrite that "
                          "one") from None


def save_version(preset: Preset, folder) -> tuple[Preset, Path]:
    """Save what a training learned, and return (preset as saved, file). It replaces only its own run's preset.

    If another run's preset has the name, or a finished one ("created") with other numbers, "name-2" is used, and so
    on; training["run"] identifies the run. With the same numbers its scores are kept. If `preset` is unfinished, a
    finished one of its run is kept and returned.
    """
    for number in range(1, 10_000):
        named = preset if number == 1 else replace(preset, name=numbered(preset.name, number))
        path = file_in(folder, named.name)
        before = readable(path)
        if before is not None and before.training.get("run", "none") != preset.training.get("run"):
            before = None                           # another run's
        if before is not None and "created" in before.training:
            if "created" not in preset.training:
                return before, path
            if before.hash != preset.hash:
                continue
            named = preset_file.with_scores(replace(named, scores=before.scores), preset.scores)
        with suppress(FileExistsError):             # also of another process that took the name just now
            return named, preset_file.save(named, path, new=before is None)
    raise PresetError(f"{preset.name!r} exists in 9999 versions: give the preset another name")


def readable(path) -> Preset | None:
    """The preset in a file, or None if there is none."""
    try:
        return preset_file.load(path)
    except PresetError:
        return None


def save_scores(library: Library, preset: Preset, folder) -> str:
    """Add a preset's scores to the user's file that holds its tables, else write a new file; words on it.

    A shipped preset is not changed: its scores go into a copy, which belongs to the user and the model of the race.
    """
    same = [name for name, there in library.named().items() if there.short_hash == preset.short_hash]
    mine = [name for name in same
            if not library.ships(name) and same_weights(library.get(name).model.hashes, preset.model.hashes)]
    if mine:
        name = min(mine, key=lambda name: library.get(name).name != preset.name)     # of several copies, the namesake
        scored = preset_file.with_scores(library.get(name), preset.scores)
        return f"scores written into {preset_file.save(scored, library.path(name))}"
    if same:
        names = (f"{preset.name[:85]} raced{count}" for count in ("", *(f" {n}" for n in range(2, 10_000))))
        preset = replace(preset, name=next(name for name in names if not file_in(folder, name).exists()))
    return f"saved with its scores as {save_new(preset, folder)}"


def measured(preset: Preset) -> tuple[str, tuple[str, ...]]:
    """What races found: a template such as "no" or "{} to {} times closer", and the numbers for its places."""
    own = [preset.score(table) for table in preset.scores]
    every = own if any(own) else [score for results in preset.scores.values() for score in results.values()]
    ratios = [score["ratio"] for score in every if "ratio" in score]
    if not ratios:
        return "yes" if preset.scores else "no", ()
    (least, side), (most, other) = map(compared, (min(ratios), max(ratios)))
    if side != other:
        return "{} times further to {} times closer", (least, most)
    numbers = tuple(sorted({least, most}, key=float))
    return " to ".join("{}" for _ in numbers) + f" times {side.split()[0]}", numbers


def measured_text(preset: Preset) -> str:
    """The same in words: "no", "1.10 to 1.25 times closer", "1.11 times further to 1.25 times closer"."""
    template, numbers = measured(preset)
    return template.format(*numbers)


def recommended_text(preset: Preset) -> str:
    """Whether a preset is, in words: "yes", "no", "unfinished", "not raced", or which of its tables are not."""
    if preset.unfinished:
        return "unfinished"
    if not preset.recommended:
        return "no"
    unclear = [table for table in preset.tables
               if table not in preset.lost and preset.score(table).get("recommended") is False]
    clauses = [f"not {', '.join(preset.lost)}"] if preset.lost else []
    clauses += [f"{', '.join(sorted(unclear))} not clear"] if unclear else []
    return "; ".join(clauses) or ("yes" if any(map(preset.score, preset.tables)) else "not raced")


def tables_of(preset: Preset, calls: tuple, word: str = "calls") -> list[str]:
    """The tables with these numbers of calls, by name; all for none given. word: what the host calls a call.

    Raises PresetError if there is none.
    """
    names = [name for name, table in sorted(preset.tables.items(), key=lambda item: (item[1].calls, item[0]))
             if not calls or table.calls in calls]
    if not names:
        have = sorted({table.calls for table in preset.tables.values()})
        raise PresetError(f"preset {preset.name!r} has tables for {', '.join(map(str, have))} {word}, none for "
                          f"{', '.join(map(str, calls))}")
    return names


def _files(folder: Path):
    """The preset files in a folder, or under it, in order of name; links to folders are followed, each folder once."""
    seen = set()
    for here, below, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        below[:] = [] if real in seen else sorted(b for b in below if not b.startswith("."))
        if real not in seen:
            yield from (Path(here) / name for name in sorted(names) if name.endswith(ENDING) and name[0] != ".")
        seen.add(real)
