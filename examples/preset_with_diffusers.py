"""Use a preset as a diffusers scheduler. With a pipeline it takes two lines:

    pipe.scheduler = S4SScheduler.from_preset(load("my-preset.safetensors"), pipe.scheduler.config)
    image = pipe("a lighthouse at dusk", num_inference_steps=6, guidance_scale=7).images[0]
"""

from pathlib import Path

import torch

from s4s import bundled, load, sample
from s4s.s4s_nodes.core.schedules import level_at
from s4s.s4s_nodes.exporters.scheduler import S4SScheduler

preset = load(Path(__file__).parents[1] / "solver_presets" / "digits-eps-cfg3.safetensors")
model, digits = bundled("digits-eps", cfg=3.0), {"label": torch.arange(10)}
scheduler = S4SScheduler.from_preset(preset)
scheduler.set_timesteps(6)                              # chooses the table of six calls
x = start = torch.randn(10, 1, 28, 28) * scheduler.init_noise_sigma
with torch.no_grad():
    for t in scheduler.timesteps:                       # what a pipeline does, with the demo model as its UNet
        sigma = float(level_at(model.levels, float(t)))
        state = scheduler.scale_model_input(x, t) * (1 + sigma ** 2) ** 0.5
        denoised = model.denoiser(state, torch.full((10,), sigma), **digits)
        x = scheduler.step((state - denoised) / sigma, t, x).prev_sample
    same = sample(model.denoiser, start, preset.table(calls=6), digits)
print(f"largest difference to s4s.sample: {(x - same).abs().max():.1e}")
