"""Memory: what a piece of work holds is counted."""


import pytest
import torch

from s4s.training import memory
from s4s.training.demo_models.source import bundled
from tests.bench.memory import cell

CPU = torch.device("cpu")


def test_the_meter_counts_tensors_while_they_live():
    def work():
        one = torch.zeros(1000)                             # 4 kB
        view = one[10:].reshape(-1, 10)                     # none of its own
        two = view.exp()                                    # 3.96 kB
        del one, view
        return two + two                                    # beside them, the first is gone
    assert memory.peak_bytes(work, CPU) == 4000 + 3960
    with memory.Meter() as meter:
        kept = torch.zeros(10)
        kept += 1
    assert (meter.held, meter.highest) == (40, 40)


def saved_by(source, images: int) -> int:
    """Bytes that autograd keeps for the backward pass of one call, the weights among them."""
    x, extra, saved = source.noise(range(images)), source.conditions(range(images)), {}

    def pack(tensor):
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.enable_grad():
        source.network(x.requires_grad_(), torch.ones(images), **extra)
    return sum(saved.values())


def test_a_backward_pass_needs_what_its_activations_hold():
    source = bundled("digits-flow", 1.0)
    activations = (saved_by(source, 4) - saved_by(source, 1)) / 3
    assert 0.9 * activations < memory.of_a_call(source, 1, backward=True) < 1.6 * activations
    alone, four = (memory.of_a_call(source, images, backward=True) for images in (1, 4))
    assert four == pytest.approx(4 * alone, rel=0.1)
    assert memory.of_a_call(source) < alone / 2


def test_sizes_are_said_in_words():
    assert [memory.size_text(size) for size in (5e5, 5e7, 5e10)] == ["0.5 MB", "48 MB", "46.6 GB"]


def tensors(way: str, calls: int, images: int) -> int:
    """Bytes of PyTorch's tensors at the height of one iteration, as the bench counts them."""
    return cell("digits-flow", way, calls, images, metered=True)["tensors"]


def test_gradient_mode_needs_no_more_memory_for_more_calls():
    assert tensors("gradient", 5, 2) < 1.03 * tensors("gradient", 2, 2)         # the goal: 1.05 from 2 to 10 calls


def test_learning_forward_only_needs_hardly_more_memory_than_sampling():
    assert tensors("forward", 2, 64) < 1.1 * tensors("plain sampling", 2, 64)         # what one call shows the network
