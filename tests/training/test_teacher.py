"""The teacher may be a host's sampler function: deterministic, converged, and cut to a window."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Preset, classical, mixture, schedules
from s4s.training.benchmark.host_race import RaceProgress, Terms, hold_race
from s4s.training.distil import distil
from s4s.training.run import Run
from s4s.training.sources import baseline_teacher, recorded_teacher
from s4s.training.teacher.pairs import make_pairs, rmse
from s4s.training.teacher.solvers import below, refined, teacher_levels, teacher_of
from tests.toy import small, toy_source

LEVELS = schedules.karras(20, 0.03, 14.6146)


def k_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler in k-diffusion's signature."""
    for here, there in zip(sigmas[:-1], sigmas[1:]):
        denoised = model(x, here * x.new_ones([x.shape[0]]), **(extra_args or {}))
        x = x + (x - denoised) / here * (there - here)
    return x


def k_ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Euler with fresh noise in every step."""
    x = k_euler(model, x, sigmas, extra_args)
    return x + 0.05 * torch.randn_like(x)


def test_a_hosts_sampler_makes_the_targets(tmp_path):
    source = toy_source()
    source.teacher = (k_euler, torch.tensor(LEVELS))
    made = teacher_of(source, "auto", 50)
    got = make_pairs(source, range(4), made.from_level(None), "", quiet=True).target
    wanted = make_pairs(source, range(4), classical.euler(LEVELS), "", quiet=True).target
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-4)          # float32, sums in another order
    assert made.description == "k_euler, 20 calls"
    source.teacher = (k_euler, LEVELS)
    assert distil(source, small(iterations=1), tmp_path).training["teacher"] == "k_euler, 20 calls"


def test_a_stochastic_teacher_is_refused_with_the_reason():
    source = toy_source()
    source.teacher = (k_ancestral, LEVELS)
    with pytest.raises(ValueError, match="k_ancestral is stochastic.*not an ancestral"):
        teacher_of(source, "auto", 50)


def test_the_check_leaves_the_hosts_random_numbers_alone():
    source = toy_source()
    source.teacher = (k_euler, LEVELS)
    before = torch.get_rng_state()
    teacher_of(source, "auto", 50)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("levels", [[1.0, 2.0, 0.0], [1.0, 0.5], [[1.0, 0.0]]])
def test_levels_that_are_no_schedule_are_refused(levels):
    source = toy_source()
    source.teacher = (k_euler, levels)
    with pytest.raises(ValueError, match="falling ones that end in 0"):
        teacher_of(source, "auto", 50)


def test_doubling_a_sampler_halves_the_error_of_a_first_order_one():
    source, found = toy_source(), []
    for calls in (20, 40):
        source.teacher = (k_euler, schedules.karras(calls, 0.03, source.sigma_max))
        made = teacher_of(source, "auto", 50)
        pairs = make_pairs(source, range(16), made.from_level(None), "", quiet=True)
        found.append(rmse(make_pairs(source, range(16), made.finer(None), "", quiet=True).target, pairs.target))
    assert 0.35 < found[1] / found[0] < 0.75                            # the error of Euler falls with the step


@pytest.mark.parametrize("flow", [False, True])
def test_finer_levels_keep_the_ends_and_fall(flow):
    levels = schedules.linear_flow(10, 3.0) if flow else LEVELS
    finer = refined(levels, flow)
    assert len(finer) == 2 * len(levels) - 1 and (np.diff(finer) < 0).all()
    assert finer[0] == pytest.approx(levels[0]) and finer[-2] == pytest.approx(levels[-2]) and finer[-1] == 0


def test_few_calls_are_not_spent_where_all_is_noise():
    """A model of zero terminal SNR starts at sigma 4518, where Karras' levels would spend half of 20 calls."""
    source = replace(toy_source(), levels=schedules.zero_snr_levels(4518.0))
    fine = make_pairs(source, range(16), classical.dpmpp_3m(schedules.karras(400, 0.03, 4518.0)), "", quiet=True).target

    def off(levels):
        made = make_pairs(source, range(16), classical.dpmpp_3m(levels), "", quiet=True).target
        return float((made - fine).square().mean().sqrt())
    cut = teacher_of(source, "auto", 20).from_level(None)
    assert cut.sigmas[0] == pytest.approx(4518) and (cut.sigmas > 80).sum() < 6 and cut.calls == 20
    assert off(cut.sigmas.copy()) < 0.3 * off(schedules.karras(20, 0.03, 4518.0))
    assert teacher_levels(toy_source(), 20) == pytest.approx(schedules.karras(20, *toy_source().levels[[0, -1]]))


