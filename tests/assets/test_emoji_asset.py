"""The emoji model that stands for Stable Diffusion 3 in the tests: small, readable as one, and really trained."""

import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from s4s.s4s_nodes.core import classical, sample, schedules
from tests.assets.emoji import judge, make, network, pictures
from tests.assets.emoji.conditions import CLASSES, POOLED, TOKENS, WIDTH, condition, conditions


@pytest.fixture(scope="module")
def emoji():
    return network.load()


@pytest.fixture(scope="module")
def drawn(emoji):
    """Four of each class, 20 calls of Euler with guidance 3: latents (48, 16, 8, 8) and the classes asked for."""
    label = torch.arange(len(CLASSES)).repeat_interleave(4)
    return make.draw(emoji, label, calls=20), label


def test_the_file_is_small_half_precision_and_says_what_it_is_made_from():
    assert os.path.getsize(network.FILE) < 5e6
    assert {weight.dtype for weight in load_file(network.FILE).values()} == {torch.float16}
    with safe_open(network.FILE, "pt") as file:
        assert "Apache-2.0" in file.metadata()["made from"] and "MIT" in file.metadata()["made from"]
        assert tuple(file.metadata()["classes"].split(", ")) == CLASSES


def test_a_host_reads_the_size_off_the_shapes():
    """What hosts look at: depth, patch, widths of context and pooled vector, places, norms, second attentions."""
    weights = load_file(network.FILE)
    shapes = {name.removeprefix(network.PREFIX): tuple(weight.shape) for name, weight in weights.items()}
    assert shapes["x_embedder.proj.weight"] == (64 * network.DEPTH, 16, 2, 2)
    assert shapes["context_embedder.weight"] == (64 * network.DEPTH, WIDTH)
    assert shapes["y_embedder.mlp.0.weight"] == (64 * network.DEPTH, POOLED)
    assert shapes["pos_embed"] == (1, 16 ** 2, 64 * network.DEPTH)
    assert shapes["final_layer.linear.weight"] == (2 * 2 * 16, 64 * network.DEPTH)
    assert shapes["joint_blocks.0.context_block.attn.ln_q.weight"] == (64,)
    assert "joint_blocks.1.x_block.attn2.qkv.weight" in shapes
    assert not any(name.startswith("joint_blocks.2") for name in shapes)


def test_samples_are_the_emoji_asked_for(drawn):
    latents, label = drawn
    assert (judge.read(latents) == label).float().mean() >= 0.8


def test_samples_have_the_spread_of_encoded_emoji_and_differ(drawn):
    latents, _ = drawn
    assert latents.isfinite().all()
    assert 1.0 < latents.std() < 1.5                                   # 1.16 of encoded emoji, more by guidance
    assert 0.0 < latents.mean() < 0.4                                  # 0.18
    of_one_class = latents.unflatten(0, (len(CLASSES), 4)).std(dim=1).mean(dim=(1, 2, 3))
    assert (of_one_class > 0.1).all()                                  # the noise decides which of a class


def test_without_a_condition_no_class_is_favoured(emoji):
    """The null condition draws from all classes: no one of the twelve in more than two thirds."""
    none = torch.full((24,), len(CLASSES))
    shown = judge.read(make.draw(emoji, none, calls=12, cfg=1.0))
    assert shown.bincount().max() <= 16


def test_fifty_calls_are_close_to_the_limit(emoji):
    """What few calls are compared with is a target: by the median, as one of a dozen may end as another emoji."""
    label = torch.arange(len(CLASSES)).repeat_interleave(2)
    few, fifty, many = (make.draw(emoji, label, calls) for calls in (5, 50, 200))

    def median_error(latents):
        return (latents - many).square().mean(dim=(1, 2, 3)).sqrt().median()
    assert median_error(fifty) < 0.05 and median_error(few) > 4 * median_error(fifty)   # 0.02 and 0.25


