"""What the official workflow of each family of models runs: the fallback if no preset does.

The deterministic sampler and the schedule of ComfyUI's workflow templates (package 0.11.44, November 2026); the shift
is the one the model brings, which the templates set by a node. Of SD 1.x, SD 2.x and SDXL the templates have euler on
normal, which was measured to be worse than what S4S runs for any model (`dispatch.FALLBACK`), so they are not here.
"Open": the lowest level above 0 is left out, as the hosts do for uni_pc.
"""

from collections.abc import Callable

import numpy as np

from ..core import schedules

OFFICIAL = {                # family: (a solver of `classical.SOLVERS`, what the template calls its schedule)
    **dict.fromkeys((
        "acestep", "acestep15", "anima", "ernieimage", "flux", "fluxschnell", "hunyuanimage21", "hunyuanvideo",
        "hunyuanvideo15", "kandinsky5image", "krea2", "lens", "longcatimage", "mageflow", "minimaxmusic3", "omnigen2",
        "qwenimage"), ("euler", "simple")),     # anima's preview has er_sde, which is stochastic, and
    "boogu": ("dpmpp_2m", "simple"),            # hunyuanimage21 no template: HunyuanVideo's
    "chroma": ("euler", "beta"),
    "flux2": ("euler", "flux2"),
    "hidream": ("unipc_bh1_sigma", "simple, open"),     # full; dev and fast have lcm, which is stochastic
    "ltxav": ("euler", "ltxv"), "ltxv": ("euler", "ltxv"),
    **dict.fromkeys(("lumina2", "minimaxh3", "zimage"), ("res_multistep", "simple")),
    "sd3": ("euler", "sgm_uniform"),
    "wan21": ("unipc_bh1_sigma", "simple, open"),
    "wan22": ("unipc_bh1_sigma", "simple, open"),
    **dict.fromkeys(("wan21, 14b", "wan22, 14b"), ("euler", "simple")),
}
_EXPERTS, _EXPERTS_WIDTH = ("wan21_t2v", "wan21_funcontrol2v", "wan22_camera"), 5120    # of Wan 2.2's: the hosts' names
_LEVELS: dict[str, Callable] = {                                # (steps, shift) -> levels; else even, shifted
    "beta": lambda steps, shift: schedules.beta(steps, schedules.flow_levels(shift)),
    "flux2": lambda steps, shift: schedules.flux2(steps),
    "ltxv": lambda steps, shift: schedules.ltxv(steps),
    "simple, open": lambda steps, shift: np.delete(schedules.linear_flow(steps + 1, shift), -2),
}


def family_of(config) -> str:
    """A host's name for the architecture without what it is for: WAN21_I2V and WAN21_T2V are both "wan21".

    The two experts of Wan 2.2 are "wan21, 14b" (or wan22), and so is Wan 2.1's text to video network of that width,
    which looks the same. Forge keeps Flux schnell's configuration for Chroma, under another repository.
    """
    known, name = vars(config), type(config).__name__.lower()
    if known.get("huggingface_repo") == "Chroma":
        return "chroma"
    width = (known.get("unet_config") or {}).get("dim")
    base = name if name.startswith("stable_") else name.split("_")[0]
    return f"{base}, 14b" if name in _EXPERTS and width == _EXPERTS_WIDTH else base


def base_of(family: str) -> str:
    """The family whose published numbers a variant also runs: "wan21" for "wan21, 14b"."""
    return family.partition(",")[0]


def official(family: str) -> tuple[str, str]:
    """(solver, schedule) of OFFICIAL; empty for a family that has none."""
    return OFFICIAL.get(family, ("", ""))


def flow_schedule(family: str, steps: int, shift: float) -> np.ndarray:
    """A flow's schedule without a preset, (steps + 1,) from 1 to 0: its family's, else even with its shift.

    The hosts' simple, normal and sgm_uniform are even to within one of the model's 1000 levels.
    """
    try:
        return _LEVELS.get(official(family)[1], schedules.linear_flow)(steps, shift)
    except ValueError:                      # beta cannot place so many steps
        return schedules.linear_flow(steps, shift)
