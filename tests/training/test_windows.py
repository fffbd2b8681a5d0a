"""Windows: start states are images noised to a level of the preset's own curve, and their tables beat the classics."""

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, sample, schedules
from s4s.training.baselines.measure import baselines
from s4s.training.baselines.schedules import schedules_for, window_levels
from s4s.training.distil import distil, race, unseen_pairs
from s4s.training.parametrization.parameters import Parameters
from s4s.training.run_tables import table_name
from s4s.training.teacher.pairs import known_pairs
from tests.toy import small, toy_source


@pytest.mark.parametrize("flow", [False, True])
def test_one_run_learns_full_tables_and_windows_that_win(tmp_path, flow):
    source = toy_source(flow)
    config = small(calls=(3, 4), windows=(0.5, 1.0), iterations=4, schedule="auto")
    made = distil(source, config, tmp_path)
    curve = made.tables["calls4"].sigmas
    top = window_levels(curve, 0.5, 1, flow)[0]
    assert set(made.tables) == {"calls3", "calls4", table_name(3, top), table_name(4, top)}
    table = made.tables[table_name(3, top)]
    assert table.sigmas[0] == top and table.sigmas[-1] == 0 and made.counts == [3, 4]
    raced = race(source, made, table_name(3, top), unseen_pairs(source, 24, table))
    assert raced.scores["ratio_median"] > 1.2           # the RMSE hangs on the few seeds that lie between two points
    assert all(entry.table.sigmas[0] == pytest.approx(top, rel=0.02) for entry in raced.ranked)


def test_a_windows_pairs_start_on_the_teachers_images_and_cost_no_second_teacher(tmp_path):
    source = toy_source()
    starts = []
    network = source.network

    def watching(x, sigma, label):
        starts.append((float(sigma[0]), len(x)))
        return network(x, sigma, label)
    source.network = watching
    distil(source, small(windows=(1.0, 0.4), iterations=1, schedule="karras"), tmp_path)
    at_the_top = sum(images for sigma, images in starts if sigma == pytest.approx(source.sigma_max))
    alone = toy_source()
    starts.clear()
    alone.network = watching
    distil(alone, small(iterations=1, schedule="karras"), tmp_path / "alone")
    assert at_the_top == sum(images for sigma, images in starts if sigma == pytest.approx(source.sigma_max))


@pytest.mark.parametrize("flow", [False, True])
def test_start_states_follow_the_models_law_of_noise(flow):
    source = toy_source(flow)
    clean = torch.tensor([[1.0, 0.5], [-0.6, 0.8]])
    pairs = known_pairs(source, range(2), clean, clean)
    wanted = clean * (1 - 0.3 if flow else 1) + 0.3 * pairs.noise
    torch.testing.assert_close(pairs.start(0.3, flow), wanted, rtol=0, atol=1e-6)
    assert not torch.equal(pairs.noise, source.noise(range(2)))         # not the noise the image was made from
    torch.testing.assert_close(known_pairs(source, range(2), clean).start(0.3, flow), 0.3 * source.noise(range(2)))


@pytest.mark.parametrize("flow", [False, True])
def test_the_whole_window_is_the_curve_and_half_of_it_its_second_half(flow):
    curve = schedules.linear_flow(6, 3.0) if flow else schedules.karras(6, 0.03, 14.6)
    np.testing.assert_allclose(window_levels(curve, 1.0, 6, flow), curve, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(window_levels(curve, 0.5, 3, flow), curve[3:], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(window_levels(curve, 1.0, 9, flow), schedules.stretched(curve, 9, flow), rtol=1e-9,
                               atol=1e-12)


def test_a_window_only_meets_schedules_that_start_there():
    source = toy_source(flow=True)
    known = schedules_for(source, 0.6)
    assert "shift_2" not in known and "simple" in known
    assert all(levels(4)[0] == pytest.approx(0.6, rel=0.02) for levels in known.values())


def test_a_query_above_the_windows_start_is_allowed_up_to_the_models_top():
    parameters = Parameters(schedules.karras(3, 0.03, 2.0), highest=14.6)
    vector = parameters.initial()
    vector[2] = 0.5
    assert parameters.frozen(vector).query[0] == pytest.approx(2.0 * np.exp(0.5))
    vector[2] = 5.0
    assert parameters.frozen(vector).query[0] == 14.6


def test_classical_flow_solvers_keep_constants_from_a_level_below_one():
    for name in ("dpmpp_2m", "lms_2", "euler"):
        made = classical.SOLVERS[name](np.array([0.6, 0.3, 0.1, 0.0]), flow=True)
        clean = torch.tensor([[1.0, -1.0]])
        end = sample(lambda x, sigma: clean.expand_as(x), 0.4 * clean + 0.6 * torch.randn(1, 2), made)
        torch.testing.assert_close(end, clean)


def test_windows_that_cannot_work_are_refused():
    for windows, words in (((0.5,), "including 1"), ((1.0, 1.5), "up to 1"), ((1.0, 0.0), "above 0"),
                           ((1.0, 1.0), "twice")):
        with pytest.raises(ValueError, match=words):
            small(windows=windows)


def test_a_window_with_fewer_levels_than_a_schedule_needs_starts_on_another(tmp_path):
    """Below denoise 0.02 this model has one or two levels of its own."""
    made = distil(toy_source(), small(iterations=1, windows=(1.0, 0.02), schedule="auto"), tmp_path)
    assert len(made.tables) == 2 and "beta" not in schedules_for(toy_source(), 0.03)
    assert baselines(toy_source(), 4, top=0.03)
