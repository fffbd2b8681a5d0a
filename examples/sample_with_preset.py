"""Sample the bundled digits model with a preset, and compare it with DPM++ 2M Karras at the same six calls."""

from pathlib import Path

import torch

from s4s import bundled, load, sample
from s4s.s4s_nodes.core import classical, schedules

PRESET = Path(__file__).parents[1] / "solver_presets" / "digits-eps-cfg3.safetensors"
model = bundled("digits-eps", cfg=3.0)                  # model.denoiser: (x, sigma (B,), **extra) -> denoised
noise = torch.randn(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
digits = {"label": torch.arange(10)}                    # passed to every call of the denoiser


@torch.no_grad()
def images(table):
    """The ten digits that a table makes of the noise."""
    return sample(model.denoiser, noise * float(table.sigmas[0]), table, digits)


def karras(calls):
    return schedules.karras(calls, model.levels[0], model.levels[-1])


teacher = images(classical.SOLVERS["dpmpp_3m"](karras(50)))
tables = {"S4S": load(PRESET).table(calls=6), "DPM++ 2M Karras": classical.SOLVERS["dpmpp_2m"](karras(6))}
for name, table in tables.items():
    error = (images(table) - teacher).square().mean().sqrt()
    print(f"{name}: RMSE {error:.4f} to a teacher of 50 calls")
