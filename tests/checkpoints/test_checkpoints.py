"""Tiny pipelines of diffusers' real classes, from the command line to a preset: read, trained, raced, chosen."""

import socket
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.library import Request, select
from s4s.s4s_nodes.select.match import ModelFacts
from s4s.training import sources
from s4s.training.cli.main import main
from s4s.training.config import Config
from s4s.training.run import Run
from s4s.training.run_identity import read_config
from tests.k_diffusion_real import import_torchvision

pytest.importorskip("diffusers")
pytest.importorskip("accelerate")
import_torchvision()

KINDS = ("sd15", "sd20", "sdxl", "sd3", "flux", "fluxschnell")
TRAINED = KINDS[:-1]                    # schnell is flux but for its clock
QUICK = ["--width", "32", "--calls", "2", "--teacher-calls", "6", "--pairs", "8", "--validation", "4",
         "--schedule", "time_uniform", "--iterations", "1", "--device", "cpu", "--name", "tiny"]
PROMPTS = "# for a test\na cat\n\n  a dog in the rain  \nthe sea at night\n"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """kind -> its folder; prompts: a file."""
    from tests.checkpoints.tiny_checkpoints import folder
    place = tmp_path_factory.mktemp("checkpoints")
    (place / "prompts.txt").write_text(PROMPTS, encoding="utf-8")
    made = {kind: folder(kind, place / kind) for kind in KINDS}
    return {**made, "prompts": place / "prompts.txt"}


@pytest.fixture(autouse=True)
def nothing_is_fetched(monkeypatch):
    def refused(*_):
        raise AssertionError("a connection was opened")
    monkeypatch.setattr(socket.socket, "connect", refused)


def cfg_of(kind: str) -> float:
    return 1.0 if kind.startswith("flux") else 4.0


def opened(tiny, kind: str, **changes):
    """The Source of a tiny checkpoint at 64 x 64."""
    settings = {"checkpoint": str(tiny[kind]), "prompts": str(tiny["prompts"]), "width": 64, "cfg": cfg_of(kind)}
    return sources.of(Config.of(**{**settings, **changes}), "cpu", lambda text: None)


def run(*arguments):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


# --- what is asked of the network -------------------------------------------------------------------------------------

