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
    p, x, last = (held.get(name) for name in ("p", "x", "t_enc"))
    asked = {"cfg": is_hires(p) and getattr(p, "hr_cfg", None) or getattr(p, "cfg_scale", None),
             "size": tuple(x.shape[-2:]) if getattr(x, "ndim", 0) > 3 else None,
             "calls": None if last is None else int(last) + 1}
    return {name: value for name, value in asked.items() if value is not None}


def is_hires(p) -> bool:
    """Whether this is the second pass of a hires fix."""
    return bool(getattr(p, "is_hr_pass", False))
