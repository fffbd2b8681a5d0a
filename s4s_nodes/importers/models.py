"""The models that downloaded tables were learned on, as far as their files name them."""

from __future__ import annotations

from ..core import Model, schedules
from ..core.levels import starts_at
from . import clock
from .limits import shown
from .restricted import UnreadableFile

_SD, _LDM = schedules.sd_levels(), schedules.sd_levels(*clock.LDM_BETAS)
_EDM = ("cifar10", "ffhq", "afhqv2", "imagenet64")          # Karras et al. (2022); they answer with the picture

FLUX = Model("flux", "flow", 0.001, 1.0, channels=16)
SD3 = Model("sd3", "flow", 0.001, 1.0, shift=3.0, channels=16)
SD15 = Model("sd15", "eps", float(_SD[0]), float(_SD[-1]), channels=4)
LDM = Model("ldm", "eps", float(_LDM[0]), float(_LDM[-1]))


def model_for(dataset) -> Model:
    """The model that diff-sampler's family of repositories loads for a data set. UnreadableFile if not known here."""
    if dataset in _EDM:
        return Model(f"edm-{dataset}", "x0", 0.002, 80.0, channels=3)
    if dataset == "ms_coco":
        return SD15
    if dataset in ("lsun_bedroom_ldm", "ffhq_ldm"):
        return Model(f"ldm-{dataset.removesuffix('_ldm')}", "eps", LDM.sigma_min, LDM.sigma_max, channels=3)
    raise UnreadableFile(f"was learned on {shown(dataset)!r}, a model not known here: say what model it is for")


def clock_of(model: Model) -> clock.Clock:
    """The clock of a VP model, known by its highest level. Raises ValueError for another model."""
    for known, its in ((SD15, clock.stable_diffusion), (LDM, clock.latent_diffusion)):
        if starts_at(model.sigma_max, known.sigma_max):
            return its
    if abs(model.sigma_max - 152.17) < 8:
        return clock.continuous()
    raise ValueError(f"the network time of a model with levels up to {model.sigma_max:g} is not known: known are "
                     "Stable Diffusion's (14.6), CompVis' latent diffusion's (83.8) and the linear VP process's (152)")
