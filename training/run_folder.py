"""A run's folder: files that are whole or absent, and a full disk that is reported and does not stop a run.

    FOLDER/config.json  pairs/*.safetensors  state.safetensors  log.jsonl  NAME.safetensors (the preset)
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ..s4s_nodes.core import Preset, preset_file, write_atomically
from .config import Config
from .optimizers.state import AdamState, GaussNewtonState, State

KINDS = {"adam": AdamState, "gauss_newton": GaussNewtonState}
OLDER = "was made by version 0.4 or older, whose optimizers are gone: start a new run in another folder"


class Folder:
    """Where a run lives. Raises ValueError if it holds another run than the one wanted.

    world: of a run of many processes, the first of which alone reads and writes.
    """

    def __init__(self, path, config: Config, resume: bool, say: Callable, world=None):
        self.path, self.config, self.say, self.world = Path(path), config, say, world
        self._warned = False
        self._read(lambda: self._open(resume))

    def _open(self, resume: bool) -> None:
        check_same(self.path, self.config, resume)
        if not (known := self.path / "config.json").exists():
            write_atomically(known, self.config.to_json().encode())

    def _read(self, read: Callable):
        """What read() returns or raises, in the first process, for all of them."""
        return self.world.shared(read) if self.world else read()

    @property
    def _writes(self) -> bool:
        return self.world is None or self.world.first

    # --- state and log ------------------------------------------------------------------------------------------

    def save_state(self, states: dict[str, State], facts: dict) -> None:
        """Write state and log, whole or not at all."""
        tensors, about = {"version": torch.ones(1)}, {}
        for name, state in states.items():
            content = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "memory"}
            found = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
            tensors |= {f"{name}/{key}": value for key, value in found.items()}
            tensors |= {f"{name}/memory/{key}": value for key, value in state.memory.items()}
            kind = next(kind for kind, known in KINDS.items() if isinstance(state, known))
            about[name] = {"kind": kind, **{key: value for key, value in content.items() if key not in found}}
        self.write(self.path / "state.safetensors", safetensors.torch.save(
            {name: tensor.clone() for name, tensor in tensors.items()},
            metadata={"s4s_run": json.dumps({"states": about, **facts})}))
        self.write(self.path / "log.jsonl", _log(states).encode())

    def load_state(self) -> tuple[dict[str, State], dict]:
        """(states, facts) as saved, or nothing where no state was saved. Raises ValueError for a damaged one."""
        return self._read(self._load_state)

    def _load_state(self) -> tuple[dict[str, State], dict]:
        path = self.path / "state.safetensors"
        if not path.exists():
            return {}, {}
        older = False
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                facts = json.loads(file.metadata()["s4s_run"])
                # clones are aligned: sums over tensors in a mapped file differ in the last digits
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
            older = any("kind" not in about for about in facts["states"].values())
            states = {} if older else {name: _state(name, about, tensors) for name, about in facts["states"].items()}
            del facts["states"]
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}): delete it to start over with the cached pairs") from None
        if older:
            raise ValueError(f"the run in {self.path} {OLDER}")
        return states, facts

    # --- pairs --------------------------------------------------------------------------------------------------

    def load_targets(self, name: str, shape: tuple, maker: str):
        """The saved targets of this shape and maker, or None where they are missing, damaged or of another maker.

        maker: words that tell the teacher, the model and its guidance apart from all others; such targets are made
        again.
        """
        return self._read(lambda: self._load_targets(name, shape, maker))

    def _load_targets(self, name: str, shape: tuple, maker: str):
        try:
            # not load_file: a host has replaced it by one that turns every error into another and moves the file
            with safetensors.safe_open(self.path / "pairs" / f"{name}.safetensors", framework="pt") as file:
                target, known = file.get_tensor("target").clone(), (file.metadata() or {}).get("maker")
        except (OSError, KeyError, safetensors.SafetensorError):
            return None
        if known != maker:
            self.say(f"the targets in {name} are of another teacher or model: they are made again")
            return None
        return target if tuple(target.shape) == tuple(shape) else None

    def save_targets(self, name: str, target: torch.Tensor, maker: str) -> None:
        self.write(self.path / "pairs" / f"{name}.safetensors",
                   safetensors.torch.save({"target": target.contiguous().cpu()}, metadata={"maker": maker}))

    # --- preset -------------------------------------------------------------------------------------------------

    @property
    def preset_path(self) -> Path:
        return self.path / f"{self.config.name}.safetensors"

    def save_preset(self, made: Preset) -> None:
        """Write the preset, if need be into the system's temporary folder. Raises OSError where neither has room."""
        if not self._writes:
            return
        try:
            preset_file.save(made, self.preset_path)
        except OSError as error:
            self._rescue(made, error)

    def _rescue(self, made: Preset, error: OSError) -> None:
        place = free_place(Path(tempfile.gettempdir()) / self.preset_path.name)
        reason = f"cannot write {self.preset_path}: {error.strerror or error}"
        try:
            preset_file.save(made, place)
        except OSError:
            raise OSError(f"{reason}; nor into {place.parent}. Free some space, then: s4s train --resume {self.path}"
                          ) from None
        self.say(f"WARNING: {reason}. The preset is in {place}: move it to where there is room")

    def write(self, path: Path, content: bytes) -> None:
        """Write a file; a failing disk is reported once and the run goes on in memory."""
        if not self._writes:
            return
        try:
            write_atomically(path, content)
            self._warned = False
        except OSError as error:
            if not self._warned:
                self.say(f"WARNING: cannot write {path}: {error.strerror or error}. The run goes on in memory and "
                         "tries again; free some space before it ends")
            self._warned = True


def free_place(path: Path) -> Path:
    """The path, or the next with a number where a file has it: an earlier rescue stays."""
    places = (path.with_stem(f"{path.stem}-{number}" if number > 1 else path.stem) for number in range(1, 10_000))
    return next(place for place in places if not place.exists())


def check_same(folder, config: Config, resume: bool) -> None:
    """Raises ValueError if the folder holds a run that is not to be gone on with, or has other settings."""
    known = Path(folder) / "config.json"
    if not known.exists():
        if not resume and (there := Path(folder) / f"{config.name}.safetensors").exists():
            raise ValueError(f"{there} is there already: choose another folder with --out, or another --name")
        return
    if not resume:
        raise ValueError(f"{folder} already holds a run: go on with --resume {folder}, or choose another folder with "
                         "--out")
    earlier = Config.from_json(known.read_text())
    differ = [f.name for f in fields(Config) if getattr(earlier, f.name) != getattr(config, f.name)]
    if differ:
        words = ", ".join(f"{name} {getattr(earlier, name)!r}" for name in differ)
        raise ValueError(f"{folder} holds a run with other settings ({words}): give these to go on with it, or choose "
                         "another folder")


def _state(name: str, about: dict, tensors: dict) -> State:
    kind = KINDS[about.pop("kind")]
    memory = {key.split("/memory/")[1]: value for key, value in tensors.items() if key.startswith(f"{name}/memory/")}
    parts = {f.name: tensors[f"{name}/{f.name}"] for f in fields(kind) if f"{name}/{f.name}" in tensors}
    return kind(**parts, memory=memory, **about)


def _log(states: dict[str, State]) -> str:
    names = ("iteration", "loss", "held_out_rmse", "model_calls")
    rows = [{"table": table, **dict(zip(names, row))} for table, state in states.items() for row in state.curve]
    return "".join(json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v
                               for k, v in row.items()}) + "\n" for row in rows)