def test_conditions_are_zero_for_none_one_hot_for_a_class_and_refuse_others():
    context, pooled = condition("cat")
    assert context.shape == (1, TOKENS, WIDTH) and pooled.shape == (1, POOLED)
    assert context.sum() == TOKENS and pooled.argmax() == CLASSES.index("cat")
    assert all(part.abs().sum() == 0 for part in condition(None))
    contexts, _ = conditions(torch.arange(len(CLASSES)))
    assert contexts.flatten(0, 1).unique(dim=0).shape[0] == TOKENS * len(CLASSES)       # no two rows alike
    with pytest.raises(ValueError, match="no class of emoji 'dog'; there are face, cat"):
        condition("dog")


def test_the_network_is_smooth_in_the_noise_level(emoji):
    """A gradient by a sigma is that of finite differences: no wave of the clock is faster than its reach."""
    emoji = network.load().double()
    x = torch.randn(2, 16, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    extra = [part.double() for part in conditions(torch.tensor([0, 5]))]
    for level in (0.05, 0.5, 0.95):
        sigma = torch.full((2,), level, dtype=torch.float64, requires_grad=True)
        emoji.denoise(x, sigma, *extra).square().sum().backward()
        with torch.no_grad():
            up, down = (emoji.denoise(x, sigma + h, *extra).square().sum() for h in (1e-4, -1e-4))
        torch.testing.assert_close(sigma.grad.sum(), (up - down) / 2e-4, rtol=1e-3, atol=1e-2)


def test_a_latent_of_another_size_gets_positions_too(emoji):
    x = torch.randn(1, 16, 12, 32, generator=torch.Generator().manual_seed(0))
    assert emoji(x, torch.ones(1), *condition("moon")).shape == x.shape
    square = emoji.pos_embed.unflatten(1, (16, 16))
    torch.testing.assert_close(square[:, :4, :4], square[:, 8:12, 4:8], rtol=0, atol=0)  # the trained four, repeated


def test_a_stopped_training_goes_on_as_if_it_had_not_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(make, "BATCH", 8)
    latents = torch.randn(24, 3, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.arange(24) % len(CLASSES)
    whole, halted, resumed = (make.Training(latents, label, seed=0) for _ in range(3))
    for _ in range(4):
        whole.step(4)
    for _ in range(2):
        halted.step(4)
    halted.save(tmp_path / "state.pt")
    make.train(resumed, 4, tmp_path / "state.pt")
    assert resumed.iteration == 4
    for name, weight in whole.average.items():
        torch.testing.assert_close(resumed.average[name], weight, rtol=0, atol=0)


def test_a_judge_that_saw_no_difference_is_at_chance():
    """The judge can fail: fitted to noise, it knows nothing of other noise."""
    noise = torch.randn(240, 1, 16, 8, 8, generator=torch.Generator().manual_seed(0))
    assert judge.unseen(noise, torch.arange(240) % len(CLASSES)) < 0.25


def test_classes_are_disjoint_and_tones_are_added():
    named = [point for group in pictures.GROUPS.values() for point in pictures.points(group)]
    assert len(named) == len(set(named)) and tuple(pictures.GROUPS) == CLASSES
    assert pictures.points("261d+ 2648-264a") == ["261d", *(f"261d_{tone}" for tone in pictures.TONES),
                                                  "2648", "2649", "264a"]


def test_the_core_samples_it_by_any_solver(emoji):
    """Two very different solvers meet at many calls: what a distilled one is judged by."""
    context, pooled = conditions(torch.tensor([0, 5, 9]))
    noise = torch.randn(3, 16, 8, 8, generator=torch.Generator().manual_seed(3))
    levels = schedules.simple(40, schedules.flow_levels(3.0))
    ends = [sample(emoji.denoise, noise, solver(levels, flow=True), {"context": context, "pooled": pooled})
            for solver in (classical.dpmpp_2m, classical.heun)]
    assert (ends[0] - ends[1]).square().mean().sqrt() < 0.15
