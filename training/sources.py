"""The source of a configuration: a bundled model, or a checkpoint with its prompts."""

from __future__ import annotations

from collections.abc import Callable

from .config import Config
from .source import Source, pick_device


def of(config: Config, device: str, say: Callable = print) -> Source:
    """The Source of a configuration on this device. Raises ValueError in words for what cannot be opened."""
    if not config.model.checkpoint:
        from .demo_models.source import bundled  # a host's package comes without the small models
        return bundled(config.model.name, config.cfg[0], pick_device(device))
    from .checkpoints.source import checkpoint  # diffusers is imported for checkpoints only
    return checkpoint(config.model, config.cfg, pick_device(device), say)


def check_same(facts: dict, source: Source, folder) -> None:
    """Note what a run's source is, or compare it with the note.

    Raises ValueError if a run resumes with another checkpoint or other prompts of the same name.
    """
    about = {**source.about, "hashes": source.model.hashes} if source.about else {}
    if (before := facts.setdefault("source", about)) != about:
        changed = [name for name in sorted({*before, *about}) if before.get(name) != about.get(name)]
        raise ValueError(f"{folder} holds a run of another source ({', '.join(changed)} changed since): put it back as "
                         "it was, or start over in another folder with --out")