@pytest.mark.parametrize("flow", [False, True])
def test_the_levels_of_a_teacher_reach_both_ends_and_fall(flow):
    for source in (toy_source(flow), replace(toy_source(flow), levels=toy_source(flow).levels[:900])):
        levels = teacher_levels(source, 32)
        assert len(levels) == 33 and (np.diff(levels) < 0).all()
        assert levels[[0, -2, -1]] == pytest.approx([source.levels[-1], source.levels[0], 0])


def test_a_window_keeps_the_levels_the_teacher_would_visit_there():
    cut = below(LEVELS, 1.0)
    assert cut[0] == 1.0 and cut[1] < 0.99 and cut[-1] == 0 and set(cut[1:]) <= set(LEVELS)


@pytest.mark.parametrize(("chosen", "words"), [
    (True, ", as expected of a distilled model; any other model needs more teacher calls"),
    (False, ", WARNING: more than a fifth of the tables' expected error")])
def test_only_a_teacher_that_nobody_chose_is_warned_about(tmp_path, monkeypatch, chosen, words):
    source, said = toy_source(), []
    monkeypatch.setattr(Run, "_affords", lambda *_: False)          # a budget that pays for no finer one
    source.teacher = baseline_teacher(source, "euler, sgm_uniform", 4) if chosen else None
    distil(source, small(iterations=1, calls=(3,), teacher_calls=6, teacher="euler"), tmp_path, say=said.append)
    [line] = [line for line in said if line.startswith("teacher ")]
    assert line.endswith(words), line


def test_a_baseline_by_its_name_makes_the_targets_with_just_so_many_calls(tmp_path):
    source = toy_source()
    source.teacher = baseline_teacher(source, "euler, sgm_uniform", 8)
    preset = distil(source, small(iterations=1), tmp_path)
    levels = schedules.sgm_uniform(8, source.levels)
    assert preset.training["teacher"] == "euler, sgm_uniform, 8 calls"          # though its error is a large one
    assert preset.training["teacher_levels"] == list(levels)
    table = classical.euler(levels)
    wanted = make_pairs(source, range(4), table, "", quiet=True).target
    for teacher in (source.teacher, recorded_teacher(source, preset)):
        source.teacher = teacher
        made = make_pairs(source, range(4), teacher_of(source, "auto", 50).from_level(None), "", quiet=True).target
        torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)


def test_a_baseline_of_two_calls_a_step_takes_half_the_steps():
    source = toy_source()
    source.teacher = baseline_teacher(source, "heun,karras", 9)
    assert teacher_of(source, "auto", 50).description == "heun, karras, 7 calls"    # its last step is one of Euler's


@pytest.mark.parametrize("name", ["euler, nowhere", "nobody, karras", "euler, oss_flux"])
def test_a_baseline_that_there_is_none_of(name):
    with pytest.raises(ValueError, match='use a solver and a schedule, such as "euler, sgm_uniform"'):
        baseline_teacher(toy_source(), name, 8)


@pytest.mark.parametrize("changes", [{"teacher": "unipc_bh2_3, 32 calls", "teacher_levels": None},
                                     {"teacher": "k_euler, 8 calls"}, {"teacher": 7}, {"teacher_levels": "14.6"},
                                     {"teacher_levels": []}, {"teacher_levels": [True, "x"]},
                                     {"teacher_levels": [5.0, 1.0, 0.0]},
                                     {"teacher_levels": [14.6146, 10 ** 400, 0.0]}])
