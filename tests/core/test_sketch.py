"""A model's passport: the same in every precision, another for another training."""

import torch

from s4s.s4s_nodes.core.sketch import same, sketch


def norms_and_biases(seed: int = 0, trained_further: float = 0.0) -> dict:
    """The one-dimensional weights of a made-up network: norms near 1, biases near 0."""
    generator = torch.Generator().manual_seed(seed)
    moved = torch.Generator().manual_seed(99)
    weights = {}
    for i in range(60):
        weights[f"{i}.norm.weight"] = 1 + 0.1 * torch.randn(320, generator=generator)
        weights[f"{i}.bias"] = 0.05 * torch.randn(320, generator=generator)
    return {name: w + trained_further * w.norm() / w.numel() ** 0.5 * torch.randn(w.shape, generator=moved)
            for name, w in weights.items()}


def test_every_precision_gives_the_same_passport():
    full = sketch(norms_and_biases())
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert same(full, sketch({name: w.to(dtype) for name, w in norms_and_biases().items()}))


def test_the_order_of_the_weights_does_not_matter():
    weights = norms_and_biases()
    assert sketch(weights) == sketch(dict(reversed(weights.items())))


def test_another_training_gives_another_passport():
    full = sketch(norms_and_biases())
    assert not same(full, sketch(norms_and_biases(seed=1)))
    assert not same(full, sketch(norms_and_biases(trained_further=0.02)))          # a fine-tune: 2 % of each norm


def test_what_is_no_passport_is_compared_as_it_is():
    assert same("ab", "ab") and not same("ab", "ac") and not same("ab", None) and not same(sketch({}), "ab")
