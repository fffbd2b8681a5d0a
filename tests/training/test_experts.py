"""Training for two models that take turns: one table that changes models at a level of its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import classical, experts, mixture, sample
from s4s.training.baselines.measure import baselines
from s4s.training.distil import Config, distil, estimate, race, unseen_pairs
from s4s.training.parametrization.parameters import Parameters
from s4s.training.starts.search import vector_of
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.toy import toy_source

BOUNDARY = 0.875
SMALL = dict(name="two", calls=(3,), budget=3000, pairs=32, validation=16, teacher_calls=24)


def two_models(boundary: float = BOUNDARY, seen=None):
    """A source that asks one mixture above the boundary, and another, turned and moved, from there on."""
    turned = torch.tensor([[0.8, -0.6], [0.6, 0.8]])

    def network(x, sigma, label):
        high = experts.is_high(sigma, boundary)
        if seen is not None:
            seen.extend(high.tolist())
        other = 0.9 * mixture(x @ turned, sigma, True) @ turned.T + 0.05
        return torch.where(high[:, None], mixture(x, sigma, True), other)
    return replace(toy_source(True), network=network, about={"experts": {"boundary": boundary, "cfg": 2.0}})


def test_a_run_learns_one_table_that_changes_models_at_the_boundary(tmp_path):
    source, said = two_models(), []
    made = distil(source, Config.of(**SMALL), tmp_path, say=said.append)
    began, ended = made.training["held_out_rmse"]["calls3"]
    assert made.boundary == BOUNDARY and BOUNDARY in made.tables["calls3"].sigmas and ended < began
    assert made.training["experts"] == {"boundary": BOUNDARY, "cfg": 2.0}
    found = race(source, made, "calls3", unseen_pairs(source, 16))
    assert found.scores["ratio"] > 1 and found.learned.errors.mean() == pytest.approx(ended, rel=0.7)


def test_learning_moves_both_halves_and_asks_each_model_at_its_levels_alone(tmp_path):
    parameters = Parameters.of(two_models(), np.array([1.0, 0.9, 0.7, 0.4, 0.0]))
    assert parameters.start[2] == BOUNDARY and [half.calls for half in parameters.halves] == [2, 2]
    vector = parameters.initial()
    noise = torch.randn(len(vector), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for size in (0.0, 0.3, 3.0):
        table = parameters.frozen(vector + size * noise)
        high, low = experts.halves(table, BOUNDARY)             # refuses what asks the other model or looks back
        assert table.sigmas[2] == BOUNDARY and high.keeps_constants and low.keeps_constants
        seen: list = []
        sample(two_models(seen=seen).network, torch.randn(2, 2, generator=torch.Generator().manual_seed(1)), table,
               {"label": torch.zeros(2)})
        assert seen == [True] * 4 + [False] * 4


def test_the_start_is_the_solver_in_two_samplers_exactly():
    levels = experts.pinned([1.0, 0.95, 0.8, 0.5, 0.2, 0.0], BOUNDARY)
    table = experts.restarted(classical.SOLVERS["ipndm_3"], levels, BOUNDARY, True)
    parameters = Parameters.of(two_models(), levels)
    np.testing.assert_allclose(parameters.frozen(vector_of(parameters, table)).weights, table.weights, rtol=0,
                               atol=1e-8)


def test_a_baseline_starts_anew_where_the_models_change():
    source, only = two_models(), {("dpmpp_2m", "shift_5"), ("dpmpp_2m", "simple")}
    table = baselines(source, 6, only)[-1].table
    turn = experts.turn_of(table.sigmas, BOUNDARY)
    assert 0 < turn < 6 and table.sigmas[turn] < BOUNDARY and not table.weights[turn:, :turn].any()
    alone = classical.dpmpp_2m(np.array(table.sigmas[turn:]), True)
    np.testing.assert_allclose(table.weights[turn:, turn:], alone.weights)
    assert all(BOUNDARY in entry.table.sigmas for entry in baselines(source, 6, only, pin=True))
    assert baselines(toy_source(True), 6, only, pin=True)[-1].table.weights[turn:, :turn].any()


def test_the_teacher_converges_though_the_models_differ_at_the_boundary():
    source, truth = two_models(), teacher_table(two_models(), AUTO, 400)
    pairs = unseen_pairs(source, 8)
    start = pairs.start(1.0, True)
    wanted = sample(source.denoiser, start, truth, pairs.extra)
    tables = [teacher_table(source, AUTO, calls) for calls in (32, 128)]
    off = [float((sample(source.denoiser, start, table, pairs.extra) - wanted).abs().mean()) for table in tables]
    assert BOUNDARY in truth.sigmas and off[1] < off[0] / 4 < 0.02


@pytest.mark.parametrize("more, words", [
    ({"calls": (1,)}, "calls of at least 2"), ({"windows": (1.0, 0.5)}, "windows 1"), ({"cfg": (2, 3)}, "cfg")])
def test_settings_that_two_models_cannot_have_are_refused_before_any_call(tmp_path, more, words):
    source = two_models()
    config = Config.of(**SMALL | more)
    for work in (estimate, lambda *given: distil(*given, tmp_path)):
        with pytest.raises(ValueError, match=words):
            work(source, config)
    assert source.model_calls == 0


@pytest.mark.parametrize("boundary", [0.0, 1.0, 2.0])
def test_a_boundary_outside_the_levels_is_refused(tmp_path, boundary):
    with pytest.raises(ValueError, match="between 0 and 1"):
        distil(two_models(boundary), Config.of(**SMALL), tmp_path)


def test_another_boundary_is_another_run(tmp_path):
    distil(two_models(), Config.of(**SMALL), tmp_path)
    with pytest.raises(ValueError, match="another|other"):
        distil(two_models(0.9), Config.of(**SMALL), tmp_path, resume=True)
