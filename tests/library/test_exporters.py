"""Exports: what other programs get is what the core's loop does. Diffusers pipelines with tiny random networks."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from s4s.s4s_nodes import exporters
from s4s.s4s_nodes.core import Model, Preset, Table, classical, preset_file, sample, schedules
from tests.k_diffusion_real import import_torchvision

ROOT = Path(__file__).parents[2]
LEVELS = schedules.sd_levels()


def eps_preset(prediction="eps", calls=(4, 6), **model):
    """Tables with everything in them: history, queries off the levels, scales."""
    tables = {}
    for count in calls:
        table = classical.unipc(schedules.karras(count, 0.1, float(LEVELS[-1])), order=3)
        query = table.query * np.linspace(1.0, 0.95, count)
        tables[f"calls{count}"] = Table(table.sigmas, query, np.sqrt(1 + query ** 2) / np.sqrt(1 + table.query ** 2),
                                         table.carry, table.weights)
    return Preset("tiny", tables, Model("sd15", prediction, float(LEVELS[0]), float(LEVELS[-1]), **model))


def flow_preset(calls=(5,)):
    tables = {f"calls{n}": classical.SOLVERS["lms_3"](schedules.linear_flow(n, 3.0), True) for n in calls}
    return Preset("tiny-flow", tables, Model("flux", "flow", 0.001, 1.0))


# ---------------------------------------------------------------------------- text

def test_levels_as_text_are_the_tables():
    made = eps_preset()
    for calls in made.counts:
        read = [float(part) for part in exporters.sigmas_text(made, calls).split(", ")]
        np.testing.assert_allclose(read, made.table(calls).sigmas, rtol=1e-8)
        assert read[-1] == 0
    with pytest.raises(preset_file.PresetError, match="no table for 5 calls"):
        exporters.sigmas_text(made, 5)


def test_json_holds_every_number():
    made = eps_preset()
    whole = json.loads(exporters.json_text(made))
    assert whole["tables"]["calls6"]["weights"] == made.table(6).weights.tolist() and whole["hash"] == made.short_hash


def test_exporting_text_needs_no_diffusers():
    code = ("import sys; sys.modules['diffusers'] = None; from s4s.s4s_nodes import exporters, published; "
            "print(exporters.sigmas_text(published.make('ays-sd15'), 10))")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("14.6146412")


# ---------------------------------------------------------------------------- the scheduler

@pytest.fixture(scope="module")
def scheduler_class():
    pytest.importorskip("diffusers")
    import_torchvision()
    from s4s.s4s_nodes.exporters.scheduler import S4SScheduler
    return S4SScheduler


def denoiser_of(network, prediction, levels):
    """k-diffusion's wrapper around a VP network of diffusers; levels are diffusers' own, betas in float32."""
    def denoised(x, sigma):
        s = sigma.reshape(-1, *[1] * (x.ndim - 1))
        t = np.interp(np.log(sigma.double().numpy()), np.log(levels), np.arange(1000))
        answer = network(x / (1 + s ** 2).sqrt(), torch.tensor(t, dtype=torch.float32))
        return {"eps": x - s * answer, "x0": answer,
                "v": x / (1 + s ** 2) - answer * s / (1 + s ** 2).sqrt()}[prediction]
    return denoised


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("calls", [4, 6])
def test_a_pipeline_with_the_scheduler_makes_the_image_of_our_loop(prediction, calls, scheduler_class):
    from diffusers import ConsistencyModelPipeline, UNet2DModel
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 8), norm_num_groups=4,
                       down_block_types=("DownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "UpBlock2D")).double()
    made = eps_preset(prediction)
    pipe = ConsistencyModelPipeline(unet, scheduler_class.from_preset(made))
    pipe.set_progress_bar_config(disable=True)
    start = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    table, states = made.table(calls), []
    image = pipe(batch_size=2, num_inference_steps=calls, generator=torch.Generator().manual_seed(1), output_type="pt",
                 return_dict=False, callback=lambda i, t, x: states.append(x))[0]
    denoiser = denoiser_of(lambda x, t: unet(x, t).sample, prediction, pipe.scheduler._levels)
    with torch.no_grad():
        ours = sample(denoiser, start * float(table.sigmas[0]), table)
    assert len(states) == calls and 0.1 < ours.std() < 20
    torch.testing.assert_close(states[-1], ours, rtol=0, atol=1e-9)
    torch.testing.assert_close(image, (ours / 2 + 0.5).clamp(0, 1), rtol=0, atol=1e-9)


def test_a_flow_pipeline_with_the_scheduler_makes_the_image_of_our_loop(scheduler_class):
    """diffusers' flow pipelines: plain noise, the state as it is, timestep / 1000, sigmas= with the steps."""
    torch.manual_seed(0)
    mix = torch.randn(4, 4) / 3
    made = flow_preset()
    scheduler = scheduler_class.from_preset(made, {"num_train_timesteps": 1000, "shift": 3.0})

    def velocity(x, s):
        return torch.tanh(x @ mix) * (1 + s.reshape(-1, 1))
    x = start = torch.randn(3, 4)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 5, 5), device="cpu", mu=1.15)
    scheduler.set_begin_index(0)
    for t in scheduler.timesteps:
        x = scheduler.step(velocity(x, (t / 1000).expand(3)), t, x, return_dict=False)[0]
    ours = sample(lambda x, s: x - s[:, None] * velocity(x, s), start, made.table(5))
    torch.testing.assert_close(x, ours, rtol=0, atol=1e-5)


