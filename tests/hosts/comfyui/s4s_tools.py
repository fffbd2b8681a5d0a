"""What the tests in a host's process share: tiny models, conditioning, latents, presets for them, one way to sample."""

import importlib
from dataclasses import dataclass

import s4s_host
import torch


@dataclass(frozen=True)
class Kind:
    """A tiny model: where its file lies, the shape of one latent, and the width of its conditioning."""

    file: str
    shape: tuple
    width: int
    pooled: int = 0


KINDS = {"sd15": Kind("checkpoints/tiny_sd15", (4, 8, 8), 768),
         "sd3": Kind("checkpoints/tiny_sd3", (16, 8, 8), 4096, 2048),
         "wan": Kind("diffusion_models/tiny_wan", (16, 2, 8, 8), 4096),
         "flux": Kind("diffusion_models/tiny_flux", (16, 8, 8), 64, 32)}


FAMILIES = ["sd15", "v", "sd3", "wan", "flux"]          # what the fixture `models` knows


def kind(name: str) -> str:
    """The tiny model behind one of FAMILIES: v is sd15, patched."""
    return "sd15" if name == "v" else name


def load(base, name: str, **options):
    """A fresh MODEL of this kind through the host's own loader, as its nodes load it: under inference mode."""
    import comfy.sd
    path = str(base / "models" / f"{KINDS[name].file}.safetensors")
    with torch.inference_mode():
        if path.endswith(("tiny_sd15.safetensors", "tiny_sd3.safetensors")):
            return comfy.sd.load_checkpoint_guess_config(path, model_options=options)[0]
        return comfy.sd.load_diffusion_model(path, model_options=options)


def v_prediction(model, zsnr: bool = False):
    """The model with the host's own ModelSamplingDiscrete patch to v-prediction."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete
    return ModelSamplingDiscrete().patch(model, "v_prediction", zsnr)[0]


def through(model, module: str, name: str, **inputs):
    """The MODEL that a node of the host's gives out."""
    node = getattr(importlib.import_module(module), name)
    if hasattr(node, "define_schema"):
        made = node.execute(model, **inputs)
        return getattr(made, "args", made)[0]
    return node().patch(model, **inputs)[0]


def conditioning(name: str, seed: int = 0, tokens: int = 8) -> list:
    """CONDITIONING of random tokens for this kind of model."""
    generator = torch.Generator().manual_seed(seed)
    kind = KINDS[name]
    extra = {"pooled_output": torch.randn(1, kind.pooled, generator=generator)} if kind.pooled else {}
    return [[torch.randn(1, tokens, kind.width, generator=generator), extra]]


def empty(name: str, batch: int = 1) -> torch.Tensor:
    """The latent of an Empty Latent node."""
    return torch.zeros(batch, *KINDS[name].shape)


def picture(name: str, batch: int = 1, seed: int = 5) -> torch.Tensor:
    """A random latent to start from, as VAE Encode would give one."""
    return torch.randn(batch, *KINDS[name].shape, generator=torch.Generator().manual_seed(seed))


def core():
    """The clone's s4s_nodes.core, as the host imported it."""
    return s4s_host.pack("s4s_nodes.core")


def facts(model):
    """The library's ModelFacts of a MODEL."""
    return s4s_host.pack("s4s_nodes.hosts.comfyui.facts").of_model(model)


def preset_for(model, calls=(4, 6), name: str = "tiny", starts: tuple = (), family: str | None = None, **options):
    """A preset for this MODEL: DPM++ 2M on a schedule of its own, with residuals as a trainer would have found.

    It is known by the model's weights; with another family by nothing, as one of another model.

    starts adds window tables: (calls, sigma_start) each. The residuals are fixed numbers, a twentieth of a step.
    """
    import numpy as np
    seen, c = facts(model), core()
    def levels(n, top):
        if seen.flow:
            return c.schedules.linear_flow(n, 2.0) * top
        return c.schedules.karras(n, max(seen.sigma_min, 0.03), top, rho=5.0)
    tables = {f"calls{n}": moved(c.classical.SOLVERS["dpmpp_2m"](levels(n, seen.sigma_max), seen.flow)) for n in calls}
    for n, top in starts:
        tables[f"calls{n}_from{top:.4g}"] = moved(c.classical.SOLVERS["dpmpp_2m"](levels(n, top), seen.flow))
    about = c.Model(family or seen.family, seen.prediction, seen.sigma_min, seen.sigma_max, seen.zero_terminal_snr,
                    seen.shift, seen.channels, seen.fingerprint() if family in (None, seen.family) else {})
    assert np.all([table.keeps_constants for table in tables.values()])
    return c.Preset(name, tables, about, {"cfg": 3.0, "teacher": "none"}, **options)


