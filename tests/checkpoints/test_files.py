"""Checkpoints in one file, in the layout they are published in: read, loaded, and known again by the hosts' hashes."""

import hashlib
import json
import shutil
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from s4s.s4s_nodes.core import preset_file, sketch
from s4s.s4s_nodes.library import Library, Request, select
from s4s.s4s_nodes.select.match import ModelFacts
from s4s.training import sources
from s4s.training.checkpoints import files
from s4s.training.cli.main import main
from s4s.training.config import Config
from tests.k_diffusion_real import import_torchvision

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
import_torchvision()

SINGLE = ("sd15", "sd20", "sdxl", "sd3")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(kind, what) -> its folder, its folder without weights, its single file; prompts: a file."""
    from tests.checkpoints.tiny_checkpoints import folder
    from tests.checkpoints.tiny_originals import single_file
    place = tmp_path_factory.mktemp("files")
    (place / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    made = {"prompts": place / "prompts.txt", ("flux", "folder"): folder("flux", place / "flux")}
    for kind in SINGLE:
        made[kind, "folder"] = folder(kind, place / kind)
        made[kind, "file"] = single_file(kind, place / kind, place / f"{kind}.safetensors")
        made[kind, "config"] = shutil.copytree(place / kind, place / f"{kind}-config",
                                               ignore=shutil.ignore_patterns("*.safetensors"))
    return made


def opened(tiny, kind: str, what: str = "file", say=lambda text: None, **changes):
    """The Source of a tiny checkpoint at 64 x 64."""
    config = {} if what == "folder" else {"config": str(tiny[kind, "config"])}
    settings = {"checkpoint": str(tiny[kind, what]), "prompts": str(tiny["prompts"]), "width": 64, "cfg": 4.0, **config}
    return sources.of(Config.of(**{**settings, **changes}), "cpu", say)


@pytest.mark.parametrize("kind", SINGLE)
@torch.no_grad()
def test_a_single_file_is_the_model_of_its_folder(tiny, kind):
    one, other = opened(tiny, kind), opened(tiny, kind, "folder")
    x, sigma = one.noise([0, 1]) * one.sigma_max, torch.full((2,), one.sigma_max / 2)
    answers = [source.denoiser(x, sigma, **source.conditions([0, 1])) for source in (one, other)]
    torch.testing.assert_close(*answers, rtol=0, atol=1e-6)
    torch.testing.assert_close(*(source.decode(answers[0]) for source in (one, other)), rtol=0, atol=1e-6)
    assert one.model.family == other.model.family == kind


@pytest.mark.parametrize("kind", SINGLE)
def test_the_hosts_choose_its_preset_for_these_very_weights(tiny, kind, tmp_path):
    """Whatever its family; not for another network of the same kind."""
    run = CliRunner().invoke(main, [
        "train", "--checkpoint", str(tiny[kind, "file"]), "--config", str(tiny[kind, "config"]), "--prompts",
        str(tiny["prompts"]), "--width", "32", "--calls", "2", "--teacher-calls", "6", "--pairs", "8", "--validation",
        "4", "--schedule", "time_uniform", "--iterations", "1", "--name", "mine",
        "--device", "cpu", "--cfg", "4", "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    model = preset_file.load(tmp_path / "mine.safetensors").model
    names = {name.removeprefix("model."): tensor for name, tensor in load_file(tiny[kind, "file"]).items()
             if name.startswith("model.diffusion_model.") and tensor.ndim == 1}

    def seen(tensors, family="unknown"):
        """What a host shows of a network with these norms and biases, held in half precision."""
        known = {sketch.KIND: sketch.sketch({name: tensor.half() for name, tensor in tensors.items()})}
        return replace(ModelFacts.of(model), family=family, zero_terminal_snr=False, fingerprint=lambda: known)
    library = Library([tmp_path])
    found = select(Request(seen(names), list(library.named().values()), 2, cfg=4.0))
    assert found.preset.name == "mine" and not found.fallback
    other = {name: tensor + 0.1 * torch.randn(tensor.shape) for name, tensor in names.items()}
    assert select(Request(seen(other, kind), list(library.named().values()), 2, cfg=4.0)).fallback


def test_its_hashes_are_those_of_the_hosts(tiny):
    file = tiny["sd15", "file"]
    found = files.hashes(files.read(file))
    assert found["sha256_10"] == hashlib.sha256(file.read_bytes()).hexdigest()[:10] and found["file"] == "sd15"


@pytest.mark.slow
@torch.no_grad()
def test_flux_opens_from_one_file_at_its_own_width(tiny, tmp_path):
    """One block of each kind, 3072 wide; what the file lacks is in the folder of its configuration."""
    from diffusers import FluxTransformer2DModel

    from tests.checkpoints.tiny_originals import single_file
    place = shutil.copytree(tiny["flux", "folder"], tmp_path / "flux")
    wide = FluxTransformer2DModel(in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=128,
                                  num_attention_heads=24, joint_attention_dim=64, pooled_projection_dim=32,
                                  guidance_embeds=True)
    wide.to(torch.bfloat16).save_pretrained(place / "transformer")
    file = single_file("flux", place, tmp_path / "flux.safetensors", ("vae", "text_encoder", "text_encoder_2"))
    made = {**tiny, ("flux", "folder"): place, ("flux", "config"): place, ("flux", "file"): file}
    one = opened(made, "flux", cfg=1.0, dtype="bf16")
    other = opened(made, "flux", "folder", cfg=1.0, dtype="bf16")
    x, sigma = one.noise([0, 1]), torch.full((2,), 0.7)
    answers = [source.denoiser(x, sigma, **source.conditions([0, 1])) for source in (one, other)]
    torch.testing.assert_close(*answers, rtol=0, atol=1e-6)


# --- parts that are elsewhere -----------------------------------------------------------------------------------------

def test_a_part_that_is_not_in_the_file_is_asked_for_in_words(tiny, tmp_path):
    from tests.checkpoints.tiny_originals import single_file
    file = single_file("sd3", tiny["sd3", "folder"], tmp_path / "bare.safetensors", ("text_encoder", "text_encoder_3"))
    with pytest.raises(ValueError, match="does not hold its text_encoder .*--config"):
        opened({**tiny, ("sd3", "file"): file}, "sd3")


@torch.no_grad()
def test_sd3_goes_without_its_t5_and_says_so(tiny, tmp_path):
    from tests.checkpoints.tiny_originals import single_file
    file, said = single_file("sd3", tiny["sd3", "folder"], tmp_path / "bare.safetensors", ("text_encoder_3",)), []
    source = opened({**tiny, ("sd3", "file"): file}, "sd3", say=said.append)
    assert any("no T5" in words for words in said)
    whole = opened(tiny, "sd3").network.prompts.context
    torch.testing.assert_close(source.network.prompts.context, whole[:, :77], rtol=0, atol=1e-6)     # as ComfyUI
    assert source.denoiser(source.noise([0]), torch.tensor([0.5]), **source.conditions([0])).isfinite().all()


@torch.no_grad()
def test_without_an_autoencoder_there_are_no_pictures(tiny, tmp_path):
    from tests.checkpoints.tiny_originals import single_file
    folder, said = tiny["sd15", "folder"], []
    file = single_file("sd15", folder, tmp_path / "bare.safetensors", ("vae",))
    source = opened({**tiny, ("sd15", "file"): file}, "sd15", say=said.append)
    assert source.decode is None and any("no autoencoder" in words for words in said)


@torch.no_grad()
def test_what_the_file_lacks_is_taken_from_the_configuration_s_folder_where_it_is(tiny, tmp_path):
    from tests.checkpoints.tiny_originals import single_file
    file = single_file("sdxl", tiny["sdxl", "folder"], tmp_path / "bare.safetensors", ("vae", "text_encoder_2"))
    found = opened({**tiny, ("sdxl", "file"): file}, "sdxl", config=str(tiny["sdxl", "folder"]))
    whole = opened(tiny, "sdxl")
    torch.testing.assert_close(found.network.prompts.pooled, whole.network.prompts.pooled, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.decode(whole.noise([0])), whole.decode(whole.noise([0])), rtol=0, atol=1e-6)


def test_a_file_whose_build_is_not_on_this_machine_says_what_to_fetch(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match="S4S downloads nothing") as told:
        opened(tiny, "sdxl", config="")
    assert "hf download stabilityai/stable-diffusion-xl-base-1.0" in str(told.value)
    assert "--config sdxl-config" in str(told.value)


def test_a_configuration_of_another_architecture_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="is the configuration of a StableDiffusionXLPipeline"):
        opened(tiny, "sd15", config=str(tiny["sdxl", "config"]))
    wider = shutil.copytree(tiny["sd15", "config"], tmp_path / "wider")
    settings = json.loads((wider / "unet" / "config.json").read_text())
    (wider / "unet" / "config.json").write_text(json.dumps({**settings, "layers_per_block": 2}))
    with pytest.raises(ValueError, match="lacks|could not be opened"):
        opened(tiny, "sd15", config=str(wider))


# --- what a header tells ----------------------------------------------------------------------------------------------

def header(path, **shapes):
    save_file({name.replace("__", "."): torch.zeros(shape) for name, shape in shapes.items()}, path)
    return path


def test_predictions_are_read_off_a_file_as_the_hosts_do(tmp_path):
    unet = {"model__diffusion_model__input_blocks__0__0__weight": (8, 4, 3, 3),
            "model__diffusion_model__label_emb__0__0__weight": (8, 8)}
    eps = {"prediction_type": "epsilon"}
    for extra, wanted in (({}, (False, False)), ({"v_pred": (1,)}, (True, False)),
                          ({"v_pred": (1,), "ztsnr": (1,)}, (True, True))):
        contents = files.read(header(tmp_path / "xl.safetensors", **unet, **extra))
        assert contents.family == "sdxl" and files.prediction(contents, "auto", eps) == wanted
        assert files.prediction(contents, "v_zsnr", eps) == (True, True)
    marker = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
    stem = {"model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 4, 3, 3),
            "cond_stage_model.model.ln_final.weight": torch.zeros(2)}
    for spread, wanted in ((0.02, False), (0.2, True)):         # SD2's base model, and its v one (ComfyUI's rule)
        save_file({**stem, marker: spread * torch.tensor([1.0, -1.0])}, tmp_path / "sd2.safetensors")
        contents = files.read(tmp_path / "sd2.safetensors")
        found = files.prediction(contents, "auto", {"prediction_type": "v_prediction"})
        assert contents.family == "sd20" and found == (wanted, False)


@pytest.mark.parametrize("shapes, words", [
    ({"lora_unet__down__weight": (1,)}, "is a LoRA"),
    ({"decoder__conv_in__weight": (1,)}, "an autoencoder or a text encoder"),
    ({"down_blocks__0__weight": (1,)}, "one part of a model in diffusers' layout"),
    ({"a": (1,)}, "of an unknown kind .1 tensors"),
    ({"input_blocks__0__0__weight": (8, 9, 3, 3)}, "inpainting or editing"),
    ({"double_blocks__0__img_attn__norm__key_norm__scale": (1,), "distilled_guidance_layer__x": (1,)}, "is Chroma"),
    ({"double_blocks__0__img_attn__norm__key_norm__scale": (1,), "img_in__weight": (8, 384)}, "filling or control"),
    ({"double_blocks__0__qkv__scale_weight": (1,)}, "is quantized"),
])
def test_what_is_no_checkpoint_is_refused_by_what_it_is(tmp_path, shapes, words):
    with pytest.raises(ValueError, match=words):
        files.read(header(tmp_path / "x.safetensors", **shapes))


@pytest.mark.parametrize("name, words", [("x.ckpt", "may execute code"), ("x.gguf", "quantized"),
                                         ("x.safetensors", "cannot be read as .safetensors")])
def test_other_kinds_of_files_are_refused(tmp_path, name, words):
    (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=words):
        files.read(tmp_path / name)


def test_flux_is_told_from_schnell_and_sd3_from_its_successors(tmp_path):
    from s4s.training.checkpoints.loading import repository
    stem = {"double_blocks__0__img_attn__norm__key_norm__scale": (1,)}
    assert files.read(header(tmp_path / "a.safetensors", **stem)).family == "fluxschnell"
    dev = files.read(header(tmp_path / "b.safetensors", **stem, guidance_in__in_layer__weight=(1, 1)))
    assert dev.family == "flux" and dev.missing == ["text_encoder", "text_encoder_2", "vae"]
    large = {f"joint_blocks__{i}__x_block__attn__ln_q__weight": (1,) for i in range(38)}
    assert repository(files.read(header(tmp_path / "c.safetensors", **large))).endswith("3.5-large")
    medium = files.read(header(tmp_path / "d.safetensors", joint_blocks__0__x=(1,)))
    assert repository(medium).endswith("stable-diffusion-3-medium-diffusers")
