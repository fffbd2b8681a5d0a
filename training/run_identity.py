"""The identity of a run: its settings, what it learns on, and the program that began it."""

import hashlib
import json
from pathlib import Path

from ..s4s_nodes import __version__
from .config import Config
from .source import Source, identity_of

TRAINER = f"s4s {__version__}"
CONFIG, STATE, LOG = "config.json", "state.safetensors", "log.jsonl"
MOST_BYTES = 2 ** 20        # of CONFIG
RUN = "s4s_run"             # the entry of CONFIG that is not a setting: {"identity", "program", "sha256"}


def identity(config: Config, source: Source) -> str:
    """32 hex digits that identify a run: its settings and what it learns on."""
    return hashlib.sha256(f"{config.to_json()}\n{identity_of(source)}".encode()).hexdigest()[:32]


def read_config(folder) -> tuple[Config, dict]:
    """(settings of the folder's run, {"identity", "program"}). Raises ValueError for a damaged or older file."""
    path = Path(folder) / CONFIG
    try:
        content = json.loads(path.read_bytes() if path.is_file() and path.stat().st_size < MOST_BYTES else b"")
        facts = content.pop(RUN, None)
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path} is damaged: put it back from a copy, or start a new run in another folder") from None
    if facts is None:
        raise ValueError(f"the run in {folder} was made by version 0.4 or older, whose optimizers were removed: start "
                         "a new run in another folder")
    if not isinstance(facts, dict) or facts.get("sha256") != _checksum(content, facts):
        raise ValueError(f"{path} was changed or is damaged: put it back, or start a new run in another folder")
    return Config.of(**content), facts


def config_text(config: Config, facts: dict) -> bytes:
    settings = json.loads(config.to_json())
    return json.dumps({**settings, RUN: {**facts, "sha256": _checksum(settings, facts)}}, indent=1).encode()


def _checksum(settings: dict, facts: dict) -> str:
    kept = {key: value for key, value in facts.items() if key != "sha256"}
    return hashlib.sha256(json.dumps([settings, kept], sort_keys=True).encode()).hexdigest()


def check_same(folder, config: Config, resume: bool) -> dict | None:
    """What the folder's run notes of itself, or None for a folder without one.

    Raises ValueError if it holds a run that is not to be resumed, or one with other settings.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        there = [path for name in (f"{config.name}.safetensors", STATE) if (path := folder / name).exists()]
        if there and not resume:
            raise ValueError(f"{there[0]} already exists: choose another folder with --out, or another --name")
        return None
    if not resume:
        raise ValueError(f"{folder} already holds a run: resume it with --resume {folder}, or choose another --out")
    earlier, facts = read_config(folder)
    began, wanted = earlier.flat(), config.flat()
    if settings := ", ".join(f"{name} {began.get(name, '')!r}" for name in {**began, **wanted}
                             if began.get(name) != wanted.get(name)):
        raise ValueError(f"{folder} holds a run with other settings ({settings}): use these, or another folder")
    return facts
