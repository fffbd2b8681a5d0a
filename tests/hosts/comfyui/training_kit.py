"""What the tests of training share: tiny models as a loader node gives them, prompts for them, nodes run as the host
runs them."""

import importlib

import comfy.samplers
import comfy.sd
import folder_paths
import s4s_host
import torch

SHAPES = {          # name: (prompt's width, its pooled width, latent)
    "tiny_sd15": (768, 0, (1, 4, 8, 8)), "tiny_sd3": (4096, 2048, (1, 16, 8, 8)),
    "tiny_wan": (4096, 0, (1, 16, 2, 8, 8)), "tiny_wan_low": (4096, 0, (1, 16, 2, 8, 8)),
    "tiny_flux": (64, 32, (1, 16, 8, 8)),
}


def ours(name: str):
    """A module of the pack, e.g. ours("hosts.comfyui.nodes_training"), imported as the host would."""
    return importlib.import_module(f"{s4s_host.pack('').__name__}.s4s_nodes.{name}")


def trainers(name: str):
    """A module of the trainer as the pack sees it."""
    return importlib.import_module(f"{s4s_host.pack('').__name__}.training.{name}")


def here(name: str) -> bool:
    """Whether this host could make the model (Flux is tiny only on newer ones)."""
    return path_of(name) is not None


def path_of(name: str):
    return folder_paths.get_full_path("checkpoints", f"{name}.safetensors") or folder_paths.get_full_path(
        "diffusion_models", f"{name}.safetensors")


@torch.inference_mode()
def load(name: str, **options):
    """The MODEL of a loader node, which runs under inference mode."""
    if "checkpoints" in path_of(name):
        return comfy.sd.load_checkpoint_guess_config(path_of(name), output_vae=False, output_clip=False)[0]
    return comfy.sd.load_diffusion_model(path_of(name), model_options=options)


@torch.inference_mode()
def prompt(name: str, seed: int = 0):
    """A CONDITIONING without a text encoder."""
    width, pooled, _ = SHAPES[name]
    generator = torch.Generator().manual_seed(seed)
    extra = {"pooled_output": torch.randn(1, pooled, generator=generator)} if pooled else {}
    return [[torch.randn(1, 8, width, generator=generator), extra]]


@torch.inference_mode()
def latent(name: str) -> dict:
    return {"samples": torch.zeros(SHAPES[name][2])}


@torch.inference_mode()
def sampled(model, name: str, sampler: str = "euler", scheduler: str = "normal", steps: int = 4, cfg: float = 3.0,
            seed: int = 1):
    """What the host's KSampler makes of it."""
    import nodes
    return nodes.common_ksampler(model, seed, steps, cfg, sampler, scheduler, prompt(name), prompt(name, 9),
                                 latent(name))[0]["samples"]


@torch.inference_mode()
def train(model, which: str, /, **settings):
    """(preset, report, tables, sheet, before_after) of the Train node with small settings."""
    settings = {"positive": prompt(which), "negative": prompt(which, 9), "latent": latent(which), "cfg": 3.0,
                "calls": "4", "windows": "1.0", "mode": "forward-only", "budget": 4000, "teacher_calls": 24,
                "race_seeds": 4, "name": "tested", "seed": 0, "resume": False, **settings}
    return ours("hosts.comfyui.nodes_training").S4STrainPreset.execute(model=model, **settings).args


def state_of(model) -> tuple:
    """Everything of a MODEL that a training must leave as it was: weights bit by bit, options, patches."""
    weights = {key: value.clone() for key, value in model.model.state_dict().items()}
    return weights, repr(model.model_options), dict(model.patches), dict(model.object_patches)


def same_state(before: tuple, after: tuple) -> bool:
    weights = before[0].keys() == after[0].keys() and all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    return weights and before[1:] == after[1:]
