"""The loop: what a table does to a state, in every dtype and rank, and what it never does."""

import gc
import weakref

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Table, classical, mixture, sample, schedules


def random_table(calls: int, seed: int = 0) -> Table:
    """A dense table that obeys the law: every entry in use, every query and scale off its default."""
    rng = np.random.default_rng(seed)
    weights = np.tril(rng.normal(0, 0.4, (calls, calls)))
    weights[-1, -1] += 1 - weights[-1].sum()
    carry = np.append(rng.uniform(0.2, 0.8, calls - 1), 0.0)
    sigmas = np.append(np.geomspace(5, 0.5, calls), 0.0)
    return Table(sigmas, sigmas[:-1] * 1.1, rng.uniform(0.8, 1.2, calls), carry, weights)


def plainly(denoiser, x, table: Table):
    """The two formulas of Table's docstring, word for word."""
    predictions = []
    for i in range(table.calls):
        sigma = torch.full((len(x),), table.query[i], dtype=x.dtype)
        predictions.append(denoiser(table.scale[i] * x, sigma))
        x = table.carry[i] * x + sum(table.weights[i, j] * predictions[j] for j in range(i + 1))
    return x


def shrink(x, sigma):
    """A denoiser for any rank: towards 0 by how much noise there is."""
    return torch.tanh(x) / (1 + sigma.reshape(-1, *[1] * (x.ndim - 1)))


@pytest.mark.parametrize("calls", [1, 2, 7])
def test_the_loop_is_the_formula(calls, noise):
    table = random_table(calls)
    torch.testing.assert_close(sample(mixture, 5 * noise, table), plainly(mixture, 5 * noise, table),
                               rtol=0, atol=1e-12)         # other orders of summation: rounding only


