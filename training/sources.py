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
