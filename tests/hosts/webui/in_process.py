"""A host's own modules in this process, without a checkpoint: its samplers on a Gaussian's exact denoiser.

Real are the registry, KDiffusionSampler with its slices, CFGDenoiser and the predictors or wrappers with their
levels; only the network behind them is replaced, and with it the parsing of prompts.
"""

import inspect
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import s4s_webui_host as hosts
import torch

MEAN, DEVIATION = 0.3, 0.6
CHECKPOINT = SimpleNamespace(shorthash="0123456789", name_for_extra="toy", filename=None)     # as the presets say


def start(data: Path) -> None:
    """Import the host as its launch.py would, and our script as its loader does. Once a process."""
    import_host(data)
    load_script(data)


def import_host(data: Path) -> None:
    from start import import_torchvision
    import_torchvision()
    os.chdir(hosts.folder())
    sys.argv = ["launch.py", *hosts.quiet(), *hosts.on_cpu(), "--data-dir", str(data)]
    sys.path.insert(0, str(hosts.folder()))
    if hosts.kind() != "a1111":
        from modules_forge.initialization import initialize_forge
        initialize_forge()
    from modules import initialize
    initialize.imports()


def load_script(data: Path):
    """Execute our script as the host does; the module it makes."""
    from modules import script_loading, scripts
    clone = data / "extensions" / hosts.CLONE
    scripts.current_basedir = str(clone)
    return script_loading.load_module(str(clone / "scripts" / "s4s_webui.py"))


def gaussian(x, sigma, flow: bool):
    """The exact denoiser of N(MEAN, DEVIATION^2)."""
    level = sigma.view(-1, 1, 1, 1)
    kept = 1 - level if flow else 1.0
    gain = kept * DEVIATION ** 2 / (kept ** 2 * DEVIATION ** 2 + level ** 2)
    return MEAN + gain * (x - kept * MEAN)


