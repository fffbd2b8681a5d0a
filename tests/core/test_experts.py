"""Tables for two models: where they change, what each runs, and what a file may say of it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from s4s.s4s_nodes.core import Model, Preset, PresetError, Table, classical, end_response, experts, preset_file, sample

BOUNDARY = 0.875
LEVELS = np.array([1.0, 0.95, BOUNDARY, 0.6, 0.3, 0.0])
MODEL = Model("wan21", "flow", 0.008, 1.0, channels=16, hashes={"weights_1d": "a", "low_noise": {"weights_1d": "b"}})
RECORD = {"cfg": [3.5, 3.5], "experts": {"boundary": BOUNDARY, "cfg": 5.0}}


def table() -> Table:
    return experts.restarted(classical.dpmpp_2m, LEVELS, BOUNDARY, True)


def preset(made: Table | None = None, **record) -> Preset:
    return Preset("two", {"calls5": made or table()}, MODEL, {**RECORD, **record})


def denoiser(x, sigma):
    return 0.3 * x + 0.1 * torch.sin(3 * x) * (1 + sigma[:, None])


def test_the_two_halves_one_after_the_other_are_the_table():
    whole, (high, low) = table(), experts.halves(table(), BOUNDARY)
    start = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    between = sample(denoiser, start, high)
    assert torch.equal(sample(denoiser, between, low), sample(denoiser, start, whole))
    assert (high.sigmas[-1], low.sigmas[0], high.calls, low.calls) == (BOUNDARY, BOUNDARY, 2, 3)


def test_each_half_is_the_solver_itself_on_its_levels():
    high, low = experts.halves(table(), BOUNDARY)
    for half, levels in ((high, LEVELS[:3]), (low, LEVELS[2:])):
        alone = classical.dpmpp_2m(levels, True)
        np.testing.assert_allclose(half.weights, alone.weights, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(half.sigmas, alone.sigmas)


def test_the_models_change_at_the_first_level_not_above_the_boundary():
    assert experts.turn_of(LEVELS, BOUNDARY) == 2 and experts.turn_of(LEVELS, 0.9) == 2
    assert experts.turn_of([1.0, 0.95, 0.9, 0.0], 0.5) == 3
    np.testing.assert_array_equal(experts.pinned([1.0, 0.95, 0.9, 0.0], 0.5), [1.0, 0.95, 0.5, 0.0])
    np.testing.assert_array_equal(experts.pinned([1.0, 0.8, 0.3, 0.0], BOUNDARY), [1.0, BOUNDARY, 0.3, 0.0])
    with pytest.raises(ValueError, match="at least 2 calls"):
        experts.pinned([1.0, 0.0], BOUNDARY)


def test_float32_does_not_move_the_boundary_to_the_other_model():
    for boundary in (0.875, 0.9, 1 / 3):
        kept = torch.tensor([boundary], dtype=torch.float64).float()
        assert not experts.is_high(kept, boundary) and experts.is_high(kept * (1 + 1e-4), boundary)


def test_each_model_sees_its_half_its_hashes_and_its_cfg(tmp_path):
    made = preset_file.load(preset_file.save(preset(), tmp_path / "two.safetensors"))
    high, low = made.experts
    assert made.boundary == BOUNDARY and Preset("one", {"calls5": table()}, MODEL).experts == ()
    assert high.model.hashes["weights_1d"] == "a" and low.model.hashes == {"weights_1d": "b"}
    assert high.training["cfg"] == [3.5, 3.5] and low.training["cfg"] == 5.0
    for part, share in ((high, (0, 3)), (low, (2, 6))):
        np.testing.assert_array_equal(part.tables["calls5"].sigmas, LEVELS[slice(*share)])
        assert part.experts == ()


@pytest.mark.parametrize("record", [
    {"boundary": 0.875}, {"boundary": True, "cfg": 1}, {"boundary": "0.875", "cfg": 1}, {"boundary": 0, "cfg": 1},
    {"boundary": 1.0, "cfg": 1}, {"boundary": -1e300, "cfg": 1}, {"boundary": 0.875, "cfg": None},
    {"boundary": 0.875, "cfg": [1]}, [], "x", 0, True, {}, {"boundary": 0.8, "cfg": 1}])
def test_a_record_that_does_not_fit_is_refused(record):
    with pytest.raises(PresetError, match="two models|does not change models"):
        preset(experts=record)


def test_a_table_that_does_not_change_models_there_is_refused():
    for made in (classical.euler(LEVELS[[0, 1, 3, 4, 5]], True), classical.dpmpp_2m(LEVELS, True),
                 classical.euler(LEVELS[2:], True), classical.euler(LEVELS[:3], True)):
        with pytest.raises(PresetError, match="train it again"):
            preset(made)
    whole = table()
    query = whole.query.copy()
    query[1] = 0.8                                      # a call before the boundary would ask the second model
    with pytest.raises(PresetError, match="does not change models"):
        preset(replace(whole, query=query))


def test_a_half_that_breaks_the_constant_law_is_refused_though_the_whole_keeps_it():
    whole = table()
    weights = whole.weights.copy()
    weights[1, 1] += 0.1
    loose = Table(whole.sigmas, whole.query, whole.scale, whole.carry, weights, keeps_constants=False)
    weights[-1, -1] += 1 - end_response(loose)[1]
    with pytest.raises(PresetError, match="constant law"):
        preset(Table(whole.sigmas, whole.query, whole.scale, whole.carry, weights))


def test_hashes_of_the_second_model_that_are_no_object_are_refused():
    with pytest.raises(PresetError, match="two models"):
        replace(preset(), model=replace(MODEL, hashes={"low_noise": "b"}))
