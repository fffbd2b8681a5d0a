"""The official settings of the model families, and models that no table is for."""

from dataclasses import replace

import numpy as np
import pytest

from s4s.s4s_nodes.core import classical, schedules
from s4s.s4s_nodes.library import Library
from s4s.s4s_nodes.select import ModelFacts
from s4s.s4s_nodes.select.dispatch import FALLBACK, levels_for, table_for
from s4s.s4s_nodes.select.families import OFFICIAL, family_of, flow_schedule
from s4s.s4s_nodes.select.selection import Request, select

FLOW = ModelFacts("unknown", "flow", 0.003, 1.0, shift=3.0)


@pytest.mark.parametrize("family", OFFICIAL)
@pytest.mark.parametrize("steps", [1, 4, 9, 30])
def test_without_a_preset_a_family_runs_what_its_official_workflow_runs(family, steps):
    found = select(Request(replace(FLOW, family=family), steps=steps))
    assert found.fallback and found.table.calls == steps and found.schedule[0] == 1 and found.schedule[-1] == 0
    wanted = classical.SOLVERS[OFFICIAL[family][0]](found.schedule, True)
    assert found.table.same_as(wanted)


@pytest.mark.parametrize("name, network, family", [
    ("WAN21_T2V", {"dim": 5120}, "wan21, 14b"), ("WAN22_Camera", {"dim": 5120}, "wan22, 14b"),
    ("WAN21_T2V", {"dim": 1536}, "wan21"), ("WAN21_I2V", {"dim": 5120}, "wan21"), ("WAN22_S2V", {"dim": 5120}, "wan22"),
    ("WAN21_T2V", None, "wan21"), ("Stable_Cascade_C", {}, "stable_cascade_c"), ("SDXL", {}, "sdxl")])
def test_a_family_is_named_as_the_host_names_the_architecture(name, network, family):
    """The experts of Wan 2.2 14B have a template of their own: Euler, simple."""
    config = type(name, (), {})()
    config.unet_config = network
    assert family_of(config) == family
    if family.endswith("14b"):
        assert OFFICIAL[family] == ("euler", "simple")


def test_oss_wan_is_of_a_wide_wan_too():
    wide = replace(FLOW, family="wan21, 14b", sigma_min=0.008, channels=16)
    named = next(preset for preset in Library([]).named().values() if preset.name == "oss-wan")
    found = select(Request(wide, steps=20, named=named, strict=True))
    assert found.preset is named and found.belongs


def test_the_official_schedules():
    assert flow_schedule("flux", 8, 3.0).tolist() == schedules.linear_flow(8, 3.0).tolist()
    assert flow_schedule("zimage", 8, 3.0).tolist() == schedules.linear_flow(8, 3.0).tolist()
    assert flow_schedule("flux2", 8, 3.0).tolist() == schedules.flux2(8).tolist()
    assert flow_schedule("chroma", 8, 1.0).tolist() == schedules.beta(8, schedules.flow_levels(1.0)).tolist()
    assert flow_schedule("wan21", 8, 3.0).tolist() == [*schedules.linear_flow(9, 3.0)[:8], 0.0]
    assert flow_schedule("ltxv", 8, 3.0)[-2] == pytest.approx(0.1)


def test_even_is_the_hosts_simple_to_within_one_of_the_models_levels():
    levels = schedules.flow_levels(3.0)
    for steps in (4, 7, 20):
        assert np.abs(schedules.simple(steps, levels) - schedules.linear_flow(steps, 3.0)).max() < np.diff(levels).max()


def test_steps_that_beta_cannot_place_get_an_even_schedule():
    assert flow_schedule("chroma", 900, 1.0).tolist() == schedules.linear_flow(900, 1.0).tolist()


def test_an_unknown_family_runs_what_was_measured():
    found = select(Request(replace(FLOW, family="mystery"), steps=6))
    assert found.table.same_as(classical.SOLVERS[FALLBACK[True]](schedules.linear_flow(6, 3.0), True))


def test_a_model_that_denoises_nothing_gets_euler_and_the_reason():
    odd = ModelFacts("wan21", "x0", 0.03, 14.6, unfit="this model turns one image into another and denoises nothing")
    found = select(Request(odd, steps=4))
    assert found.message() == ("S4S fallback: this model turns one image into another and denoises nothing. Euler on "
                               "the model's own levels ran.")
    assert found.table.same_as(classical.euler(levels_for(None, odd, 4)))


def test_no_preset_suits_such_a_model(tmp_path):
    from tests.select.test_dispatch import EPS
    odd = replace(ModelFacts.of(EPS.model), unfit="this model turns one image into another and denoises nothing")
    found = table_for(EPS.table(6).sigmas, odd, EPS)
    assert found.fallback and "mine does not suit: this model turns one image" in found.message()