def by_diffusers(tiny, kind: str, x, timestep, text: str, **options):
    """The network's answer, put together anew as the pipeline of this kind does it for one prompt."""
    import diffusers
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tiny[kind])
    if kind in ("sd15", "sd20"):
        return pipeline.unet(x, timestep, pipeline.encode_prompt(text, "cpu", 1, False)[0]).sample
    if kind == "sdxl":
        context, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        size = (8 * x.shape[2], 8 * x.shape[3])
        size = pipeline._get_add_time_ids(size, (0, 0), size, context.dtype, 48)
        return pipeline.unet(x, timestep, context, added_cond_kwargs={"text_embeds": pooled, "time_ids": size}).sample
    if kind == "sd3":
        context, _, pooled, _ = pipeline.encode_prompt(text, text, text, do_classifier_free_guidance=False,
                                                       max_sequence_length=77)
        return pipeline.transformer(x, context, pooled, timestep).sample
    context, pooled, text_ids = pipeline.encode_prompt(text, max_sequence_length=256)
    patches = pipeline._pack_latents(x, 1, 16, 8, 8)
    ids = pipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
    guidance = torch.full((1,), 3.5) if kind == "flux" else None
    answer = pipeline.transformer(patches, context, pooled, timestep, ids, text_ids, guidance).sample
    return pipeline._unpack_latents(answer, 64, 64, 8)


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_it_is_asked_as_its_own_pipeline_asks_it(tiny, kind):
    """At a whole timestep, for the second prompt, without guidance."""
    source = opened(tiny, kind, cfg=1.0)
    clock = source.network.clock
    sigma = clock.sigmas[[len(clock.sigmas) // 2]]
    x = source.noise([1]) * sigma.reshape(-1, 1, 1, 1)
    level = sigma.reshape(-1, 1, 1, 1)
    answer = by_diffusers(tiny, kind, clock.network_input(x, level), clock.timestep(sigma), "a dog in the rain")
    ours = source.denoiser(x, sigma, **source.conditions([1]))
    torch.testing.assert_close(ours, clock.denoised(x, level, answer), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
@torch.no_grad()
def test_at_several_sizes_it_is_asked_for_each_as_its_own_pipeline_asks_it(tiny, kind):
    source = opened(tiny, kind, cfg=1.0, more_sizes="64x96, 64x64")
    assert source.shapes == [(4, 12, 8), (4, 8, 8)] and source.about["more_sizes"] == "64x96, 64x64"
    sigma, texts = torch.tensor([2.0]), [line.strip() for line in PROMPTS.splitlines() if line.strip()][1:]
    for seed in range(6):
        extra, alone = source.extra([seed]), opened(tiny, kind, cfg=1.0)
        clock, image = alone.network.clock, source.images(source.noise([seed]), extra) * 2
        x = source.noise([seed]) * 2
        answer = by_diffusers(tiny, kind, clock.network_input(image, sigma), clock.timestep(sigma), texts[seed % 3])
        ours = source.images(source.denoiser(x, sigma, **extra), extra)
        torch.testing.assert_close(ours, clock.denoised(image, sigma, answer), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["sd15", "sdxl", "sd3"])
@torch.no_grad()
def test_guidance_starts_from_the_negative_prompt_and_counts_once(tiny, kind):
    guided, plain = opened(tiny, kind, negative="rain", cfg=3.0), opened(tiny, kind, cfg=1.0)
    other = tiny["prompts"].with_name("negative.txt")
    other.write_text("rain\n", encoding="utf-8")
    negative = opened({**tiny, "prompts": other}, kind, cfg=1.0)
    x, sigma = plain.noise([0, 1]) * plain.sigma_max, torch.full((2,), plain.sigma_max / 2)
    conditioned, without = (s.denoiser(x, sigma, **s.conditions([0, 1])) for s in (plain, negative))
    found = guided.denoiser(x, sigma, **guided.conditions([0, 1]))
    torch.testing.assert_close(found, without + 3 * (conditioned - without), rtol=1e-4, atol=1e-3)
    assert guided.model_calls == 2


@torch.no_grad()
def test_an_open_checkpoint_is_asked_at_any_cfg(tiny):
    source, sigma = opened(tiny, "sd15", cfg=(1.0, 5.0)), torch.tensor([5.0])
    x = source.noise([4]) * 5
    for cfg in (5.0, 1.0):
        source.cfg, one = cfg, opened(tiny, "sd15", cfg=cfg)
        torch.testing.assert_close(source.denoiser(x, sigma, **source.extra([4])),
                                   one.denoiser(x, sigma, **one.conditions([4])))


@torch.no_grad()
def test_it_runs_in_bf16_near_full_precision(tiny):
    full, half = opened(tiny, "flux"), opened(tiny, "flux", dtype="bf16")
    x, sigma = full.noise([0, 1]), torch.full((2,), 0.7)
    apart = full.denoiser(x, sigma, **full.conditions([0, 1])) - half.denoiser(x, sigma, **half.conditions([0, 1]))
    assert half.network.dtype == torch.bfloat16
    assert 0 < float(apart.square().mean().sqrt()) < 0.02


@torch.no_grad()
def test_latents_decode_to_pictures_of_the_asked_size(tiny):
    source = opened(tiny, "sd3", width=64, height=96)
    assert source.shape == (16, 12, 8)
    assert source.decode(source.noise([0, 1])).shape == (2, 3, 96, 64)


# --- from the command line --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", TRAINED)
def test_a_checkpoint_is_trained_and_raced_and_its_preset_chosen_for_it(tiny, kind, tmp_path):
    given = ["--checkpoint", tiny[kind], "--prompts", tiny["prompts"]]
    out = run("train", *given, *QUICK, "--cfg", cfg_of(kind), "--out", tmp_path / "run")
    assert "2 rows, " in out and "on this device" in out and f"--checkpoint {tiny[kind]} --prompts" in out
    file = tmp_path / "run" / "tiny.safetensors"
    drawn = ["--out", tmp_path / "race"] if kind == "sdxl" else []
    out = run("race", file, *given, "--seeds", 4, "--budget", 2000, "--device", "cpu", "--write", *drawn)
    assert "scores written" in out and (not drawn or (tmp_path / "race" / "sheet.png").exists())
    made = preset_file.load(file)
    assert made.model.family == kind and made.training["size"] == [32, 32] and made.training["prompts"] == 3
    assert made.score("calls2")["cfg"] == cfg_of(kind)
    model = made.model                          # of a folder: hosts know a single file by its hashes, and this has none
    facts = replace(ModelFacts.of(model), family=kind, fingerprint=lambda: {"weights_1d": "ab"})
    assert model.hashes == {} and select(Request(facts, [made], 2, cfg=cfg_of(kind))).fallback
    named = select(Request(facts, [made], 2, cfg=cfg_of(kind), named=made))
    assert named.preset is made and not named.belongs


def test_a_checkpoint_is_trained_at_several_sizes_and_resumed(tiny, tmp_path):
    given = ["--checkpoint", tiny["sd15"], "--prompts", tiny["prompts"], "--more-sizes", "32x48"]
    out = run("train", *given, *QUICK, "--cfg", 4, "--out", tmp_path / "run")
    made = preset_file.load(tmp_path / "run" / "tiny.safetensors")
    assert made.training["resolution"] == [[6, 4], [4, 4]] and made.training["size"] == [32, 32]
    assert "next: s4s race " in out and " --more-sizes 32x48" in out
    assert f"({made.short_hash})" in run("train", "--resume", tmp_path / "run")
    out = run("race", tmp_path / "run" / "tiny.safetensors", *given, "--seeds", 4, "--budget", 2000, "--device", "cpu",
              "--write", "--out", tmp_path / "race")
    assert (tmp_path / "race" / "sheet.png").exists()
    made = preset_file.load(tmp_path / "run" / "tiny.safetensors")
    assert made.score("calls2")["size"] == [[6, 4], [4, 4]]
    with pytest.raises(ValueError, match="holds a run with other settings \\(more_sizes '32x48'\\)"):
        Run(Config.of(**{**read_config(tmp_path / "run")[0].flat(), "more_sizes": ""}), tmp_path / "run", resume=True)


def test_a_distilled_checkpoint_is_taught_by_the_undistilled_one_and_raced_against_it(tiny, tmp_path):
    from tests.checkpoints.tiny_checkpoints import folder
    other = folder("sd15", tmp_path / "undistilled", seed=1)
    given = ["--checkpoint", tiny["sd15"], "--prompts", tiny["prompts"], "--teacher-checkpoint", other]
    out = run("train", *given, "--teacher-cfg", 4, *QUICK, "--cfg", 1, "--out", tmp_path / "run")
    assert "teacher undistilled at cfg 4: unipc_bh2_3" in out
    assert f"--teacher-checkpoint {other} --teacher-cfg 4.0" in out
    preset = tmp_path / "run" / "tiny.safetensors"
    made = preset_file.load(preset)
    assert made.training["taught_by"] == "undistilled" and f"({made.short_hash})" in run("train", "--resume",
                                                                                        tmp_path / "run")
    out = run("race", preset, *given, "--teacher-cfg", 4, "--seeds", 4, "--budget", 2000, "--device", "cpu")
    assert "teacher undistilled at cfg 4" in out and "is not the teacher here" not in out
    out = run("race", preset, *given[:4], "--seeds", 4, "--budget", 2000, "--device", "cpu")
    assert "it learned from undistilled, which is not the teacher here" in out
    with pytest.raises(ValueError, match="--teacher-checkpoint is for a checkpoint"):
        Config.of(teacher_checkpoint="undistilled")


@pytest.mark.parametrize("text", ["512", "512x", "x512", "512x512x512", "4x512", "512x99999", "a x b", "512-512"])
def test_what_is_no_list_of_sizes_is_refused_before_a_checkpoint_is_opened(tiny, text):
    with pytest.raises(ValueError, match="is not a list of widths and heights in pixels such as 768x512,1024x1024"):
        Config.of(checkpoint="none", prompts="none", more_sizes=text)
    with pytest.raises(ValueError, match="the bundled models have one size"):
        Config.of(more_sizes="64x64")


def test_a_stopped_run_goes_on_bit_for_bit(tiny, tmp_path):
    given = ["--checkpoint", tiny["sd15"], "--prompts", tiny["prompts"], *QUICK, "--cfg", 4]
    run("train", *given, "--out", tmp_path / "whole")
    run("train", *given, "--out", tmp_path / "parts")
    (tmp_path / "parts" / "state.safetensors").unlink()     # as if it had been stopped behind its pairs
    (tmp_path / "parts" / "tiny.safetensors").unlink()
    run("train", "--resume", tmp_path / "parts")
    whole, parts = (preset_file.load(tmp_path / name / "tiny.safetensors") for name in ("whole", "parts"))
    assert whole.short_hash == parts.short_hash


def test_a_run_is_not_gone_on_with_on_other_prompts(tiny, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text(PROMPTS, encoding="utf-8")
    run("train", "--checkpoint", tiny["sd15"], "--prompts", prompts, *QUICK, "--out", tmp_path / "run")
    prompts.write_text(PROMPTS + "and one more\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["train", "--resume", str(tmp_path / "run")])
    assert done.exit_code == 1 and "holds a run of another model or of other conditions" in done.output


def test_a_preset_for_another_kind_of_model_is_not_raced(tiny, tmp_path):
    given = ["--checkpoint", tiny["sd15"], "--prompts", tiny["prompts"]]
    run("train", *given, *QUICK, "--out", tmp_path / "run")
    done = CliRunner().invoke(main, ["race", str(tmp_path / "run" / "tiny.safetensors"), "--checkpoint",
                                     str(tiny["sd20"]), "--prompts", str(tiny["prompts"])])
    assert done.exit_code == 1 and "it is for eps prediction, the model's is v" in done.output


# --- refusals ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("changes, words", [
    ({"width": 60}, "use multiples of 8"),
    ({"shift": 2.0}, "leave it out"),
    ({"checkpoint": "nowhere.safetensors"}, "no checkpoint at nowhere.safetensors"),
    ({"prompts": "nowhere.txt"}, "the prompts in nowhere.txt cannot be read"),
])
def test_settings_that_cannot_work_are_refused_in_words(tiny, changes, words):
    with pytest.raises(ValueError, match=words):
        opened(tiny, "sd15", **changes)


def test_a_distilled_model_is_not_guided_twice_unasked(tiny):
    with pytest.raises(ValueError, match="add --cfg 1"):
        opened(tiny, "flux", cfg=3.0)
    assert opened(tiny, "flux", cfg=3.0, negative="rain").cfg == 3.0


def test_a_checkpoint_without_prompts_is_refused():
    with pytest.raises(ValueError, match="go together"):
        Config.of(checkpoint="x.safetensors")


def test_a_missing_library_is_named_with_the_command_that_installs_it(tiny, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(ValueError, match=r"needs diffusers, transformers and accelerate .*s4s-sampler\[checkpoints\]"):
        opened(tiny, "sd15")


@pytest.mark.parametrize("kind", ["sd15", "sdxl"])
def test_prompts_that_only_a_host_understands_are_remarked_on(tiny, kind, tmp_path):
    (tmp_path / "p.txt").write_text("a (cat:1.2) <lora:x:1>\n" + "a dog " * 60 + "\n", encoding="utf-8")
    said = []
    sources.of(Config.of(checkpoint=str(tiny[kind]), prompts=str(tmp_path / "p.txt"), width=64), "cpu", said.append)
    assert any("host's syntax" in words for words in said) and any("cut off" in words for words in said)
