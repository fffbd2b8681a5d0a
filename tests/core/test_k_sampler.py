"""The k-diffusion door: what a host passes in and is told back."""

import inspect
from functools import partial

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Table, check_levels, classical, mixture, sample, sample_table, schedules
from tests.toy import OnApple

SIGMAS = torch.from_numpy(schedules.karras(6, 0.03, 14.6))


def host(sampler, noise, sigmas, **options):
    """What a host does with a sampler: float32 levels, extra arguments, a preview callback, no gradients."""
    previews = []

    def model(x, sigma, cond, model_options):
        assert sigma.shape == (len(x),) and cond == "a cat" and model_options == {"cfg": 7}
        return mixture(x, sigma)

    def preview(report):
        previews.append({**report, "sigma": float(report["sigma"]), "sigma_hat": float(report["sigma_hat"])})
    with torch.inference_mode():
        end = sampler(model, noise * sigmas[0], sigmas.float(), callback=preview, disable=True,
                      extra_args={"cond": "a cat", "model_options": {"cfg": 7}}, **options)
    return end, previews


def test_a_host_can_call_it_like_any_sampler_of_k_diffusion(noise, k_diffusion_sampling):
    ours, our_previews = host(partial(sample_table, table=classical.dpmpp_2m), noise.float(), SIGMAS)
    theirs, their_previews = host(k_diffusion_sampling.sample_dpmpp_2m, noise.float(), SIGMAS)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)    # float32 states that start at 14.6 x noise
    assert [r["i"] for r in our_previews] == [r["i"] for r in their_previews] == list(range(6))
    for report, wanted in zip(our_previews, their_previews):
        assert report["sigma"] == pytest.approx(wanted["sigma"], rel=1e-6)
        assert report["sigma_hat"] == pytest.approx(wanted["sigma_hat"], rel=1e-6)
        torch.testing.assert_close(report["x"], wanted["x"], rtol=0, atol=1e-4)
        torch.testing.assert_close(report["denoised"], wanted["denoised"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["dpmpp_2m", "heun", "euler"])
def test_in_float64_it_equals_k_diffusion(name, noise, k_diffusion_sampling):
    x = 14.6 * noise
    expected = getattr(k_diffusion_sampling, f"sample_{name}")(mixture, x, SIGMAS, disable=True)
    got = sample_table(mixture, x, SIGMAS, disable=True, table=classical.SOLVERS[name])
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-11)


def test_the_leading_arguments_are_those_of_k_diffusion(k_diffusion_sampling):
    wanted = list(inspect.signature(k_diffusion_sampling.sample_dpmpp_2m).parameters)
    assert list(inspect.signature(sample_table).parameters)[:len(wanted)] == wanted


@pytest.mark.parametrize("table", [classical.euler, classical.euler(SIGMAS.numpy())])
def test_levels_may_lie_on_a_device_without_float64(noise, table):
    levels, x = SIGMAS.float().as_subclass(OnApple), (14.6 * noise).float()
    assert torch.equal(sample_table(mixture, x, levels, disable=True, table=table),
                       sample_table(mixture, x, levels.cpu(), disable=True, table=table))


def test_a_function_gets_the_hosts_levels_in_float64(noise):
    given = []

    def make(sigmas):
        given.append(sigmas)
        return classical.euler(sigmas)
    sample_table(mixture, noise, SIGMAS.float(), disable=True, table=make)
    assert given[0].dtype == torch.float64 and given[0].device.type == "cpu"
    assert torch.equal(given[0], SIGMAS.float().double())


def test_a_table_does_what_the_loop_does_with_it(noise):
    table = classical.unipc(SIGMAS)
    got = sample_table(mixture, noise, SIGMAS, disable=True, table=table)
    assert torch.equal(got, sample(mixture, noise, table))


@pytest.mark.parametrize("host_levels", [SIGMAS.float(), SIGMAS.half(), SIGMAS * 1.0005, SIGMAS.tolist(),
                                         SIGMAS.numpy()])
def test_a_table_meets_levels_that_are_its_own_but_for_rounding(host_levels):
    check_levels(classical.euler(SIGMAS), host_levels)


