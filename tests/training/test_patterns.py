"""Patterns: what one model learned is a start for another, never for itself."""

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.demo_models.source import bundled
from s4s.training.parametrization.parameters import Parameters
from s4s.training.starts.patterns import fitting, known, pattern_of
from s4s.training.starts.ranking import LEARNED, begun, classical_error, learned_elsewhere, ranked_starts
from s4s.training.teacher.pairs import known_pairs
from tests.toy import small, toy_source


@pytest.mark.parametrize("name", ["digits-eps", "digits-flow"])
def test_the_patterns_are_the_tables_that_ship(name):
    shipped, source = preset_file.load(shipped_folder() / f"{name}-cfg3.safetensors"), bundled(name, 3.0)
    for pattern in [each for each in known() if each.model == name]:
        table = shipped.tables[f"calls{pattern.calls}"]
        assert pattern == pattern_of(table, name, source.flow)
        parameters = Parameters(pattern.levels(source), flow=source.flow, highest=source.sigma_max)
        again = parameters.frozen(pattern.vector(parameters, source))
        np.testing.assert_allclose(again.sigmas, table.sigmas, rtol=1e-3, atol=0)
        np.testing.assert_allclose(again.weights, table.weights, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(again.query, table.query, rtol=1e-3)


def test_a_pattern_stands_at_the_same_ratios_of_noise_to_signal_on_a_flow():
    pattern = next(each for each in known() if each.model == "digits-eps" and each.calls == 6)
    flow = pattern.levels(toy_source(flow=True))
    np.testing.assert_allclose(flow[1:-1] / (1 - flow[1:-1]), pattern.ratios, rtol=1e-9)
    parameters = Parameters(flow, flow=True)
    made = parameters.frozen(pattern.vector(parameters, toy_source(flow=True)))
    np.testing.assert_allclose(np.log(made.query / flow[:-1])[1:], np.array(pattern.offsets)[1:] / 2, rtol=1e-9)


def test_no_model_starts_from_itself_and_other_families_from_none():
    config = small(mode="forward", budget=6_000)
    assert {each.model for each in fitting(bundled("digits-eps", 3.0), 6, config)} == {"digits-flow", "emoji-eps"}
    assert {each.model for each in fitting(toy_source(), 4, config)} == {"digits-eps", "digits-flow"}
    assert not fitting(toy_source(), 7, config)
    assert not fitting(toy_source(), 6, small(learn="schedule")) and not fitting(toy_source(), 6, small(family="pc"))


def test_a_start_learned_elsewhere_is_ranked_among_the_schedules_and_begun_as_it_is():
    source, config = toy_source(), small(mode="forward", budget=6_000, schedule="auto")
    held_out = known_pairs(source, range(6), torch.zeros(6, 2))
    object.__setattr__(config, "ranking", 6)
    ranked = ranked_starts(source, 4, held_out, config)
    entries = learned_elsewhere(source, 4, config)
    assert {entry.schedule_name for entry in entries} <= {entry.schedule_name for entry in ranked}
    assert len(ranked[0].errors) == 6 and classical_error(ranked) >= ranked[0].errors.mean()
    parameters, state = begun(source, entries[0], config)
    assert entries[0].solver_name == LEARNED
    np.testing.assert_allclose(parameters.frozen(state.vector).weights, entries[0].table.weights, rtol=0, atol=1e-8)
    assert torch.equal(state.best, state.vector)
