"""A diffusers scheduler that runs a preset: the core's rows, asked and answered the way diffusers pipelines do it.

    pipe.scheduler = S4SScheduler.from_preset(load("my.safetensors"), pipe.scheduler.config)
    pipe(prompt, num_inference_steps=6)

num_inference_steps chooses the table. Text-to-image only: a table is learned for its whole run.
"""

import numpy as np
import torch
from diffusers import EulerDiscreteScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteSchedulerOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from ..core import Preset, Table
from ..core.levels import starts_at
from ..core.table import PARTS

_BETAS = ("beta_start", "beta_end", "beta_schedule", "trained_betas", "num_train_timesteps", "rescale_betas_zero_snr")
_STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_PREDICTIONS = {"eps": "epsilon", "v": "v_prediction", "flow": "flow_prediction", "x0": "sample"}


class S4SScheduler(SchedulerMixin, ConfigMixin):
    """Tables of a preset behind diffusers' set_timesteps, scale_model_input and step.

    States are x0 + sigma noise (flow: (1-s) x0 + s noise), as in EulerDiscreteScheduler. Make one with `from_preset`.
    tables: {calls: {"sigmas", "query", "scale", "carry", "weights"}} as lists. The other arguments are diffusers'; the
    betas give the network's clock and must be the model's.
    """

    order = 1

    @register_to_config
    def __init__(self, tables: dict | None = None, prediction_type: str = "epsilon", preset: str = "",
                 num_train_timesteps: int = 1000, beta_start: float = 0.00085, beta_end: float = 0.012,
                 beta_schedule: str = "scaled_linear", trained_betas: list | None = None,
                 rescale_betas_zero_snr: bool = False):
        if prediction_type not in _PREDICTIONS.values():
            raise ValueError(f"prediction_type is {prediction_type!r}: use one of {', '.join(_PREDICTIONS.values())}")
        if not tables:
            raise ValueError("a scheduler without tables: make it with S4SScheduler.from_preset(preset)")
        self._tables = {int(calls): Table(**{part: np.asarray(values) for part, values in table.items()},
                                           keeps_constants=False) for calls, table in tables.items()}
        self._levels = None if self._flow else _levels({key: self.config[key] for key in _BETAS})
        self.set_timesteps(max(self._tables))

    @classmethod
    def from_preset(cls, preset: Preset, like=None) -> "S4SScheduler":
        """The scheduler for a preset.

        Args:
            preset: the preset.
            like: the config of the pipeline's own scheduler, whose betas it copies.

        Raises ValueError if the model's levels are not those the preset is for.
        """
        betas = {key: like[key] for key in _BETAS if like is not None and key in like} or _STABLE_DIFFUSION
        if preset.model.flow:
            betas = {key: betas[key] for key in betas if key == "num_train_timesteps"}
            for calls in preset.counts:     # diffusers' flows start from plain noise and show the state as it is
                table = preset.table(calls)
                if not starts_at(table.sigmas[0], 1.0) or not np.allclose(table.scale, 1.0):
                    raise ValueError(f"preset {preset.name!r}, {calls} calls, starts at level {table.sigmas[0]:g} or "
                                     "scales what the network is shown: diffusers' flow pipelines cannot do that")
        elif not starts_at(preset.model.sigma_max, top := float(_levels(betas)[-1])):
            raise ValueError(f"preset {preset.name!r} is for levels up to {preset.model.sigma_max:.4g}, these betas "
                             f"make {top:.4g}: give the config of the pipeline's own scheduler, or another preset")
        tables = {str(calls): {part: getattr(preset.table(calls), part).tolist() for part in PARTS}
                  for calls in preset.counts}
        return cls(tables, _PREDICTIONS[preset.model.prediction], f"{preset.name} ({preset.short_hash})", **betas)

    @property
    def init_noise_sigma(self) -> float:
        """The deviation of the start; pipelines multiply their noise by it."""
        return self._rows[0].sigma

    @property
    def _flow(self) -> bool:
        return self.config.prediction_type == "flow_prediction"

    def set_timesteps(self, num_inference_steps: int | None = None, device=None, sigmas=None, mu=None) -> None:
        """Choose the table with this many calls. Raises ValueError with the numbers of calls there are.

        Args:
            num_inference_steps: the number of calls; None: one for each of `sigmas`.
            device: of the timesteps.
            sigmas: the levels that Flux's pipeline offers; only their number counts.
            mu: ignored, as a table has its own levels.
        """
        del mu
        num_inference_steps = len(sigmas) if num_inference_steps is None else num_inference_steps
        if num_inference_steps not in self._tables:
            raise ValueError(f"{self.config.preset or 'the preset'} has no table for {num_inference_steps} calls; it "
                             f"has {sorted(self._tables)}: choose one of these as num_inference_steps")
        table = self._tables[num_inference_steps]
        self.num_inference_steps, self._rows = num_inference_steps, table.rows
        self.sigmas = torch.tensor(table.sigmas, dtype=torch.float32)
        # the network's clock: a flow's are its levels, others lie between the trained ones
        clock = table.query * self.config.num_train_timesteps if self._flow else np.interp(
            np.log(table.query), np.log(self._levels), np.arange(len(self._levels)))
        self.timesteps = torch.tensor(clock, dtype=torch.float32, device=device)
        self._call, self._history = 0, {}

    def scale_model_input(self, sample: Tensor, timestep=None) -> Tensor:
        """What the network is shown: the row's factor, and for a VP network 1 / sqrt(1 + sigma^2)."""
        row = self._rows[self._call]
        return sample * (row.scale if self._flow else row.scale / (1 + row.query ** 2) ** 0.5)

    def step(self, model_output: Tensor, timestep, sample: Tensor, return_dict: bool = True, **kwargs):
        """One row of the table. Raises ValueError when calls come out of order."""
        row = self._rows[self._call]
        wanted = float(self.timesteps[self._call])
        if abs(float(timestep) - wanted) > 1e-2:
            raise ValueError(f"call {self._call + 1} of {self.num_inference_steps} has timestep "
                             f"{float(timestep):.6g}, the table asks at {wanted:.6g}: a table runs from its first call "
                             "to its last, so image-to-image is not possible")
        self._history[self._call] = denoised = self._denoised(model_output, sample * row.scale, row.query)
        x = sample * row.carry + sum(self._history[call] * weight for call, weight in row.terms)
        for call in row.done:
            del self._history[call]
        self._call = (self._call + 1) % len(self._rows)
        return EulerDiscreteSchedulerOutput(x, denoised) if return_dict else (x,)

    def _denoised(self, output: Tensor, shown: Tensor, sigma: float) -> Tensor:
        """The picture the network's answer means, when shown a state (unscaled) and told sigma."""
        kind = self.config.prediction_type
        if kind == "sample":
            return output
        if kind == "v_prediction":
            return shown / (sigma ** 2 + 1) - output * (sigma / (sigma ** 2 + 1) ** 0.5)
        return shown - sigma * output

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Pipelines call it with 0; a table cannot begin elsewhere."""
        if begin_index:
            raise ValueError(f"asked to begin at call {begin_index}: a table runs from its first call")

    def __len__(self) -> int:
        return self.config.num_train_timesteps


def _levels(betas: dict) -> np.ndarray:
    kept = EulerDiscreteScheduler(**betas).alphas_cumprod.double().numpy()
    return np.sqrt((1 - kept) / kept)
