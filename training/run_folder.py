"""A run's folder: files are written atomically, and a full disk is reported without stopping the run.

    FOLDER/config.json  pairs/*.safetensors  state.safetensors  log.jsonl  NAME.safetensors (the preset)

Every file carries a checksum and the run's identity; anything else is refused on reading, with a message.
"""

import errno
import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import fields
from functools import wraps
from glob import escape
from pathlib import Path
from typing import BinaryIO

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ..s4s_nodes.core import Preset, preset_file, write_atomically
from .config import Config
from .lock import holds, locked
from .optimizers.state import State
from .run_identity import CONFIG, LOG, STATE, TRAINER, check_same, config_text, read_config

PAIRS = "pairs/{}.safetensors"
FACTS, CHECKSUM = "s4s_run", "sha256"


def _in_the_first_process(read: Callable) -> Callable:
    """The method's result in the first process, for all processes; if it raises, all raise."""
    @wraps(read)
    def shared(self, *given):
        return self.world.shared(lambda: read(self, *given)) if self.world else read(self, *given)
    return shared


class Folder:
    """The folder of a run. Raises ValueError if it holds another run, or if another training runs there.

    identity: of the run, see run_identity.py. world: of a run of many processes, whose first alone reads and writes.
    """

    def __init__(self, path, config: Config, resume: bool, say: Callable, world=None, identity: str = ""):
        self.path, self.config, self.say, self.world, self.identity = Path(path), config, say, world, identity
        self._warned, self._facts = False, {"identity": identity, "program": TRAINER}
        self._writes = world is None or world.first
        self._stack = ExitStack()
        self._lock: BinaryIO | None = None
        self._place = self.path / f"{config.name}.safetensors"
        self.preset_path = self._place              # where the preset is, or will be
        self._open(resume)

    @_in_the_first_process
    def _open(self, resume: bool) -> None:
        for path in self.path.rglob("*"):
            if path.is_symlink():
                raise ValueError(f"{path} is a link, and a run writes in its folder only: choose another folder")
            own = path.name in (CONFIG, STATE, LOG, self._place.name)
            if not path.is_file() and (own or not path.is_dir()):
                raise ValueError(f"{path} is not a plain file: put it elsewhere, or choose another folder")
        with locked(self.path, self.say):
            known = check_same(self.path, self.config, resume)
            if known is None:
                write_atomically(self.path / CONFIG, config_text(self.config, self._facts))
            elif known["identity"] != self.identity:
                raise ValueError(f"{self.path} holds a run of another model or of other conditions: use another folder")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the folder, and delete half-written files of a killed training."""
        with self._stack:
            self._hold()
            yield

    @_in_the_first_process
    def _hold(self) -> None:
        self._lock = self._stack.enter_context(locked(self.path, self.say))
        for pattern in (*(f".{escape(name)}.*.part" for name in (CONFIG, STATE, LOG, self._place.name)),
                        "pairs/.*.part"):
            for part in self.path.glob(pattern):
                with suppress(OSError):
                    part.unlink()

    def save_state(self, states: dict[str, State], facts: dict) -> None:
        tensors, about = {"version": torch.ones(1)}, {}
        for name, state in states.items():
            content = {f.name: getattr(state, f.name) for f in fields(state) if f.name != "memory"}
            arrays = {key: value for key, value in content.items() if isinstance(value, Tensor)}
            tensors |= {f"{name}/{key}": value for key, value in arrays.items()}
            tensors |= {f"{name}/memory/{key}": value for key, value in state.memory.items()}
            about[name] = {key: value for key, value in content.items() if key not in arrays}
        self.write(STATE, sealed(tensors, {**self._facts, "states": about, **facts}))
        self.write(LOG, _log(states).encode())

    @_in_the_first_process
    def load_state(self) -> tuple[dict[str, State], dict]:
        """(states, facts) as saved; ({}, {}) if no state was saved.

        Raises ValueError for a damaged state, or that of another run.
        """
        path, program = self.path / STATE, TRAINER
        if not path.exists():
            return {}, {}
        try:
            tensors, facts = unsealed(path)
            program = facts["program"]
            if facts["identity"] == self.identity:
                return {name: _state(name, about, tensors) for name, about in facts.pop("states").items()}, facts
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if program != TRAINER:
                raise ValueError(f"{path} was made by {program}, and {TRAINER} cannot read it: start a new run in "
                                 "another folder") from None
            raise ValueError(f"{path} is damaged ({error}): delete it to start over with the cached pairs") from None
        raise ValueError(f"{path} belongs to another run: put the right one back, or delete it to start over with "
                         "the pairs")

    @_in_the_first_process
    def load_targets(self, name: str, shape: tuple, maker: str):
        """The saved targets of this shape and maker; None if they are missing, damaged, or another run's.

        maker: words that tell the teacher apart from all others. Another version of this program makes its own.
        """
        path, why = self.path / PAIRS.format(name), "of another teacher, run or version"
        try:
            tensors, facts = unsealed(path)
            target, wanted = tensors["target"], {**self._facts, "name": name, "maker": maker}
            if facts == wanted and tuple(target.shape) == tuple(shape):
                return target
        except FileNotFoundError:
            return None
        except (OSError, KeyError, ValueError):
            why = "damaged"
        self.say(f"the targets in {path} are {why}: they are made again")
        return None

    def save_targets(self, name: str, target: Tensor, maker: str) -> None:
        facts = {**self._facts, "name": name, "maker": maker}
        self.write(PAIRS.format(name), sealed({"target": target}, facts))

    def save_preset(self, preset: Preset) -> None:
        """Write the preset, if necessary into a temporary folder. Raises OSError if neither has room."""
        if not self._writes:
            return
        try:
            self._check_still_here()
            self.preset_path = preset_file.save(preset, self._place)
        except OSError as error:
            self._rescue(preset, error)

    def _rescue(self, preset: Preset, error: OSError) -> None:
        reason = f"cannot write {self._place}: {error.strerror or error}"
        try:
            spare = Path(tempfile.mkdtemp(prefix="s4s-")) / self._place.name
            self.preset_path = preset_file.save(preset, spare)
        except OSError:
            raise OSError(f"{reason}; nor into {tempfile.gettempdir()}. Free some space, then: s4s train --resume "
                          f"{self.path}") from None
        self.say(f"WARNING: {reason}. The preset is in {spare}: move it to where there is room")

    def write(self, name, content: bytes) -> None:
        """Write a file of the folder. A failing disk is reported once, and the run continues in memory."""
        if not self._writes:
            return
        try:
            self._check_still_here()
            write_atomically(self.path / name, content)
            self._warned = False
        except OSError as error:
            if not self._warned:
                self.say(f"WARNING: cannot write {self.path / name}: {error.strerror or error}. The run continues in "
                         "memory and tries again; free some space before it ends")
            self._warned = True

    def _check_still_here(self) -> None:
        """Put lock and configuration back if the folder was deleted. Raises OSError if another run has taken it."""
        there = (self.path / CONFIG).exists()
        try:
            if there and read_config(self.path)[1]["identity"] != self.identity:
                raise OSError(errno.EEXIST, "the folder holds another run now")
            if not holds(self._lock, self.path):
                self._lock = self._stack.enter_context(locked(self.path, self.say))
        except ValueError as error:
            raise OSError(errno.EEXIST, str(error)) from None
        if not there:
            write_atomically(self.path / CONFIG, config_text(self.config, self._facts))


def _state(name: str, about: dict, tensors: dict) -> State:
    memory = {key.split("/memory/")[1]: value for key, value in tensors.items() if key.startswith(f"{name}/memory/")}
    parts = {f.name: tensors[key] if (key := f"{name}/{f.name}") in tensors else about[f.name] for f in fields(State)
             if f.name != "memory"}
    return State(**parts, memory=memory)


def _log(states: dict[str, State]) -> str:
    names = ("iteration", "loss", "held_out_rmse", "model_calls")
    rows = [{"table": table, **dict(zip(names, row))} for table, state in states.items() for row in state.curve]
    return "".join(json.dumps({k: None if isinstance(v, float) and not math.isfinite(v) else v
                               for k, v in row.items()}) + "\n" for row in rows)


def sealed(tensors: dict[str, Tensor], facts: dict) -> bytes:
    """The content of a file of tensors and facts (JSON-ready) with a checksum."""
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    text = json.dumps(facts)
    return safetensors.torch.save(tensors, metadata={FACTS: text, CHECKSUM: _checksum(tensors, text)})


def unsealed(path: Path) -> tuple[dict[str, Tensor], dict]:
    """(tensors, facts) of such a file, as they were written. Raises ValueError for a damaged one, or OSError."""
    try:
        # not load_file: a host replaces it with one that changes every error and moves the file
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # clones are aligned: sums over tensors in a mapped file differ in the last digits
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        text = metadata[FACTS]
        facts = json.loads(text)
    except MemoryError:
        raise ValueError("it does not fit into memory") from None
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(str(error)) from None
    if metadata.get(CHECKSUM) != _checksum(tensors, text):
        raise ValueError("its checksum is another")
    return tensors, facts


def _checksum(tensors: dict[str, Tensor], text: str) -> str:
    """SHA-256 in hex over the text and every tensor on the CPU: name, type, shape, bytes."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
