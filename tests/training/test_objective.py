"""Distances: their formulas, and LPIPS on whatever a source decodes."""

import pytest
import torch
from torch.nn.functional import interpolate

from s4s.s4s_nodes.core import mixture
from s4s.training.demo_models.source import bundled
from s4s.training.distil import distil
from s4s.training.optimizers import objective
from s4s.training.optimizers.gradient import mean_error, validate
from s4s.training.optimizers.objective import CHARBONNIER_C, NAMES, OBJECTIVES, as_images, objective_of
from s4s.training.optimizers.state import new_state
from tests.k_diffusion_real import import_torchvision
from tests.toy import small, toy_source
from tests.training.test_optimizers import prepared


@pytest.fixture
def random_vgg(monkeypatch):
    """LPIPS as the library builds it, with random weights in place of those it would fetch."""
    try:
        import_torchvision()
        from torchmetrics.functional.image import lpips
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchmetrics with a torchvision: {error}")
    build = lpips._get_tv_model_features
    torch.manual_seed(0)
    monkeypatch.setattr(lpips, "_get_tv_model_features", lambda net, pretrained: build(net, False))
    objective.perceptual_network.cache_clear()
    yield objective.perceptual_network()
    objective.perceptual_network.cache_clear()


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_a_distance_is_zero_for_the_same_and_each_item_has_its_own(name):
    target = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    student = target + torch.tensor([0.0, 0.1, 0.2])[:, None, None, None]
    found = OBJECTIVES[name](student, target)
    assert found.shape == (3,) and found[0] <= 1e-6 < found[1] < found[2]


def test_pseudo_huber_is_squared_near_and_absolute_far():
    zero, sizes = torch.zeros(2, 5, dtype=torch.float64), torch.tensor([1e-4, 1e4], dtype=torch.float64)
    near, far = OBJECTIVES["pseudo_huber"](sizes[:, None].expand(2, 5), zero)
    assert near == pytest.approx(1e-4 ** 2 / (2 * CHARBONNIER_C), rel=1e-4)
    assert far == pytest.approx(1e4 - CHARBONNIER_C, rel=1e-9)


def test_lpips_is_the_librarys_own_on_enlarged_three_channel_images(random_vgg):
    source = bundled("digits-flow", 1.0)
    student, target = (torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    images = [interpolate(x.clamp(-1, 1).repeat(1, 3, 1, 1), (224, 224), mode="bilinear") for x in (student, target)]
    found = objective_of("lpips", source)(student, target)
    assert found.shape == (2,) and float(found.min()) > 0
    torch.testing.assert_close(found, random_vgg(*images).flatten(), rtol=1e-5, atol=1e-7)      # sums in another order


def test_lpips_compares_what_the_source_decodes_and_has_a_gradient_in_the_latent(random_vgg):
    source = toy_source()
    source.shape, source.decode = (4, 8, 8), lambda latent: (latent[:, :3] * latent[:, 3:]).tanh()
    distance = objective_of("lpips", source)
    target = torch.randn(1, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    student = (target + 0.1).requires_grad_()
    gradient, = torch.autograd.grad(distance(student, target).sum(), student)
    assert float(distance(target, target)) == 0 and bool((gradient[:, 3] != 0).any())
    way = gradient / gradient.norm()
    ahead, behind = (float(distance(student.detach() + nudge * way, target)) for nudge in (1e-2, -1e-2))
    assert (ahead - behind) / 2e-2 == pytest.approx(float(gradient.norm()), rel=0.05)   # float32, and kinks of ReLU


def test_images_are_clipped_repeated_and_never_made_smaller():
    images = as_images(torch.full((1, 1, 14, 28), 3.0))
    assert images.shape == (1, 3, 224, 448) and float(images.max()) == 1.0
    assert as_images(torch.zeros(1, 3, 300, 240)).shape == (1, 3, 300, 240)


def test_latents_without_a_decoder_are_refused_in_words():
    source = toy_source()
    source.shape = (4, 8, 8)
    with pytest.raises(ValueError, match="`decode` that makes images"):
        objective_of("lpips", source)


@pytest.mark.parametrize("error, words", [
    (OSError("no route"), r"VGG-16's weights.*vgg16-397923af\.pth into"),
    (ImportError("No module named 'torchmetrics'"), "pip install torchmetrics"),
    (RuntimeError("operator torchvision::nms does not exist"), "needs torchmetrics and torchvision"),
])
def test_what_lpips_lacks_is_said_in_words(monkeypatch, error, words):
    class Missing:
        def __getattr__(self, name):
            raise error
    monkeypatch.setitem(__import__("sys").modules, "torchmetrics.image.lpip", Missing())
    objective.perceptual_network.cache_clear()
    with pytest.raises(ValueError, match=words):
        objective_of("lpips", bundled("digits-flow", 1.0))


def test_an_unknown_objective_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=", ".join(NAMES)):
        small(objective="fid")


def test_forward_mode_says_that_it_lowers_rmse_only():
    with pytest.raises(ValueError, match="--objective l1: only gradient mode can do that: use --mode gradient"):
        small(objective="l1", mode="forward")


def test_auto_takes_the_backward_pass_that_an_objective_needs_or_says_why_it_cannot(tmp_path):
    config = small(objective="pseudo_huber", mode="auto", iterations=4, budget=4000)     # else: too few steps for auto
    assert distil(toy_source(), config, tmp_path / "one").training["mode"] == "gradient"
    blind = toy_source(network=lambda x, sigma, label: mixture(x.detach(), sigma.detach()))
    with pytest.raises(ValueError, match="cannot be learned through: a test backward pass failed"):
        distil(blind, config, tmp_path / "two")


def test_the_state_that_is_kept_is_the_best_by_the_objective_itself():
    source, parameters, _, held_out, _ = prepared()
    state = new_state("gradient", parameters)
    for shift, kept in ((0.0, True), (1.0, False), (-1.0, True)):               # an objective that prefers brightness
        state.average = state.average + shift
        validate(source, parameters, held_out, state, 0.0, lambda student, target: student.mean(1) * 0 + shift)
        assert torch.equal(state.best, state.average) == kept
    assert state.best_score == -1.0 and state.best_error == mean_error(source, parameters, held_out, state.best)


def test_what_lpips_lacks_is_found_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="`decode` that makes images"):
        distil(toy_source(), small(objective="lpips"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