def test_a_saved_scheduler_is_the_same_scheduler(scheduler_class, tmp_path):
    made = eps_preset()
    scheduler_class.from_preset(made).save_config(tmp_path / "scheduler")
    again, first = scheduler_class.from_pretrained(tmp_path / "scheduler"), scheduler_class.from_preset(made)
    for calls in (4, 6):
        again.set_timesteps(calls)
        first.set_timesteps(calls)
        assert torch.equal(again.timesteps, first.timesteps) and torch.equal(again.sigmas, first.sigmas)
        assert again._rows == first._rows
    assert made.short_hash in again.config.preset


def test_the_schedulers_clock_is_eulers_of_diffusers(scheduler_class):
    from diffusers import EulerDiscreteScheduler
    theirs = EulerDiscreteScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                                    timestep_spacing="linspace")
    theirs.set_timesteps(6)
    table = classical.euler(theirs.sigmas.double().numpy())
    ours = scheduler_class.from_preset(Preset("e", {"calls6": table}, eps_preset().model), theirs.config)
    torch.testing.assert_close(ours.timesteps, theirs.timesteps, atol=2e-3, rtol=0)
    x = torch.randn(1, 4, 8, 8) * theirs.init_noise_sigma
    mine = his = x
    for t, u in zip(ours.timesteps, theirs.timesteps):
        torch.testing.assert_close(ours.scale_model_input(mine, t), theirs.scale_model_input(his, u))
        mine, his = ours.step(mine.sin(), t, mine).prev_sample, theirs.step(his.sin(), u, his).prev_sample
    torch.testing.assert_close(mine, his, rtol=1e-5, atol=1e-5)


