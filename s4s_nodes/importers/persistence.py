"""Objects that were saved together with their source (NVIDIA's torch_utils.persistence); the source stays text here."""

from __future__ import annotations

from .limits import shown
from .restricted import Stub


def class_of(value) -> str | None:
    """The class such an object was of."""
    name = _meta(value).get("class_name")
    return name if isinstance(name, str) else None


def state_of(value) -> dict:
    """Its attributes; {} for anything else."""
    state = _meta(value).get("state")
    return state if isinstance(state, dict) else {}


def record_of(state: dict, dataset) -> dict:
    """What a predictor of diff-sampler's family says of how it was learned."""
    record = {"learned_on": shown(dataset, 60), "analytic_first_step": bool(state.get("afs"))}
    if isinstance(state.get("guidance_rate"), float) and 1 < state["guidance_rate"] < 1000:
        record["cfg"] = state["guidance_rate"]
    return record


def _meta(value) -> dict:
    known = isinstance(value, Stub) and value.what.endswith("persistence._reconstruct_persistent_obj") and value.args
    return value.args[0] if known and isinstance(value.args[0], dict) else {}