def preset_at(model, cfg: float, name: str, **options):
    """A preset for this MODEL as if learned at one cfg: levels and residuals change with it."""
    from dataclasses import replace
    made, flow = preset_for(model, name=name, **options), facts(model).flow
    tables = {key: moved(core().classical.SOLVERS["dpmpp_2m"](
        table.sigmas[0] * (table.sigmas / table.sigmas[0]) ** (1 + cfg / 40), flow), cfg / 100)
        for key, table in made.tables.items()}
    return replace(made, tables=tables, training={"cfg": [cfg, cfg]})


def moved(table, by: float = 0.05):
    """The table with fixed residuals on its weights, the constant law kept by the newest weight of the last row."""
    import numpy as np
    c = core()
    steps = 1 - table.sigmas[1:] / table.sigmas[:-1]
    noise = np.tril(np.random.Generator(np.random.PCG64(0)).standard_normal(table.weights.shape))
    weights = table.weights + by * noise * steps[:, None]
    loose = c.Table(table.sigmas, table.query, table.scale, table.carry, weights, keeps_constants=False)
    weights[-1, -1] += 1 - c.end_response(loose)[1]
    return c.Table(table.sigmas, table.query, table.scale, table.carry, weights)


def classical_preset(model, solver: str, sigmas, flow: bool = False):
    """A preset for this MODEL whose only table is a classical solver on these levels."""
    table = core().classical.SOLVERS[solver](sigmas.double(), flow)
    return core().Preset(solver, {"table": table}, preset_for(model, calls=(4,)).model)


def preset_levels(preset, calls: int) -> torch.Tensor:
    """The levels of a preset's full table, as SIGMAS."""
    return torch.tensor(preset.table(calls).sigmas, dtype=torch.float32)


def install(base, preset):
    """Save the preset where the host looks for presets."""
    return core().preset_file.save(preset, base / "models" / "s4s_presets" / f"{preset.name}.safetensors")


def sigmas_of(model, scheduler: str, steps: int) -> torch.Tensor:
    """A scheduler's levels for this MODEL, as BasicScheduler gives them."""
    import comfy.samplers
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), scheduler, steps)


def sample(model, name: str, sampler, sigmas, latent=None, cfg: float = 3.0, mask=None, noise=None, seed: int = 0,
           callback=None, positive=None, negative=None) -> torch.Tensor:
    """One run of the host's own guider with a SAMPLER (or a sampler's name) on given levels."""
    import comfy.sample
    import comfy.samplers
    with torch.inference_mode():
        latent = empty(name) if latent is None else latent
        noise = comfy.sample.prepare_noise(latent, seed) if noise is None else noise
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive or conditioning(name, 0), negative or conditioning(name, 1))
        guider.set_cfg(cfg)
        sampler = comfy.samplers.sampler_object(sampler) if isinstance(sampler, str) else sampler
        return guider.sample(noise, latent, sampler, sigmas, denoise_mask=mask, callback=callback, seed=seed,
                             disable_pbar=True)


def with_preset(preset, strict: bool = False):
    """A SAMPLER that runs this preset."""
    import comfy.samplers
    function = s4s_host.pack("s4s_nodes.hosts.comfyui.sampler").sample_s4s
    return comfy.samplers.KSAMPLER(function, {"preset": preset, "strict": strict})


def off(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference relative to the deviation of the second."""
    return float((one - other).abs().max() / other.std())
