"""Gradients through the loop and through the lowering, against finite differences in float64."""

import pytest
import torch
from torch.autograd import gradcheck

from s4s.s4s_nodes.core import TensorTable, classical, mixture, sample, schedules

PARTS = ("query", "scale", "carry", "weights")


@pytest.fixture
def start(noise):
    return 3 * noise[:1]


def tensors(calls: int = 4) -> dict:
    """The numbers of a dense table, all of them free: a Table is not checked."""
    generator = torch.Generator().manual_seed(calls)
    sigmas = torch.from_numpy(schedules.karras(calls, 0.1, 3.0))
    weights = torch.tril(torch.randn(calls, calls, dtype=torch.float64, generator=generator))
    return {"sigmas": sigmas, "query": sigmas[:-1] * 1.1, "scale": torch.linspace(0.9, 1.1, calls).double(),
            "carry": torch.linspace(0.8, 0.1, calls).double(), "weights": weights}


def test_gradients_reach_the_start(start):
    table = classical.dpmpp_3m(schedules.karras(5, 0.1, 3.0))
    assert gradcheck(lambda x: sample(mixture, x, table), start.requires_grad_())


@pytest.mark.parametrize("part", PARTS)
def test_gradients_reach_every_number_of_a_table(part, start):
    values = tensors()

    def end(numbers):
        return sample(mixture, start, TensorTable(**{**values, part: numbers}))
    assert gradcheck(end, values[part].clone().requires_grad_())


def test_no_number_of_a_table_is_idle(start):
    values = {name: value.clone().requires_grad_(name != "sigmas") for name, value in tensors().items()}
    sample(mixture, start, TensorTable(**values)).square().sum().backward()
    for part in PARTS:
        moves = values[part].grad != 0
        rows, columns = torch.tril_indices(4, 4)
        assert bool((moves[rows, columns] if part == "weights" else moves).all()), part
    assert bool((values["weights"].grad.triu(1) == 0).all())           # predictions that do not exist yet


def test_gradients_reach_the_network_through_every_call(start):
    strength = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    for table in (classical.heun([3.0, 1.0, 0.3, 0.0]), TensorTable(**tensors())):
        assert gradcheck(lambda s: sample(lambda x, sigma: s * mixture(x, sigma), start, table), strength)


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_gradients_reach_the_levels_through_every_classical_solver(name, flow, start):
    zero = torch.zeros(1, dtype=torch.float64)
    inner = torch.tensor([0.9, 0.6, 0.3, 0.15], dtype=torch.float64, requires_grad=True)

    def end(levels):
        table = classical.SOLVERS[name].table(torch.cat([levels, zero]), flow=flow)
        return sample(lambda x, sigma: mixture(x, sigma, flow=flow), start, table)
    # along a random direction; finite differences of second differences: 1e-16 / 1e-6 / h^2
    assert gradcheck(end, inner, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("top", [0.9, 1.0])
@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_gradients_stay_finite_at_both_ends_of_a_learned_schedule(name, flow, top, start):
    """A softmax that yields the levels spreads the gradient of the end's 0: one NaN there would spoil all."""
    logits = torch.tensor([0.3, 0.1, 0.4, 0.2], dtype=torch.float64, requires_grad=True)
    falling = top * (1 - torch.cumsum(torch.softmax(logits, 0), 0))
    falling = torch.cat([torch.full((1,), top, dtype=torch.float64), falling])
    levels = torch.where(falling > 1e-9, falling, 0 * falling)
    table = classical.SOLVERS[name].table(levels, flow=flow)
    sample(lambda x, sigma: mixture(x, sigma, flow=flow), start, table).square().sum().backward()
    assert torch.isfinite(logits.grad).all() and bool((logits.grad != 0).any())


@pytest.mark.parametrize("flow", [False, True])
@pytest.mark.parametrize("name", sorted(classical.SOLVERS))
def test_the_differentiable_table_is_the_frozen_one(name, flow, start):
    sigmas = schedules.linear_flow(5, shift=3.0) if flow else schedules.karras(5, 0.1, 3.0)
    frozen = classical.SOLVERS[name](sigmas, flow=flow)
    table = classical.SOLVERS[name].table(torch.tensor(sigmas, requires_grad=True), flow=flow)
    assert table.weights.requires_grad
    assert table.frozen().same_as(frozen)

    def run(numbers):
        return sample(lambda x, sigma: mixture(x, sigma, flow=flow), start, numbers)
    torch.testing.assert_close(run(table).detach(), run(frozen), rtol=0, atol=1e-12)   # sums in another order


def test_a_fixed_scale_of_one_costs_nothing_and_a_learned_one_keeps_its_gradient(start):
    values, seen = tensors(), []

    def watch(x, sigma):
        seen.append(x)
        return mixture(x, sigma)
    sample(watch, start, TensorTable(**{**values, "scale": torch.ones(4, dtype=torch.float64)}))
    assert seen[0] is start
    learned = torch.ones(4, dtype=torch.float64, requires_grad=True)
    sample(mixture, start, TensorTable(**{**values, "scale": learned})).sum().backward()
    assert bool((learned.grad != 0).all())


@pytest.mark.parametrize("state, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.2)])
def test_a_coarse_state_keeps_its_dtype_and_the_gradients(state, tolerance, start):
    """float64 numbers do not widen the state, and their gradients come out in float64."""
    def gradients(dtype):
        values = {name: value.clone().requires_grad_(name != "sigmas") for name, value in tensors().items()}
        end = sample(mixture, start.to(dtype), TensorTable(**values))
        assert end.dtype == dtype
        end.double().square().sum().backward()
        return torch.cat([values[part].grad.flatten() for part in PARTS])
    coarse, exact = gradients(state), gradients(torch.float64)
    assert coarse.dtype == torch.float64
    assert float((coarse - exact).norm() / exact.norm()) < tolerance    # some 100 roundings of the state


def test_the_frozen_table_of_a_learned_one_is_checked():
    values = tensors()
    with pytest.raises(ValueError, match="breaks the constant law"):
        TensorTable(**values).frozen()
    assert TensorTable(**values).frozen(keeps_constants=False).calls == 4