FOREIGN = {
    "another count": (schedules.karras(5, 0.03, 14.6), "6 calls from sigma 14.6 to 0, .* offers 5 steps"),
    "another top": (schedules.karras(6, 0.03, 10.0), "the host offers 6 steps from 10 to 0"),
    "other levels between": (schedules.exponential(6, 0.03, 14.6), "from 14.6 to 0 with other levels between"),
    "an end above 0": (np.append(SIGMAS[:-1].numpy(), 0.01), "6 steps from 14.6 to 0.01"),
    "part of the way": (SIGMAS[2:].numpy(), "the host offers 4 steps from 2.24"),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_table_refuses_levels_it_was_not_made_for(case, noise):
    levels, message = FOREIGN[case]
    with pytest.raises(ValueError, match=message + ".*use the schedule that comes with the preset"):
        sample_table(mixture, noise, torch.from_numpy(levels), table=classical.dpmpp_2m(SIGMAS))


@pytest.mark.parametrize("levels", [[], [3.0]])
def test_without_a_step_there_is_nothing_to_do(levels, noise):
    def never(*_, **__):
        raise AssertionError("called")
    for table in (never, classical.dpmpp_2m(SIGMAS)):
        assert sample_table(never, noise, torch.tensor(levels), callback=never, table=table) is noise


def test_the_callback_hears_of_every_network_call_with_tensors_of_its_own(noise):
    reports, x = [], (14.6 * noise).requires_grad_()
    sample_table(mixture, x, SIGMAS, callback=reports.append, disable=True, table=classical.heun)
    assert [report["i"] for report in reports] == list(range(11))        # 2 calls a step, 1 for the step to 0
    for report, row in zip(reports, classical.heun(SIGMAS).rows, strict=True):
        assert set(report) == {"x", "i", "sigma", "sigma_hat", "denoised"}
        assert float(report["sigma"]) == pytest.approx(row.sigma, rel=1e-6)
        assert float(report["sigma_hat"]) == pytest.approx(row.query, rel=1e-6)
        assert not any(report[name].requires_grad for name in ("x", "sigma", "sigma_hat", "denoised"))
        assert report["x"].shape == report["denoised"].shape == noise.shape
    assert x.requires_grad                                               # the loop itself keeps its gradients


def test_the_callback_tells_nominal_and_asked_level_apart(noise):
    table, reports = Table([3.0, 0.0], [2.5], [1.1], [0.0], [[1.0]]), []
    sample_table(mixture, noise, torch.tensor([3.0, 0.0]), None, reports.append, True, table=table)
    assert (float(reports[0]["sigma"]), float(reports[0]["sigma_hat"])) == (3.0, 2.5)


def test_a_host_may_do_arithmetic_with_the_reported_levels(noise):
    """WebUI's preview and ComfyUI's hooks compare and convert them as tensors on the state's device."""
    seen = []

    def look(report):
        sigma = report["sigma"]
        seen.append((sigma > 1, sigma.item(), sigma.device == report["x"].device))
    sample_table(mixture, noise, SIGMAS, callback=look, disable=True, table=classical.euler)
    assert [bool(above) for above, _, _ in seen] == [bool(sigma > 1) for sigma in SIGMAS[:-1]]
    assert all(same for _, _, same in seen)


class Interrupt(BaseException):
    """What a host throws to stop."""


@pytest.mark.parametrize("error", [RuntimeError, Interrupt])
def test_what_callback_and_model_raise_passes_through(error, noise, capsys):
    def stop(*_, **__):
        raise error("stop")
    with pytest.raises(error, match="stop"):
        sample_table(mixture, noise, SIGMAS, callback=stop, disable=False, table=classical.euler)
    with pytest.raises(error, match="stop"):
        sample_table(stop, noise, SIGMAS, disable=False, table=classical.euler)
    assert "0/6" in capsys.readouterr().err                                 # the bar is closed where it stood


@pytest.mark.parametrize("disable, shown", [(True, False), (False, True), (None, None)])
def test_the_progress_bar_counts_calls_and_can_be_silent(disable, shown, noise, capsys):
    sample_table(mixture, noise, SIGMAS, disable=disable, table=classical.heun)
    printed = capsys.readouterr().err
    if shown is not None:                                      # None leaves it to whether there is a terminal
        assert ("11/11" in printed) == shown and bool(printed) == shown


def test_the_callers_latent_is_not_written_to(noise):
    before = noise.clone()
    sample_table(mixture, noise, SIGMAS, disable=True, table=classical.dpmpp_2m)
    assert torch.equal(noise, before)
