"""Noise weighed in place of data, and the paper's clock, run step by step beside their tables."""

import dataclasses

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import sample
from s4s.training.parametrization.clock import meant
from tests.training.formula import Formula, made, network, numbers, random_vector, start_states, weighed

AB = {1: [1], 2: [3 / 2, -1 / 2], 3: [23 / 12, -16 / 12, 5 / 12]}       # Adams and Bashforth's, newest first


@pytest.mark.parametrize("clock", ["host", "paper"])
@pytest.mark.parametrize("flow", [False, True])
def test_weighing_noise_is_equation_five_itself_around_ipndm(flow, clock):
    """x' = x + (sigma' - sigma) sum_j b[i, j] eps[j]: what eq. 5 is where alpha is 1; a flow's in its velocity."""
    parameters = made("lms", "ipndm_3", 6, flow, order=3, form="noise", clock=clock,
                      prediction="flow" if flow else "eps")
    vector = random_vector(parameters)
    table, (extra, _) = parameters.frozen(vector), numbers(parameters, vector)
    states, x, noises, sigma = [], start_states(flow), [], table.sigmas

    def noise(x, own, level):                                           # of a network told `level`, shown x's own input
        return network(x if flow else x / np.sqrt(1 + own ** 2), level)

    def host(x, level):
        return x - level[:, None] * noise(x, float(level[0]), float(level[0]))
    sample(host, x, table, on_call=lambda i, x, row, d: states.append(x))
    for i in range(table.calls - 1):
        torch.testing.assert_close(states[i], x, rtol=1e-10, atol=1e-10)
        told = table.query[i]
        noises.append(noise(x, sigma[i], told) if clock == "paper" else told / sigma[i] * noise(x, told, told))
        own = AB[min(i + 1, 3)]
        delta = sum((own[age] + extra[i, i - age]) * noises[i - age] for age in range(min(i + 1, 3)))
        x = x + (sigma[i + 1] - sigma[i]) * delta
    torch.testing.assert_close(states[-1], x, rtol=1e-10, atol=1e-10)


def test_with_the_papers_clock_the_network_sees_its_own_input_at_the_shifted_level():
    parameters = made("lms", "dpmpp_2m", clock="paper", prediction="eps")
    vector = random_vector(parameters)
    table, states, inputs = parameters.frozen(vector), [], []
    assert np.abs(table.query / table.sigmas[:-1] - 1).max() > 0.1

    def denoiser(x, sigma):                                             # k-diffusion's wrapper of an eps network
        inputs.append((x / torch.sqrt(1 + sigma[:, None] ** 2), float(sigma[0])))
        return x - sigma[:, None] * network(*inputs[-1])
    sample(denoiser, start_states(False), table, on_call=lambda i, x, row, d: states.append(x))
    for i, (shown, told) in enumerate(inputs):
        torch.testing.assert_close(shown, states[i] / np.sqrt(1 + table.sigmas[i] ** 2), rtol=1e-12, atol=1e-12)
        assert told == table.query[i]


@pytest.mark.parametrize("prediction", ["eps", "v", "flow", "x0"])
def test_with_the_papers_clock_only_the_networks_level_is_shifted(prediction):
    """All rows but the last: x' from D = x - sigma eps(x's own input, query), eps meant as the prediction has it."""
    flow = prediction == "flow"
    parameters = made("lms", "euler", 5, flow, clock="paper", prediction=prediction)
    vector = random_vector(parameters, 0.2)
    table, (extra, _) = parameters.frozen(vector), numbers(parameters, vector)

    def meaning(x, sigma, level, answer):                               # what an answer says of a state at sigma
        c = 1 + sigma ** 2
        return {"eps": x - sigma * answer, "flow": x - sigma * answer, "x0": answer,
                "v": x / c - sigma / c ** 0.5 * answer}[prediction]

    def denoiser(x, sigma):
        level = float(sigma[0])
        return meaning(x, level, level, network(x if flow else x / np.sqrt(1 + level ** 2), level))
    states, paper, x, seen = [], Formula(table, flow), start_states(flow), []
    sample(denoiser, x, table, on_call=lambda i, x, row, d: states.append(x))
    for i in range(table.calls - 1):
        torch.testing.assert_close(states[i], x, rtol=1e-10, atol=1e-10)
        answer = network(x if flow else x / np.sqrt(1 + table.sigmas[i] ** 2), float(table.query[i]))
        seen.append(meaning(x, table.sigmas[i], table.query[i], answer))
        x = paper.move(x, i, i + 1, seen[-1] + weighed(extra, i, seen))
    torch.testing.assert_close(states[-1], x, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prediction", ["eps", "v", "flow", "x0"])
def test_without_offsets_both_clocks_are_one(prediction):
    sigmas = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    u, v = meant(prediction, sigmas, sigmas)
    assert u.abs().max() < 1e-15 and (v - 1).abs().max() < 1e-15
    host, paper = (made("lms", "dpmpp_3m", 5, prediction == "flow", clock=clock, prediction=prediction)
                   for clock in ("host", "paper"))
    vector = random_vector(host) * torch.cat([torch.ones(4), torch.zeros(5), torch.ones(14)])
    for one, other in zip(host.table(vector), paper.table(vector)):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)
    assert dataclasses.replace(host, clock="paper", prediction=prediction).sizes == host.sizes
