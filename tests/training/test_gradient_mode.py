"""Gradient mode on foreign networks: exact where they write in place, constant memory, refused where it is wrong."""

import pytest
import torch

from s4s.s4s_nodes.core import mixture, schedules
from s4s.training.demo_models.source import bundled
from s4s.training.distil import distil
from s4s.training.modes import check_gradient
from s4s.training.optimizers.gradient import loss_and_gradient
from s4s.training.optimizers.objective import rmse
from s4s.training.parametrization.parameters import Parameters
from s4s.training.recompute import recomputed
from s4s.training.teacher.pairs import known_pairs
from tests.toy import small, toy_source


def in_place(x, sigma, **extra):
    """A residual network of the kind that breaks checkpointing: saves a tensor, then adds into it."""
    hidden = torch.tanh(x) * sigma[:, None].exp()
    hidden += torch.sin(hidden.clone() * 2)
    saved = hidden * hidden
    hidden += saved
    return hidden / (1 + sigma[:, None])


def out_of_place(x, sigma, **extra):
    hidden = torch.tanh(x) * sigma[:, None].exp()
    hidden = hidden + torch.sin(hidden * 2)
    hidden = hidden + hidden * hidden
    return hidden / (1 + sigma[:, None])


def test_a_network_that_adds_in_place_gets_its_exact_gradient():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    sigma = torch.rand(3, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(3, 2, dtype=torch.float64)
    wanted = torch.autograd.grad(out_of_place(x, sigma), (x, sigma), slope)
    with pytest.raises(RuntimeError, match="inplace operation"):
        torch.autograd.grad(in_place(x, sigma), (x, sigma), slope)
    got = torch.autograd.grad(recomputed(in_place)(x, sigma), (x, sigma), slope)
    for one, other in zip(got, wanted):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-13)      # rounding of another order of sums


def test_without_a_gradient_the_network_runs_as_it_is():
    calls = []
    network = recomputed(lambda x, sigma: x, calls.append)
    x = torch.ones(2, 2, requires_grad=True)
    assert network(x.detach(), torch.ones(2)).grad_fn is None
    with torch.no_grad():
        assert network(x, torch.ones(2)) is x
    network(x, torch.ones(2)).sum().backward()
    assert calls == [2]                                                 # only the backward pass runs it again


def bytes_saved(calls: int, differentiable: bool) -> int:
    """Bytes autograd keeps for the backward pass of one loss through a bundled model, counted tensor by tensor."""
    source, held = bundled("digits-flow", 1.0), {}
    source.differentiable = differentiable
    parameters = Parameters(schedules.linear_flow(calls), flow=True)
    pairs = known_pairs(source, range(2), torch.zeros(2, *source.shape))

    def pack(tensor):
        held[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss_and_gradient(source, parameters, parameters.initial(), pairs, rmse)
    return sum(held.values())


def test_what_a_call_keeps_for_the_backward_pass_is_its_state_alone():
    kept, recomputing = bytes_saved(4, True), bytes_saved(4, False)
    assert recomputing < kept / 10
    # beyond the network's own activations of one call, ten calls keep ten states: 3 kB each
    assert bytes_saved(10, False) - bytes_saved(2, False) < 0.05 * kept / 4


def test_right_gradients_are_accepted_with_both_numbers_named():
    for flow in (False, True):
        found = check_gradient(toy_source(flow))
        assert found.fits and "finite differences" in found.reason


def rounding(x, sigma, label):
    """Rounds its noise level as discrete models do: no slope in sigma, though it has one."""
    return mixture(x, sigma + (sigma.detach() - sigma))


def halving(x, sigma, label):
    """A wrong backward pass: half of the true slope in x."""
    return mixture((x + x.detach()) / 2, sigma)


def wiggling(x, sigma, label):
    """Turns many times within a wide nudge, as random weights behind a sinusoidal clock do; smooth all the same."""
    turns = torch.cos(sigma[:, None] * 200 * torch.logspace(0, -4, 24))
    return mixture(x, sigma) * (1 + turns.sum(1, keepdim=True) / 5)


def halved_wiggling(x, sigma, label):
    """The same with half of the true slope in x."""
    return wiggling((x + x.detach()) / 2, sigma, label)


def rounded_clock(x, sigma, label):
    """A host's discrete model: the clock is rounded to a level, the step around it follows sigma."""
    levels = torch.tensor(toy_source().levels, dtype=torch.float32)
    clock = levels[(sigma.detach()[:, None] / levels).log().abs().argmin(1)]
    return x - (x - mixture(x, clock)) * (sigma / clock)[:, None]


def test_a_network_that_bends_within_the_nudges_is_accepted_for_its_right_gradients():
    source = toy_source(network=wiggling)
    assert check_gradient(source).fits
    assert source.model_calls < 600                         # the slopes along two ways were added up


@pytest.mark.parametrize("network", [rounding, halving, halved_wiggling, rounded_clock])
def test_wrong_gradients_are_refused_and_the_run_goes_on_without_them(network, tmp_path):
    assert not check_gradient(toy_source(network=network)).fits
    said = []
    made = distil(toy_source(network=network), small(iterations=0, pairs=16), tmp_path, say=said.append)
    assert made.training["mode"] == "forward"
    assert any(line.startswith("WARNING: forward mode") and "gradients are wrong" in line for line in said)


def test_a_network_without_a_backward_pass_is_learned_forward_only(tmp_path):
    source = toy_source(network=lambda x, sigma, label: mixture(x.detach(), sigma.detach()))
    said = []
    made = distil(source, small(iterations=0, pairs=16), tmp_path, say=said.append)
    assert made.training["mode"] == "forward" and any("cannot be learned through" in line for line in said)