def test_a_preset_without_a_teacher_of_its_own_leaves_the_default(changes):
    record = {"teacher": "euler, 2 calls", "teacher_levels": [14.6146, 1.0, 0.0]}
    source = toy_source()
    table = classical.euler(schedules.karras(4, 0.03, 14.6146))
    assert recorded_teacher(source, Preset("toy", {"calls4": table}, source.model, record)) is not None
    assert recorded_teacher(source, Preset("toy", {"calls4": table}, source.model, {**record, **changes})) is None


def taught_source(cfg=5.0, **changes):
    """A distilled model, whose images lie half way to the middle, with the undistilled as its teacher."""
    def network(x, sigma, label, cfg):
        assert (cfg == teacher.cfg).all() and label.dtype == torch.long
        return mixture(x, sigma) * cfg[:, None] / 5.0
    teacher = replace(toy_source(network=network), name="undistilled", cfg=cfg, any_cfg=True, **changes)
    return replace(toy_source(network=lambda x, sigma, label, cfg=None: 0.5 * mixture(x, sigma)), any_cfg=True,
                   teacher_source=teacher)


def test_another_model_makes_the_targets_at_its_own_cfg_and_its_calls_count():
    source = taught_source()
    own, made = source.network, teacher_of(source, "auto", 20)
    got = make_pairs(source, range(4), made.from_level(None), "", quiet=True)
    wanted = make_pairs(toy_source(), range(4), teacher_of(toy_source(), "auto", 20).from_level(None), "", quiet=True)
    torch.testing.assert_close(got.target, wanted.target)
    assert made.description == "undistilled at cfg 5: unipc_bh2_3, 20 calls"
    assert source.model_calls == 80 and source.network is own and (got.extra["cfg"] == 1).all()
    half = make_pairs(source, range(4), classical.euler(LEVELS), "", quiet=True).target         # the student's own
    assert half.abs().mean() < 0.6 * got.target.abs().mean()
    window = make_pairs(source, range(4), made.from_level(1.0), "", quiet=True, clean=got.target)
    assert float(made.from_level(1.0).sigmas[0]) == 1 and rmse(window.target, got.target) < 1


def test_the_network_is_the_students_again_after_the_teacher_fails():
    def broken(*_, **__):
        raise KeyboardInterrupt
    source = taught_source()
    source.teacher_source.network, own = broken, source.network
    with pytest.raises(KeyboardInterrupt):
        make_pairs(source, range(2), teacher_of(source, "auto", 20).from_level(None), "", quiet=True)
    assert source.network is own


def test_a_run_learns_from_another_model_and_is_another_run_with_another_one(tmp_path):
    said: list = []
    made = distil(taught_source(), small(), tmp_path, say=said.append)
    assert made.training["teacher"] == "undistilled at cfg 5: unipc_bh2_3, 20 calls"
    assert made.training["taught_by"] == "undistilled" and made.training["cfg"] == [1.0, 1.0]
    assert any(line.startswith("teacher undistilled at cfg 5") for line in said)
    for other in (taught_source(cfg=4.0), replace(taught_source(), teacher_source=None), taught_source(weights="b")):
        with pytest.raises(ValueError, match="holds a run of another model"):
            distil(other, small(), tmp_path, resume=True)
    race_of(made, taught_source(), "teacher undistilled at cfg 5", "is not the teacher here")
    race_of(made, replace(taught_source(), teacher_source=None), "it learned from undistilled, which is not the "
            "teacher here", "undistilled at cfg 5")


def race_of(preset, source, words, never):
    summary = hold_race(source, preset, Terms(("calls4",), range(4), 0, 20), RaceProgress()).summary
    assert words in summary and never not in summary


@pytest.mark.parametrize("changes", [{"levels": schedules.zero_snr_levels(4518.0)}, {"shape": (3,)}, {}])
def test_another_model_that_cannot_teach_is_refused(tmp_path, changes):
    source = taught_source(**changes)
    source.teacher = None if changes else (k_euler, LEVELS)
    words = "cannot be the teacher of toy" if changes else "undistilled as the teacher runs the trainer's own solver"
    with pytest.raises(ValueError, match=words):
        distil(source, small(), tmp_path / "run")
    assert source.model_calls == 0 and not (tmp_path / "run").exists()
