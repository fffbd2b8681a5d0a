"""The real ComfyUI opens the same files: its denoised images and its sketch of the weights are the trainer's."""

import subprocess

import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from s4s.training import sources
from s4s.training.checkpoints import files
from s4s.training.config import Config
from tests.checkpoints.tiny_checkpoints import folder
from tests.checkpoints.tiny_originals import of_parts, single_file
from tests.host_checkout import checkout
from tests.k_diffusion_real import import_torchvision
from tests.test_imports import ROOT

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
import_torchvision()
pytestmark = pytest.mark.host

HOST = """
import os, sys, torch
sys.path[:0] = [os.getcwd(), sys.argv[3]]
from comfy.cli_args import args
args.cpu = True
import comfy.sd, comfy.samplers
from safetensors.torch import load_file, save_file
from s4s_nodes.core.sketch import sketch
asked = load_file(sys.argv[2])
with torch.inference_mode():
    opened = comfy.sd.load_checkpoint_guess_config(sys.argv[1], output_vae=False, output_clip=False)[0]
    model = opened.model
    comfy.model_management.load_models_gpu([opened])
    extra = {"y": asked["pooled"]} if "pooled" in asked else {}
    extra |= {"guidance": asked["guidance"]} if "guidance" in asked else {}
    denoised = model.apply_model(asked["x"], asked["sigma"], c_crossattn=asked["context"], **extra).float().clone()
    seen = sketch({name: p for name, p in model.named_parameters()
                   if p.ndim == 1 and name.startswith("diffusion_model.")})
save_file({"denoised": denoised}, sys.argv[2] + ".answer",
          metadata={"family": type(model.model_config).__name__.lower(), "sketch": seen})
"""


def by_the_host(name: str, file, asked: dict, tmp_path):
    """(denoised, family, sketch) of a checkpoint opened by the real ComfyUI."""
    host, python = checkout("COMFYUI_PATH" if name == "comfyui" else "COMFYUI_NEW_PATH", name, "comfy/sd.py")
    question = tmp_path / "asked.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in asked.items()}, question)
    done = subprocess.run([python, "-c", HOST, str(file), str(question), str(ROOT)], cwd=host,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with safetensors.safe_open(f"{question}.answer", framework="pt") as found:
        about = found.metadata()
    return load_file(f"{question}.answer")["denoised"], about["family"], about["sketch"]


def asked_of(source, where: float) -> dict:
    """A question of two images, both prompts, without guidance; the timesteps are whole."""
    sigmas = source.network.clock.sigmas
    sigma = sigmas[[int(where * (len(sigmas) - 1)), int(0.5 * where * len(sigmas))]]
    x = source.noise([0, 1]) * sigma.reshape(-1, 1, 1, 1)
    context, pooled = source.network.prompts.context[:2], source.network.prompts.pooled
    return {"x": x, "sigma": sigma, "context": context, **({} if pooled is None else {"pooled": pooled[:2]})}


def opened(checkpoint, tmp_path, **settings):
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    return sources.of(Config.of(checkpoint=str(checkpoint), prompts=str(tmp_path / "prompts.txt"), width=64, cfg=1.0,
                                **settings), "cpu", lambda text: None)


def same(ours: torch.Tensor, theirs: torch.Tensor, x: torch.Tensor) -> bool:
    """Whether two denoised images are the same but for rounding, beside the noise they take away."""
    return float((ours - theirs).square().mean().sqrt()) < 1e-4 * float((theirs - x).square().mean().sqrt())


@pytest.mark.parametrize("kind", ["sd15", "sd3"])
@torch.no_grad()
def test_the_host_sees_the_same_model_in_the_same_file(kind, tmp_path):
    place = folder(kind, tmp_path / kind, host_sized=True)
    file = single_file(kind, place, tmp_path / f"{kind}.safetensors")
    source = opened(file, tmp_path, config=str(place))
    asked = asked_of(source, 0.8)
    theirs, family, seen = by_the_host("comfyui", file, asked, tmp_path)
    ours = source.denoiser(asked["x"], asked["sigma"], which=torch.tensor([0, 1]))
    assert family == source.model.family == kind
    assert seen == files.weights_sketch(files.read(file)) == source.model.hashes["weights_1d"]
    assert same(ours, theirs, asked["x"])


@torch.no_grad()
def test_flux_is_asked_as_the_host_asks_it(tmp_path):
    """Its patches, positions, clock and guidance; the trainer opens the folder, for diffusers converts no tiny file."""
    place = folder("flux", tmp_path / "flux", host_sized=True)
    file = single_file("flux", place, tmp_path / "flux.safetensors")
    source = opened(place, tmp_path, guidance=2.5)
    asked = {**asked_of(source, 0.8), "guidance": torch.tensor([2.5, 2.5])}
    theirs, family, seen = by_the_host("comfyui-new", file, asked, tmp_path)
    ours = source.denoiser(asked["x"], asked["sigma"], which=torch.tensor([0, 1]))
    assert family == source.model.family == "flux" and seen == files.weights_sketch(files.read(file))
    assert same(ours, theirs, asked["x"])


@pytest.mark.slow
@torch.no_grad()
def test_stable_diffusion_15_at_its_full_size_is_the_host_s(tmp_path):
    """Random weights, 1.07 billion, in fp16; opened with the folder that Forge has of it, tokenizer and all. 9 GB."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel
    known = "backend/huggingface/runwayml/stable-diffusion-v1-5"
    config = checkout("FORGE_PATH", "forge", f"{known}/model_index.json")[0] / known
    torch.manual_seed(0)
    parts = {"unet": UNet2DConditionModel.from_config(UNet2DConditionModel.load_config(config / "unet")),
             "vae": AutoencoderKL.from_config(AutoencoderKL.load_config(config / "vae")),
             "text_encoder": CLIPTextModel(CLIPTextConfig.from_pretrained(config / "text_encoder"))}
    tensors = {part: module.half().state_dict() for part, module in parts.items()}
    file = of_parts("sd15", tensors, tmp_path / "full.safetensors")
    parts, tensors = None, None
    source = opened(file, tmp_path, config=str(config))
    assert source.shape == (4, 8, 8) and source.network.prompts.context.shape == (3, 77, 768)
    asked = asked_of(source, 0.8)
    ours = source.denoiser(asked["x"], asked["sigma"], which=torch.tensor([0, 1]))
    seen_here, source = source.model.hashes["weights_1d"], None
    theirs, family, seen = by_the_host("comfyui", file, asked, tmp_path)
    assert family == "sd15" and seen == seen_here
    assert same(ours, theirs, asked["x"])
