"""Published schedules as presets."""

import numpy as np
import pytest

from s4s.s4s_nodes import published
from s4s.s4s_nodes.core import classical, constant_law_error, preset_file, schedules


def test_schedules_are_the_published_levels_with_the_solver_they_are_used_with():
    for name, grid, solver in [("ays-sd15", "ays_sd1", "dpmpp_2m"), ("gits-1.20", "gits_1.20", "dpmpp_2m"),
                               ("gits-sd15", "gits_1.20", "ipndm_2"),
                               ("oss-flux", "oss_flux", "euler"), ("oss-wan", "oss_wan", "euler")]:
        made = published.make(name)
        assert made.counts == list(schedules.published_counts(grid))
        for calls in made.counts:
            table = made.table(calls)
            assert np.array_equal(table.sigmas, schedules.published(grid, calls)) and table.keeps_constants
            assert table.same_as(classical.SOLVERS[solver](schedules.published(grid, calls)))
    euler = published.make("oss-flux").table(10)
    np.testing.assert_allclose(euler.carry, euler.sigmas[1:] / euler.sigmas[:-1], atol=1e-12)


def test_a_schedule_can_be_stretched_and_says_so():
    made = published.make("ays-sdxl", calls=(6, 10))
    assert made.counts == [6, 10] and made.training["stretched_calls"] == [6]
    assert "stretched_calls" not in published.make("ays-sdxl").training
    with pytest.raises(ValueError, match="unknown published name 'ays-sd3'"):
        published.make("ays-sd3")


@pytest.mark.parametrize("name", ["neuralsolver-sit", "neuralsolver-ddpm-sd", "best_v2.pt"])
def test_what_version_0_4_imported_is_refused_in_words(name):
    with pytest.raises(ValueError, match="Version 0.4 was the last that imported"):
        published.make(name)


@pytest.mark.parametrize("name", published.names())
def test_what_is_published_makes_a_whole_preset_that_claims_nothing(name, tmp_path):
    made = published.make(name)
    assert made.name == name and not made.scores and made.licence and "arXiv" in made.source
    assert "not measured on your checkpoint" in made.training["note"]
    again = preset_file.load(preset_file.save(made, tmp_path / "p.safetensors"))
    assert again.short_hash == made.short_hash and preset_file.verify(again) < 1e-12
    for table in again.tables.values():
        assert table.keeps_constants == (constant_law_error(table) <= 1e-8)
    assert made.recommended