def test_the_scheduler_refuses_what_a_table_cannot_do(scheduler_class):
    made = eps_preset()
    scheduler = scheduler_class.from_preset(made)
    with pytest.raises(ValueError, match=r"no table for 20 calls; it has \[4, 6\]"):
        scheduler.set_timesteps(20)
    scheduler.set_timesteps(4)
    x = torch.zeros(1, 4, 2, 2)
    with pytest.raises(ValueError, match="image-to-image is not possible"):
        scheduler.step(x, scheduler.timesteps[2], x)
    with pytest.raises(ValueError, match="asked to begin at call 2"):
        scheduler.set_begin_index(2)
    with pytest.raises(ValueError, match="for levels up to 14.61, these betas make"):
        scheduler_class.from_preset(made, {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"})
    with pytest.raises(ValueError, match="diffusers' flow pipelines cannot do that"):
        scheduler_class.from_preset(Preset("late", {"calls2": classical.euler(np.array([0.8, 0.4, 0.0]), True)},
                                           flow_preset().model))
    with pytest.raises(ValueError, match="without tables"):
        scheduler_class()


def test_a_preset_trained_here_runs_in_diffusers(scheduler_class):
    """The shipped preset of a bundled model: its levels are Stable Diffusion's."""
    made = preset_file.load(ROOT / "solver_presets" / "digits-eps-cfg3.safetensors")
    scheduler = scheduler_class.from_preset(made)
    assert sorted(scheduler._tables) == made.counts and len(scheduler) == 1000


def test_stable_diffusions_pipeline_makes_the_latent_of_our_loop(scheduler_class):
    """With guidance; tiny random networks."""
    pytest.importorskip("transformers")
    from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
    torch.manual_seed(0)
    unet = UNet2DConditionModel(sample_size=8, block_out_channels=(8, 16), layers_per_block=1, cross_attention_dim=8,
                                attention_head_dim=2, norm_num_groups=4,
                                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D")).double()
    vae = AutoencoderKL(block_out_channels=(4, 4), norm_num_groups=2, latent_channels=4,
                        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2).double()
    made = eps_preset()
    pipe = StableDiffusionPipeline(vae, None, None, unet, scheduler_class.from_preset(made), None, None,
                                   requires_safety_checker=False)
    pipe.set_progress_bar_config(disable=True)
    prompt, negative, noise = (torch.randn(*shape).double() for shape in ((1, 5, 8), (1, 5, 8), (1, 4, 8, 8)))
    theirs = pipe(prompt_embeds=prompt, negative_prompt_embeds=negative, latents=noise, guidance_scale=3.0,
                  num_inference_steps=6, output_type="latent").images

    def guided(x, t):
        without, with_prompt = (unet(x, t, encoder_hidden_states=each).sample for each in (negative, prompt))
        return without + 3.0 * (with_prompt - without)
    table = made.table(6)
    with torch.no_grad():
        ours = sample(denoiser_of(guided, "eps", pipe.scheduler._levels), noise * float(table.sigmas[0]), table)
    torch.testing.assert_close(theirs, ours, rtol=1e-7, atol=1e-7)


def test_fluxs_pipeline_makes_the_latent_of_our_loop(scheduler_class):
    pytest.importorskip("transformers")
    from diffusers import AutoencoderKL, FluxPipeline, FluxTransformer2DModel
    torch.manual_seed(0)
    network = FluxTransformer2DModel(patch_size=1, in_channels=4, num_layers=1, num_single_layers=1,
                                     attention_head_dim=16, num_attention_heads=2, joint_attention_dim=8,
                                     pooled_projection_dim=8, axes_dims_rope=[4, 4, 8])
    vae = AutoencoderKL(block_out_channels=(4,), norm_num_groups=2, latent_channels=1, shift_factor=0.0)
    made = flow_preset()
    pipe = FluxPipeline(scheduler_class.from_preset(made, {"num_train_timesteps": 1000}), vae, None, None, None, None,
                        network)
    pipe.set_progress_bar_config(disable=True)
    prompt, pooled, noise = torch.randn(1, 5, 8), torch.randn(1, 8), torch.randn(1, 16, 4)
    theirs = pipe(prompt_embeds=prompt, pooled_prompt_embeds=pooled, latents=noise, height=8, width=8,
                  num_inference_steps=5, output_type="latent").images
    ids = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)

    def denoised(x, s):
        velocity = network(x, encoder_hidden_states=prompt, pooled_projections=pooled, timestep=s, img_ids=ids,
                           txt_ids=torch.zeros(5, 3)).sample
        return x - s[:, None, None] * velocity
    with torch.no_grad():
        ours = sample(denoised, noise, made.table(5))
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
