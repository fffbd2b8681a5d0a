"""The bundled models: real, right, smooth, and refused in words when damaged."""

import shutil

import pytest
import torch
from click.testing import CliRunner

from s4s.s4s_nodes.core import classical, preset_file, schedules
from s4s.training.cli.main import main
from s4s.training.demo_models import models
from s4s.training.demo_models.source import bundled as source_of
from s4s.training.teacher.pairs import ends, known_pairs


@pytest.fixture(scope="module", params=models.NAMES)
def source(request):
    return source_of(request.param, cfg=3.0)


def levels(source, calls):
    return schedules.linear_flow(calls, 2.0) if source.flow else schedules.karras(calls, 0.0292, source.sigma_max)


def test_samples_are_the_digits_asked_for(source):
    table = classical.unipc(levels(source, 12), source.flow, order=2)
    pairs = known_pairs(source, range(40), None)
    images = ends(source, table, pairs)
    read = models.load_classifier()(images).argmax(1)
    assert (read == pairs.extra["label"]).float().mean() >= 0.9      # 100 % of 2,000 at 49 calls; 3 deviations of 40
    assert 0.4 < images.std() < 0.9                                  # of digits in -1..1; noise would be 1 or more


def test_guidance_counts_once_and_cfg_one_is_the_plain_model(source):
    plain = source_of(source.name, cfg=1.0)
    x, sigma = source.noise(range(3)), torch.full((3,), 0.7)
    label = source.conditions(range(3))
    before = source.model_calls
    guided = source.denoiser(x, sigma, **label)
    assert source.model_calls - before == 3
    alone = plain.denoiser(x, sigma, **label)
    null = plain.denoiser(x, sigma, label=torch.full((3,), 10))
    torch.testing.assert_close(guided, null + 3 * (alone - null), rtol=1e-4, atol=1e-4)     # float32 convolutions


def test_the_answer_does_not_depend_on_the_batch_and_keeps_the_dtype(source):
    x, sigma = source.noise(range(4)).double(), torch.linspace(0.1, 0.9, 4, dtype=torch.float64)
    label = source.conditions(range(4))["label"]
    with torch.inference_mode():
        together = source.denoiser(x, sigma, label=label)
        alone = source.denoiser(x[2:3], sigma[2:3], label=label[2:3])
    assert together.dtype == torch.float64
    torch.testing.assert_close(together[2:3], alone, rtol=1e-4, atol=1e-4)


def test_the_network_is_smooth_in_state_and_level(source):
    model = models.load(source.name, dtype=torch.float64)
    label = torch.tensor([3])
    for level in (0.2, 0.6, 0.95):
        x = source.noise([5]).double().requires_grad_()
        sigma = torch.tensor([level], dtype=torch.float64, requires_grad=True)
        model.denoise(x, sigma, label).sum().backward()

        def at(shift, along=0.0):
            with torch.no_grad():
                return model.denoise(x + along, sigma + shift, label).sum()
        by_level = (at(1e-6) - at(-1e-6)) / 2e-6
        by_state = (at(0.0, 1e-6) - at(0.0, -1e-6)) / 2e-6
        torch.testing.assert_close(sigma.grad[0], by_level, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(x.grad.sum(), by_state, rtol=1e-4, atol=1e-4)


def test_unknown_missing_and_damaged_weights_are_refused_in_words(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="digits-eps, digits-flow"):
        models.load("sd15")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(FileNotFoundError, match="no weights at .* restore the file"):
        models.load("digits-eps")
    whole = models.Path(models.__file__).parent / "digits-eps.safetensors"
    (tmp_path / "digits-eps.safetensors").write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(ValueError, match="does not hold the weights"):
        models.load("digits-eps")
    shutil.copy(whole, tmp_path / "digits-flow.safetensors")
    with pytest.raises(ValueError, match="does not hold the weights"):
        models.load("digits-flow")


def test_a_real_model_is_distilled_from_the_command_line(source, tmp_path):
    words = ["train", "--name", "tiny", "--model", source.name, "--calls", "3", "--pairs", "16",
             "--validation", "8", "--teacher-calls", "12", "--iterations", "2",
             "--budget", "0", "--device", "cpu", "--out", str(tmp_path)]
    answer = CliRunner().invoke(main, words)
    assert answer.exit_code == 0, answer.output
    made = preset_file.load(tmp_path / "tiny.safetensors")
    before, after = made.training["held_out_rmse"]["calls3"]
    assert after < 0.95 * before and made.model.family == source.name
