"""A run belongs to its network's weights: no other network takes its pairs over."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from s4s.training.distil import distil, identity
from s4s.training.weights import digest, digest_of
from tests.toy import small, toy_source

NETWORK = torch.nn.Linear(2, 2)                     # as a script has it at its top level


def of_the_script(x, sigma, **extra):
    return NETWORK(x)


class Asked:
    def __init__(self, network):
        self.network = network

    def denoise(self, x, sigma, **extra):
        return self.network(x)

    def __call__(self, x, sigma, **extra):
        return self.network(x)


@pytest.fixture
def network():
    with torch.no_grad():
        return torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 8))


def test_any_weight_and_any_precision_is_seen(network):
    seen = [digest(network.parameters())]
    for change in (lambda weights: weights.add_(1e-6), lambda weights: weights.mul_(1.001)):
        with torch.no_grad():
            change(network[2].weight)
        seen.append(digest(network.parameters()))
    seen += [digest(network.bfloat16().parameters()), digest(network.to(torch.float8_e4m3fn).parameters())]
    assert len(set(seen)) == 5 and all(len(each) == 16 for each in seen)
    assert digest([torch.ones(3, device="meta")]) == ""


def test_a_network_is_found_wherever_the_function_has_it(network):
    asked = Asked(network)
    ways = [network, asked, asked.denoise, partial(lambda model, x, sigma: model(x), network),
            lambda x, sigma: network(x), [lambda x, sigma, ask=None: asked.denoise(x, sigma)][0]]
    assert {digest_of(way) for way in ways} == {digest(network.parameters())}
    assert digest_of(of_the_script) == digest(NETWORK.parameters())
    assert digest_of(lambda x, sigma: x) == digest_of(toy_source().network) == ""


def test_a_run_of_other_weights_is_another(network, tmp_path):
    def answer(x, sigma, label):
        return plain(x, sigma, label) + 0 * network(x.new_zeros(1, 8)).sum()
    source = toy_source()
    plain = source.network
    mine = replace(source, network=answer)
    config = small(pairs=8, iterations=1)
    before = identity(mine, config)
    distil(mine, config, tmp_path)
    with torch.no_grad():
        network[0].weight.mul_(3)
    assert identity(mine, config) != before
    with pytest.raises(ValueError, match="a run of another model"):
        distil(mine, config, tmp_path, resume=True)
    assert identity(replace(source, weights="a"), config) != identity(replace(source, weights="b"), config)
