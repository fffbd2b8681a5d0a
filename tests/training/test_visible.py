"""A network loaded under inference mode, as hosts do it, and autograd through it."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch

from s4s.training.visible import between_levels, cloned, normal, visible_weights

Step = namedtuple("Step", "end cond")


class Conditions(dict):
    """A host's own kind of dict."""

    def __init__(self, content, shape):
        super().__init__(content)
        self.shape = shape


@pytest.fixture
def network():
    with torch.inference_mode():
        made = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.SiLU(), torch.nn.LayerNorm(3))
        made.register_buffer("levels", torch.ones(3))
    return made


def test_weights_made_under_inference_mode_let_no_gradient_through_and_shown_ones_do(network):
    x = torch.randn(2, 3, requires_grad=True)
    with pytest.raises(RuntimeError, match="[Ii]nference tensors"):
        network(x).sum().backward()
    before = {name: (id(w), w.clone()) for name, w in [*network.named_parameters(), *network.named_buffers()]}
    with visible_weights(network):
        assert not any(weight.is_inference() for weight in network.parameters())
        network(x).square().sum().backward()
        assert all(weight.grad is None for weight in network.parameters())
    assert x.grad.abs().sum() > 0
    after = {name: w for name, w in [*network.named_parameters(), *network.named_buffers()]}
    assert {name: id(w) for name, w in after.items()} == {name: i for name, (i, _) in before.items()}
    assert all(torch.equal(after[name], w) for name, (_, w) in before.items())


def test_a_shown_weight_is_the_same_memory(network):
    place = network[0].weight.data_ptr()
    with visible_weights(network):
        assert network[0].weight.data_ptr() == place


def test_a_kind_that_cannot_be_shown_is_left_where_the_caller_says_so(network):
    with visible_weights(network, lambda weight: weight):
        assert all(weight.is_inference() for weight in network.parameters())


def test_conditions_come_out_of_inference_mode_whatever_holds_them():
    with torch.inference_mode():
        x = torch.ones(2)
    held = cloned({"a": [x, (x, 3)], "b": Step(1, Conditions({"c": x}, (2,))), "d": "words"})
    step = held["b"]
    assert type(step) is Step and type(step.cond) is Conditions and step.cond.shape == (2,) and held["d"] == "words"
    for tensor in (held["a"][0], held["a"][1][0], step.cond["c"]):
        assert not tensor.is_inference() and torch.equal(tensor, torch.ones(2))
    assert x.is_inference() and not normal(x).is_inference()


def test_a_place_between_levels_has_the_slope_of_the_line():
    levels = torch.tensor([0.1, 1.0, 10.0, 100.0], dtype=torch.float64).log()
    sigma = torch.tensor([0.1, 3.1622776601683795, 100.0], dtype=torch.float64, requires_grad=True)
    at = between_levels(levels, sigma)
    torch.testing.assert_close(at.detach(), torch.tensor([0.0, 1.5, 3.0], dtype=torch.float64))
    at.sum().backward()
    wanted = 1 / (sigma.detach() * torch.log(torch.tensor(10.0, dtype=torch.float64)))
    torch.testing.assert_close(sigma.grad[1], wanted[1])