class Model:
    """A loaded checkpoint as the host shows it, its network replaced; it counts its calls."""

    def __init__(self, monkeypatch, prediction: str):
        self.prediction, self.flow, self.calls, self.press = prediction, prediction in ("sd3", "flux"), 0, None
        self.shown = {"forge": self._forge, "a1111": self._a1111, "reforge": self._reforge}[hosts.kind()](monkeypatch)
        from modules import prompt_parser, sd_models
        monkeypatch.setattr(sd_models.model_data, "sd_model", self.shown)
        monkeypatch.setattr(sd_models.model_data, "was_loaded_at_least_once", True, raising=False)
        monkeypatch.setattr(prompt_parser, "reconstruct_multicond_batch", lambda cond, step: (
            [[(i, 1.0)] for i in range(len(cond))], cond))
        monkeypatch.setattr(prompt_parser, "reconstruct_cond_batch", lambda cond, step: cond)

    def denoiser(self, x, sigma):
        if self.press is not None and self.calls == self.press[0]:
            self.press[1]()
        self.calls += 1
        return gaussian(x, sigma, self.flow)

    def _forge(self, monkeypatch):
        from backend.modules import k_prediction
        from modules import sd_samplers_cfg_denoiser, sd_samplers_kdiffusion
        predictor = {"eps": lambda: k_prediction.Prediction(prediction_type="epsilon"),
                     "v": lambda: k_prediction.Prediction(prediction_type="v_prediction"),
                     "sd3": lambda: _discrete_flow(k_prediction.PredictionDiscreteFlow),
                     "flux": lambda: k_prediction.PredictionFlux(mu=1.15)}[self.prediction]()
        for name in ("sampling_prepare", "sampling_cleanup"):
            monkeypatch.setattr(sd_samplers_kdiffusion, name, lambda *_, **__: None)

        def answer(denoiser, denoiser_params, **more):
            return (self.denoiser(denoiser_params.x, denoiser_params.sigma),) * 3
        monkeypatch.setattr(sd_samplers_cfg_denoiser, "sampling_function", answer)
        unet = SimpleNamespace(model=SimpleNamespace(predictor=predictor))
        return SimpleNamespace(is_sdxl=False, is_inpaint=False, sd_checkpoint_info=CHECKPOINT,
                               forge_objects=SimpleNamespace(unet=unet),
                               is_sd1=self.prediction == "eps", is_sd3=self.prediction == "sd3")

    def _a1111(self, monkeypatch):
        levels, model = self._latent_diffusion(), None

        def apply_model(x, level, cond=None):
            """What the real network is asked for: eps or v of the scaled state, at a step of the training clock."""
            if self.flow:
                return self.denoiser(x, level)
            sigma = levels.t_to_sigma(level)
            wide, kept = sigma.view(-1, 1, 1, 1), (sigma.view(-1, 1, 1, 1) ** 2 + 1).sqrt()
            state = x * kept
            clean = self.denoiser(state, sigma)
            return (state - clean) / wide if self.prediction == "eps" else (state / kept - clean * kept) / wide
        model = self._named(alphas_cumprod=1 / (levels.sigmas ** 2 + 1), apply_model=apply_model)
        if self.flow:
            from modules.models.sd3 import sd3_impls, sd3_model
            sampling = sd3_impls.ModelSamplingDiscreteFlow(shift=3.0)
            model.shift, model.create_denoiser = 3, lambda: sd3_model.SD3Denoiser(model, sampling.sigmas)
            model.add_noise_to_latent = lambda x, noise, amount: x * (1 - amount) + noise * amount
        return model

    def _reforge(self, monkeypatch):
        from modules import sd_samplers_cfg_denoiser, sd_samplers_kdiffusion
        for name in ("sampling_prepare", "sampling_cleanup"):
            monkeypatch.setattr(sd_samplers_kdiffusion, name, lambda *_, **__: None)
        for name in ("cond_from_a1111_to_patched_ldm", "cond_from_a1111_to_patched_ldm_weighted"):
            monkeypatch.setattr(sd_samplers_cfg_denoiser.forge_sampler, name, lambda *_: [])
        asks = sd_samplers_cfg_denoiser
        monkeypatch.setattr(asks if hasattr(asks, "sampling_function") else asks.forge_sampler, "sampling_function",
                            lambda model, x, sigma, *_: self.denoiser(x, sigma))
        sigmas = self._latent_diffusion().sigmas
        network = SimpleNamespace(model_sampling=SimpleNamespace(sigma=lambda steps: sigmas[steps]))
        unet = SimpleNamespace(model=network, controlnet_linked_list=None, extra_concat_condition=None,
                               model_options={})
        return self._named(alphas_cumprod=1 / (sigmas ** 2 + 1),
                           forge_objects=SimpleNamespace(unet=unet))

    def _named(self, **more):
        return SimpleNamespace(
            is_sdxl=False, is_sd1=self.prediction == "eps", is_sd3=self.flow, sd_checkpoint_info=CHECKPOINT,
            cond_stage_key="txt", device=torch.device("cpu"), model=SimpleNamespace(conditioning_key="crossattn"),
            parameterization="v" if self.prediction == "v" else "eps", latent_channels=16 if self.flow else 4, **more)

    @staticmethod
    def _latent_diffusion():
        from k_diffusion.external import DiscreteSchedule

        from s4s.s4s_nodes.core import schedules
        return DiscreteSchedule(torch.from_numpy(schedules.sd_levels()).float(), quantize=False)


def _discrete_flow(predictor):
    """The predictor of SD3 with its shift; Forge Neo's reads it from a page of the checkpoint's."""
    if "model_config" in inspect.signature(predictor).parameters:
        return predictor(SimpleNamespace(sampling_settings={"shift": 3.0}))
    return predictor(shift=3.0)


class Pictures:
    """Where a host's processing draws its noise from."""

    def next(self):
        return torch.randn(2, 4, 8, 8)


def process(**changes):
    """A host's processing object, as its samplers read it."""
    plain = {
        "steps": 8, "scheduler": "Automatic", "hr_scheduler": None, "is_hr_pass": False, "enable_hr": False,
        "sampler_name": "S4S", "sampler": None, "sampler_noise_scheduler_override": None, "denoising_strength": 0.5,
        "cfg_scale": 3.0, "hr_cfg": 3.0, "image_cfg_scale": None, "s_min_uncond": 0.0, "s_churn": 0, "s_tmin": 0,
        "s_tmax": 0, "s_noise": 1, "refiner_switch_at": None, "refiner_checkpoint_info": None,
        "refiner_checkpoint": None, "rng": Pictures(),
        "eta": None, "seeds": [0, 1], "all_seeds": [0, 1], "iteration": 0, "batch_size": 2, "scripts": None,
        "comments": {}, "extra_generation_params": {}}
    made = SimpleNamespace(**{**plain, **changes})
    made.comment = lambda text: made.comments.update({text: 1})
    return made
