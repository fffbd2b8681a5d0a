"""What is known where a schedule is asked for, which the host shows its number of steps alone.

Whoever asks is a sampler of the host. Its functions hold p, the latent x and, of an img2img or a hires pass, t_enc, the
index of the last step that runs.
"""

from __future__ import annotations

from modules import sd_samplers_common

from ..callers import callers

_CALLERS = 6                # how far up they are looked for: the host's own are 1 to 3 away


def known() -> dict:
    """{"cfg", "size", "calls"} as a Request takes them; those that cannot be known are left out."""
    held: dict = {}
    for here in callers(_CALLERS):
        if isinstance(here.get("self"), sd_samplers_common.Sampler):
            held = {**{name: here[name] for name in ("p", "x", "t_enc") if name in here}, **held}
    return {name: value for name, value in (("cfg", _cfg(held.get("p"))), ("size", _size(held.get("x"))),
                                            ("calls", _calls(held.get("t_enc")))) if value is not None}


def is_hires(p) -> bool:
    """Whether this is the second pass of a hires fix."""
    return bool(getattr(p, "is_hr_pass", False))


def _cfg(p) -> float | None:
    return (getattr(p, "hr_cfg", None) if is_hires(p) else None) or getattr(p, "cfg_scale", None)


def _size(x) -> tuple | None:
    return tuple(x.shape[-2:]) if getattr(x, "ndim", 0) > 3 else None


def _calls(t_enc) -> int | None:
    return None if t_enc is None else int(t_enc) + 1
