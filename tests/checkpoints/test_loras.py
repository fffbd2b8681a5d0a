"""A checkpoint's LoRAs: the answers are those of weights added by hand; recorded; refused where they do not fit."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from s4s.s4s_nodes.core import preset_file
from s4s.training import sources
from s4s.training.checkpoints.loras import Lora
from s4s.training.cli.main import main
from s4s.training.config import Config
from tests.checkpoints.test_checkpoints import QUICK
from tests.k_diffusion_real import import_torchvision

pytest.importorskip("diffusers")
pytest.importorskip("peft")
import_torchvision()

UNET, TRANSFORMER = ("unet", "text_encoder"), ("transformer", "text_encoder")
PARTS = {"sd15": UNET, "sd20": UNET, "sdxl": (*UNET, "text_encoder_2"), "sd3": (*TRANSFORMER, "text_encoder_2"),
         "flux": TRANSFORMER}
NAMINGS = [("sd15", "kohya"), ("sd15", "peft"), ("sd20", "kohya"), ("sdxl", "kohya"), ("sd3", "peft"), ("flux", "peft")]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """kind -> its folder; (kind, naming) -> a LoRA for it; (kind, "by hand") -> the folder with 0.7 of it added."""
    from tests.checkpoints import tiny_loras
    from tests.checkpoints.tiny_checkpoints import folder
    place = tmp_path_factory.mktemp("loras")
    (place / "prompts.txt").write_text("a cat\na dog\n", encoding="utf-8")
    known = {"prompts": place / "prompts.txt"}
    for kind, parts in PARTS.items():
        known[kind] = folder(kind, place / kind)
        made = tiny_loras.Made.of(known[kind], parts)
        known[kind, "peft"] = tiny_loras.peft(made, place / f"{kind}-peft.safetensors")
        if "unet" in parts:
            known[kind, "kohya"] = tiny_loras.kohya(made, place / f"{kind}-kohya.safetensors", xl=kind == "sdxl")
        known[kind, "by hand"] = tiny_loras.by_hand(made, 0.7, place / f"{kind}-by-hand")
    return known


def opened(tiny, checkpoint, *loras, kind="sd15", dtype="fp32"):
    config = Config.of(checkpoint=str(checkpoint), prompts=str(tiny["prompts"]), width=64, dtype=dtype,
                       cfg=1.0 if kind == "flux" else 4.0, lora=loras)
    return sources.of(config, "cpu", lambda text: None)


def answer(source):
    with torch.no_grad():
        x, sigma = source.noise([0, 1]) * source.sigma_max, torch.full((2,), source.sigma_max / 2)
        return source.denoiser(x, sigma, **source.conditions([0, 1]))


@pytest.mark.parametrize("kind, naming", NAMINGS)
def test_it_is_the_model_with_the_weights_added_by_hand(tiny, kind, naming):
    """Network and text encoders, ranks and alphas that differ from layer to layer."""
    found = answer(opened(tiny, tiny[kind], f"{tiny[kind, naming]}:0.7", kind=kind))
    wanted, without = (answer(opened(tiny, tiny[place], kind=kind)) for place in ((kind, "by hand"), kind))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert (found - without).abs().mean() > 0.01


def test_a_weight_of_nothing_changes_nothing_and_two_halves_make_a_whole(tiny):
    file, other = tiny["sd15", "kohya"], tiny["sd15", "peft"]
    nothing, plain = opened(tiny, tiny["sd15"], f"{file}:0"), opened(tiny, tiny["sd15"])
    assert torch.equal(answer(nothing), answer(plain))
    assert torch.equal(nothing.network.prompts.context, plain.network.prompts.context)
    halves = opened(tiny, tiny["sd15"], f"{file}:0.3", f"{other}:0.4")
    torch.testing.assert_close(answer(halves), answer(opened(tiny, tiny["sd15", "by hand"])), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_halves_are_added_in_half_precision(tiny, tmp_path, dtype):
    """Of file and model; its alphas are multiplied in at full precision."""
    half = {name: tensor.half() for name, tensor in load_file(tiny["sd15", "kohya"]).items()}
    save_file(half, tmp_path / "half.safetensors")

    def answered(checkpoint, *loras):
        return answer(opened(tiny, checkpoint, *loras, dtype=dtype))
    found = answered(tiny["sd15"], f"{tmp_path / 'half.safetensors'}:0.7")
    wanted, without = answered(tiny["sd15", "by hand"]), answered(tiny["sd15"])
    assert (found - wanted).norm() < 0.1 * (found - without).norm()


# --- from the command line --------------------------------------------------------------------------------------------

def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_run_says_and_records_its_loras_and_goes_on_with_no_others(tiny, tmp_path):
    file = tmp_path / "style.safetensors"
    file.write_bytes(tiny["sd15", "kohya"].read_bytes())
    given = ["--checkpoint", tiny["sd15"], "--prompts", tiny["prompts"]]
    done = run("train", *given, "--lora", f"{file}:0.5", *QUICK, "--cfg", 4, "--out", tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert "added style.safetensors:0.5" in done.output and f"--lora {file}:0.5" in done.output.split("next:")[1]
    made = preset_file.load(tmp_path / "run" / "tiny.safetensors")
    assert made.training["loras"] == ["style.safetensors:0.5"] and len(made.training["loras_sha256"][0]) == 16
    assert "style.safetensors:0.5" in run("show", tmp_path / "run" / "tiny.safetensors").output
    race = ["race", tmp_path / "run" / "tiny.safetensors", *given, "--seeds", 4, "--budget", 1500, "--device", "cpu"]
    raced = run(*race)
    assert raced.exit_code == 0, raced.output
    assert "WARNING: the preset was trained with LoRAs" in raced.output
    raced = run(*race, "--lora", f"{file}:0.5")
    assert raced.exit_code == 0 and "WARNING" not in raced.output and "added style" in raced.output
    tensors = load_file(file)
    save_file({name: 2 * tensor for name, tensor in tensors.items()}, file)
    again = run("train", "--resume", tmp_path / "run")
    assert again.exit_code == 1 and "holds a run of another model or of other conditions" in again.output


def test_the_hosts_still_know_the_checkpoint(tiny, tmp_path):
    from tests.checkpoints.tiny_originals import single_file
    file = single_file("sd15", tiny["sd15"], tmp_path / "sd15.safetensors")
    config = {"checkpoint": str(file), "prompts": str(tiny["prompts"]), "width": 64, "config": str(tiny["sd15"])}
    plain, changed = (sources.of(Config.of(**config, lora=loras), "cpu", lambda text: None)
                      for loras in ((), (str(tiny["sd15", "kohya"]),)))
    assert changed.model.hashes == plain.model.hashes and "loras" in changed.about


# --- refusals ---------------------------------------------------------------------------------------------------------

def test_a_file_and_its_weight_are_told_apart(tmp_path):
    assert Lora.of("a/style.safetensors:0.8") == Lora.of("a/style.safetensors:.80")
    assert Lora.of("a/style.safetensors").weight == 1 and Lora.of("s.safetensors:-1").weight == -1
    assert str(Lora.of("C:\\style.safetensors:0.8").path) == "C:\\style.safetensors"
    assert str(Lora.of("C:\\style.safetensors").path) == "C:\\style.safetensors"


@pytest.mark.parametrize("lora, words", [
    ("style.safetensors:much", "'much' is not a number"), ("style.safetensors:nan", "'nan' is not a number"),
    ("style.safetensors:", "'' is not a number"),
])
def test_a_weight_that_is_no_number_is_refused(lora, words):
    with pytest.raises(ValueError, match=words):
        Config.of(checkpoint="x.safetensors", prompts="p.txt", lora=(lora,))


def test_a_lora_without_a_checkpoint_or_twice_is_refused():
    with pytest.raises(ValueError, match="name one with --checkpoint"):
        Config.of(lora=("a.safetensors",))
    with pytest.raises(ValueError, match="twice"):
        Config.of(checkpoint="x.safetensors", prompts="p.txt", lora=("a.safetensors", "a.safetensors"))


def test_what_does_not_fit_is_refused_in_words(tiny, tmp_path):
    pair = {"lora_down.weight": torch.zeros(2, 32), "lora_up.weight": torch.zeros(32, 2)}
    layer = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    known = {f"{layer}.{end}": tensor for end, tensor in pair.items()}
    files = {"nowhere": None, "plain": {"weight": torch.zeros(1)},
             "dora": {**known, f"{layer}.dora_scale": torch.zeros(32)},
             "other": {f"lora_unet_nothing_of_the_kind.{end}": tensor for end, tensor in pair.items()},
             "partly": {**known, **{f"{layer.replace('to_q', 'to_x')}.{end}": t + 1 for end, t in pair.items()}}}
    words = {"nowhere": "no LoRA at", "plain": "is not a LoRA", "dora": "DoRA, LoHa, LoKr",
             "partly": "1 of its 2 layers", "other": 'does not fit this sd15 .its file says "sdxl_base_v1-0".'}
    for name, tensors in files.items():
        if tensors:
            save_file(tensors, tmp_path / f"{name}.safetensors", metadata={"ss_base_model_version": "sdxl_base_v1-0"})
        with pytest.raises(ValueError, match=words[name]):
            opened(tiny, tiny["sd15"], str(tmp_path / f"{name}.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(tiny["sd15", "kohya"].read_bytes()[:500])
    with pytest.raises(ValueError, match="cannot be read as .safetensors"):
        opened(tiny, tiny["sd15"], str(tmp_path / "cut.safetensors"))


@pytest.mark.parametrize("kind, other", [("sd15", "sdxl"), ("sdxl", "sd15"), ("sd15", "flux"), ("flux", "sd15")])
def test_a_lora_for_another_family_is_refused(tiny, kind, other):
    file = tiny[other, "kohya" if other in ("sd15", "sdxl") else "peft"]
    with pytest.raises(ValueError, match=f"does not fit this {kind}"):
        opened(tiny, tiny[kind], str(file), kind=kind)


def test_a_missing_library_is_named_with_the_command_that_installs_it(tiny, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ValueError, match=r"needs the library peft, .*s4s-sampler\[checkpoints\]"):
        opened(tiny, tiny["sd15"], str(tiny["sd15", "kohya"]))