def test_one_row_is_euler(noise):
    for end in (0.0, 0.7):
        x = 3 * noise
        denoised = mixture(x, torch.full((5,), 3.0, dtype=torch.float64))
        got = sample(mixture, x, classical.euler([3.0, end]))
        torch.testing.assert_close(got, x + (end - 3.0) * (x - denoised) / 3.0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", [(3, 4), (2, 3, 8), (2, 4, 6, 5), (1, 4, 3, 6, 5)])
def test_any_rank_gives_what_the_flattened_state_gives(shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    table = random_table(4)
    got = sample(shrink, x, table)
    assert got.shape == x.shape
    torch.testing.assert_close(got, sample(shrink, x.flatten(1), table).view(shape), rtol=0, atol=0)


@pytest.mark.parametrize("state", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("answer", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_state_keeps_its_dtype_whatever_the_network_answers_in(state, answer, noise):
    seen = set()

    def network(x, sigma):
        seen.add((x.dtype, sigma.dtype))
        return shrink(x.double(), sigma.double()).to(answer)
    got = sample(network, noise.to(state), random_table(6))
    assert got.dtype == state
    assert seen == {(state, torch.promote_types(state, torch.float32))}    # sigma is float32 at least
    exact = plainly(lambda x, sigma: shrink(x, sigma), noise.to(state).double(), random_table(6))
    coarser = max(torch.finfo(state).eps, torch.finfo(answer).eps)
    # 6 rows of up to 7 sums of values below 1, each rounded in the coarser of the two dtypes; most cancel
    torch.testing.assert_close(got.double(), exact, rtol=0, atol=coarser)


def forgetful(calls: int) -> Table:
    """Rows without x whose newest weight is 1: the next state may not be the prediction itself."""
    sigmas = np.linspace(3, 0, calls + 1)
    weights = np.tril(np.full((calls, calls), 0.5), -1) + np.eye(calls)
    return Table(sigmas, sigmas[:-1], np.ones(calls), np.zeros(calls), weights, keeps_constants=False)


@pytest.mark.parametrize("make", [random_table, forgetful])
def test_the_start_and_the_predictions_are_never_written_to(make, noise):
    given, kept = [noise], [noise.clone()]

    def remember(x, sigma):
        denoised = mixture(x, sigma)
        given.append(denoised)
        kept.append(denoised.clone())
        return denoised
    sample(remember, noise, make(4))
    for now, then in zip(given, kept, strict=True):
        assert torch.equal(now, then)


def test_a_denoiser_that_returns_its_input_cannot_make_the_loop_overwrite_it(noise):
    before = noise.clone()
    sample(lambda x, sigma: x, noise, classical.dpmpp_2m([3.0, 2.0, 1.0, 0.0]))
    assert torch.equal(noise, before)


@pytest.mark.parametrize("name", ["dpmpp_3m", "heun", "unipc_bh2_3"])
def test_a_batch_item_is_what_it_is_alone(name, noise):
    table = classical.SOLVERS[name](schedules.karras(6, 0.03, 14.6))
    together = sample(mixture, 14.6 * noise, table)
    for item in range(len(noise)):
        alone = sample(mixture, 14.6 * noise[item:item + 1], table)
        torch.testing.assert_close(together[item:item + 1], alone, rtol=0, atol=1e-13)


def test_sigma_is_one_level_per_item_and_extra_arguments_arrive(noise):
    seen = []

    def denoiser(x, sigma, strength, **rest):
        seen.append((sigma.tolist(), strength, rest))
        return x
    sample(denoiser, noise, classical.euler([3.0, 1.0, 0.0]), {"strength": 2, "cond": "a"})
    assert seen == [([3.0] * 5, 2, {"cond": "a"}), ([1.0] * 5, 2, {"cond": "a"})]


@pytest.mark.parametrize("name, alive", [("euler", 1), ("dpmpp_2m", 2), ("dpmpp_3m", 3), ("heun", 2)])
def test_a_prediction_without_further_use_is_freed(name, alive, noise):
    table, born, counts = classical.SOLVERS[name](np.geomspace(10, 0.1, 9)), [], []

    def tracked(x, sigma):
        denoised = mixture(x, sigma)
        counts.append(1 + sum(ref() is not None for ref in born))         # while the network holds its answer
        born.append(weakref.ref(denoised))
        return denoised
    gc.disable()                                        # freed by the loop itself, not by a lucky collection
    try:
        sample(tracked, noise, table)
    finally:
        gc.enable()
    assert max(counts) == alive
    assert all(ref() is None for ref in born)


def test_old_states_are_freed(noise):
    states = []

    def tracked(x, sigma):
        assert all(ref() is None for ref in states[1:])            # the first is the caller's
        states.append(weakref.ref(x))
        return mixture(x, sigma)
    sample(tracked, noise, classical.euler(np.geomspace(10, 0.1, 6)))
    assert len(states) == 5


def test_a_scaled_copy_lives_no_longer_than_its_call(noise):
    shown = []

    def tracked(x, sigma):
        shown.append(weakref.ref(x))
        return mixture(x, sigma)
    held = []
    sample(tracked, noise, random_table(4), on_call=lambda *_: held.append(shown[-1]() is not None))
    assert held == [False] * 4


def test_on_call_is_told_of_every_call_in_order(noise):
    table, told = random_table(4), []
    got = sample(mixture, noise, table, on_call=lambda *call: told.append(call) or "ignored")
    assert [i for i, *_ in told] == [0, 1, 2, 3]
    assert [row for _, _, row, _ in told] == list(table.rows)
    assert told[0][1] is noise
    for (_, x, row, denoised), (_, following, _, _) in zip(told, told[1:]):
        level = torch.full((5,), row.query, dtype=torch.float64)
        torch.testing.assert_close(denoised, mixture(row.scale * x, level), rtol=0, atol=0)
        assert following is not x
    assert got is not told[-1][1]


class HostInterrupt(BaseException):
    """What a host throws when its user presses the stop button."""


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, HostInterrupt])
def test_what_the_network_or_the_watcher_raises_passes_through(error, noise):
    def stop(*_):
        raise error("stop")
    with pytest.raises(error, match="stop"):
        sample(stop, noise, random_table(3))
    with pytest.raises(error, match="stop"):
        sample(mixture, noise, random_table(3), on_call=stop)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_hosts_may_run_it_without_gradients(mode, noise):
    table = classical.dpmpp_2m(schedules.karras(5, 0.1, 10))
    expected = sample(mixture, 10 * noise, table)
    with mode():
        got = sample(mixture, 10 * noise, table)
        assert not got.requires_grad
        made_inside = sample(mixture, 10 * noise.clone(), classical.dpmpp_2m(schedules.karras(5, 0.1, 10)))
    assert torch.equal(got, expected) and torch.equal(made_inside, expected)


def test_a_table_lowered_under_inference_mode_serves_outside(noise):
    with torch.inference_mode():
        table = classical.unipc(schedules.karras(5, 0.1, 10))
    x = (10 * noise).requires_grad_()
    sample(mixture, x, table).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_scale_and_query_show_a_network_the_unshifted_input_at_the_shifted_time(noise):
    """The network sees x / sqrt(1 + sigma^2) and its own clock: the decoupled time moves only the clock."""
    sigma, query, seen = 3.0, 2.2, []

    def wrapped(x, level):                              # an eps network behind k-diffusion's wrapper
        shown = x / torch.sqrt(1 + level[:, None] ** 2)
        seen.append((shown, level))
        return x - level[:, None] * torch.sin(shown)
    scale = np.sqrt(1 + query ** 2) / np.sqrt(1 + sigma ** 2)
    x = sigma * noise
    sample(wrapped, x, Table([sigma, 0.0], [query], [scale], [0.0], [[1.0]]))
    (shown, level), = seen
    torch.testing.assert_close(shown, x / np.sqrt(1 + sigma ** 2), rtol=0, atol=1e-14)
    assert level.tolist() == [query] * 5
