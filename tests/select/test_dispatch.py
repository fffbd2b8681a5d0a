"""What runs on a host's levels: the host's ends, its number of calls, and words that say what and why."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from s4s.s4s_nodes.core import Model, Preset, Table, classical, constant_law_error, schedules
from s4s.s4s_nodes.select import ModelFacts, adapt, dispatch, levels_for, table_for
from s4s.training.parametrization.parameters import Parameters

FACTS = {False: ModelFacts("sd15", "eps", 0.0292, 14.6146, channels=4),
         True: ModelFacts("sd3", "flow", 0.001, 1.0, channels=16, shift=3.0)}
SD = schedules.sd_levels()
HOSTS = {"karras": lambda n: schedules.karras(n, SD[0], SD[-1]), "simple": lambda n: schedules.simple(n, SD),
         "normal": lambda n: schedules.time_uniform(n, SD)}


def table(levels, flow, seed=0) -> Table:
    parameters = Parameters(np.array(levels), flow=flow)
    noise = torch.randn(sum(parameters.sizes), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return parameters.frozen(parameters.initial() + 0.1 * noise)


def preset(flow=False, calls=(4, 6, 8), starts=(0.5,), **model) -> Preset:
    """Full tables, and windows of as many calls for denoise strengths, as the trainer names them."""
    facts = FACTS[flow]
    about = Model(**{"family": facts.family, "prediction": facts.prediction, "sigma_min": facts.sigma_min,
                     "sigma_max": facts.sigma_max, "channels": facts.channels, **model})
    top = about.sigma_max
    curve = schedules.linear_flow(8, 2.0) if flow else np.append(schedules.karras(9, 0.03, top)[:8], 0)
    full = {f"calls{n}": table(schedules.stretched(curve, n, flow), flow, n) for n in calls}
    longest = max(full.values(), key=lambda t: t.calls).sigmas
    windows = {}
    for n in calls:
        for strength in starts:
            levels = schedules.stretched(longest, round(n / strength), flow)[-n - 1:]
            windows[f"calls{n}_from{levels[0]:.4g}"] = table(levels, flow, n)
    return Preset("mine", {**full, **windows}, about, {"cfg": [2.0, 5.0]})


EPS, FLOW = preset(), preset(True)
BOTH = pytest.mark.parametrize("made", [EPS, FLOW], ids=["eps", "flow"])


def asked(made, **changed):
    return replace(FACTS[made.model.flow], **changed)


def check(found, sigmas, flow):
    """What holds for every choice whatsoever."""
    table, sigmas = found.table, np.asarray(sigmas, dtype=np.float64)
    assert table.calls == len(sigmas) - 1
    np.testing.assert_allclose(table.sigmas[[0, -1]], sigmas[[0, -1]], rtol=1e-3, atol=1e-6)
    assert found.own_levels or np.allclose(table.sigmas, sigmas, rtol=1e-3, atol=1e-6)
    assert constant_law_error(table) < 1e-8
    assert found.fallback == (found.preset is None) == (found.table_name == "") == (found.kind == "classical")
    assert ("fallback" in found.message()) == found.fallback and found.why and "\n" not in found.message()
    assert not flow or table.query.max() <= 1


# --- the scheduler ------------------------------------------------------------------------------------------

@given(steps=st.integers(1, 150), flow=st.booleans(), known=st.booleans(), shift=st.sampled_from([None, 1., 3., 12.]))
def test_a_schedule_falls_strictly_from_the_models_highest_level_to_0(steps, flow, known, shift):
    facts = replace(FACTS[flow], shift=shift)
    sigmas = levels_for((FLOW if flow else EPS) if known else None, facts, steps)
    assert sigmas.shape == (steps + 1,) and bool((np.diff(sigmas) < 0).all())
    assert sigmas[0] == pytest.approx(facts.sigma_max, rel=1e-12) and sigmas[-1] == 0
    assert bool((np.diff(sigmas.astype(np.float32)) < 0).all())                 # as the hosts hold them


@BOTH
def test_the_schedule_for_a_tables_calls_is_the_tables(made):
    for calls in (4, 6, 8):
        assert levels_for(made, asked(made), calls).tolist() == made.table(calls).sigmas.tolist()


@BOTH
def test_other_schedules_are_the_longest_tables_stretched(made):
    longest = made.table(8).sigmas
    np.testing.assert_allclose(levels_for(made, asked(made), 16)[:-2:2], longest[:-1], rtol=1e-12)
    assert levels_for(made, asked(made), 5).tolist() == schedules.stretched(longest, 5, made.model.flow).tolist()


def test_the_first_level_is_the_hosts_unless_they_nearly_agree():
    """Hosts make the noise by sigmas[0]; 1 in 50 is what their tables of the same model differ by."""
    assert levels_for(EPS, asked(EPS, sigma_max=14.7), 6)[0] == EPS.table(6).sigmas[0]
    other = levels_for(EPS, asked(EPS, sigma_max=80.0), 6)                      # another range: not this preset's
    assert other[0] == pytest.approx(80) and other.tolist() == levels_for(None, asked(EPS, sigma_max=80.0), 6).tolist()


def test_zero_terminal_snr_starts_at_the_hosts_number_for_endless():
    made = preset(prediction="v", zero_terminal_snr=True, sigma_max=4518.8)
    facts = asked(EPS, prediction="v", zero_terminal_snr=True, sigma_max=4000.0)
    sigmas = levels_for(made, facts, 6)
    assert sigmas[0] == 4000 and bool((np.diff(sigmas) < 0).all())
    np.testing.assert_allclose(sigmas[1:-1], made.table(6).sigmas[1:-1], rtol=0.05)
    found = table_for(sigmas, facts, made)
    assert (found.kind, found.table_name) == ("adapted", "calls6")
    check(found, sigmas, False)
    plain = levels_for(None, facts, 20)
    assert plain[0] == 4000 and plain[1] < 50 and bool((np.diff(plain) < 0).all())


def test_a_schedule_needs_a_number_of_steps():
    for steps in (0, -1, 2.5):
        with pytest.raises(ValueError, match="calls asked for"):
            levels_for(EPS, asked(EPS), steps)
        with pytest.raises(ValueError, match="calls asked for"):
            levels_for(None, asked(EPS), steps)


# --- our own schedule ---------------------------------------------------------------------------------------

@BOTH
@pytest.mark.parametrize("calls", [4, 6, 8])
def test_the_tables_own_levels_get_the_table_bit_for_bit(made, calls):
    sigmas = torch.from_numpy(levels_for(made, asked(made), calls)).float()
    found = table_for(sigmas, asked(made), made, cfg=3.0)
    check(found, sigmas, made.model.flow)
    assert found.kind == "exact" and not found.own_levels and found.table.same_as(made.table(calls))
    assert found.message() == f"S4S mine ({made.short_hash}), calls{calls}, exact: these are its levels"


@BOTH
@pytest.mark.parametrize("calls", [4, 6, 8])
def test_half_a_schedule_gets_the_table_of_that_window(made, calls):
    """KSampler with denoise 0.5 asks for twice the steps and keeps the last half."""
    sigmas = np.float32(levels_for(made, asked(made), 2 * calls)[-calls - 1:])
    found = table_for(sigmas, asked(made), made)
    check(found, sigmas, made.model.flow)
    assert found.kind == "window" and found.table_name.startswith(f"calls{calls}_from")
    assert found.table.same_as(made.tables[found.table_name])


@BOTH
def test_a_start_a_little_off_moves_the_window_to_the_hosts_start(made):
    window, = [table for name, table in made.tables.items() if name.startswith("calls6_from")]
    sigmas = np.append(1.1 * window.sigmas[0], levels_for(made, asked(made), 12)[-6:])
    found = table_for(sigmas, asked(made), made, own_schedule=True)
    check(found, sigmas, made.model.flow)
    assert found.kind == "adapted" and found.own_levels and found.table.sigmas[0] == sigmas[0]
    assert "moved from a start at" in found.why


@BOTH
def test_a_start_far_off_gets_a_classical_solver_on_the_schedule(made):
    sigmas = levels_for(made, asked(made), 40)[-5:]                             # 4 steps, denoise 0.1
    found = table_for(sigmas, asked(made), made)
    check(found, sigmas, made.model.flow)
    assert found.fallback and "no table of 4 steps that starts near" in found.message()


@BOTH
def test_calls_nobody_learned_get_a_classical_solver(made):
    found = table_for(levels_for(made, asked(made), 7), asked(made), made)
    assert found.fallback and "mine has 4, 6 and 8 steps, you asked for 7" in found.message()


@BOTH
def test_a_schedule_cut_short_and_set_to_0_gets_the_table_of_its_calls(made):
    """KSamplerAdvanced, end_at_step below steps, no leftover noise: the last level is forced to 0."""
    sigmas = np.append(levels_for(made, asked(made), 8)[:6], 0.0)
    found = table_for(sigmas, asked(made), made)
    check(found, sigmas, made.model.flow)
    assert (found.kind, found.table_name, found.own_levels) == ("exact", "calls6", True)


@BOTH
@pytest.mark.parametrize("rows", [1, 3, 7])
def test_the_first_part_of_the_tables_schedule_gets_its_first_rows(made, rows):
    """KSamplerAdvanced, end_at_step below steps, with leftover noise: what samples on finds a proper latent."""
    sigmas = np.float32(levels_for(made, asked(made), 8)[:rows + 1])
    found = table_for(sigmas, asked(made), made)
    check(found, sigmas, made.model.flow)
    assert (found.kind, found.table_name, found.own_levels) == ("adapted", "calls8", False)
    assert found.table.same_as(adapt.head(made.table(8), rows, made.model.flow))
    assert f"the first {rows} of its calls" in found.message()


@BOTH
def test_a_middle_or_a_head_nobody_learned_gets_a_classical_solver(made):
    for sigmas in (levels_for(made, asked(made), 8)[2:6], levels_for(made, asked(made), 10)[:4]):
        found = table_for(sigmas, asked(made), made)
        check(found, sigmas, made.model.flow)
        assert found.fallback and "no table of mine begins with them" in found.message()


@given(steps=st.integers(1, 60), share=st.floats(0, 1), length=st.floats(0, 1), flow=st.booleans(),
       forced=st.booleans())
def test_every_cut_of_our_schedule_is_known_as_ours_and_runs(steps, share, length, flow, forced):
    made, facts = (FLOW if flow else EPS), FACTS[flow]
    whole = levels_for(made, facts, steps)
    first = int(share * (steps - 1))
    last = first + 1 + int(length * (steps - first - 1))
    cut = np.array(whole[first:last + 1], dtype=np.float32)
    cut[-1] *= not forced or last == first + 1          # one call to 0 could be anybody's
    assert dispatch.cut_of(cut, made, facts)
    check(table_for(cut, facts, made), cut, flow)
    check(dispatch.fall_back(np.float64(cut), facts, "none was chosen"), cut, flow)


def test_the_hosts_word_for_whose_schedule_it_is_counts():
    sigmas = HOSTS["karras"](6)
    assert table_for(sigmas, asked(EPS), EPS, own_schedule=True).kind == "exact"
    sigmas = np.append(levels_for(EPS, asked(EPS), 8)[:6], 0.0)
    assert not table_for(sigmas, asked(EPS), EPS, own_schedule=False).own_levels


def test_the_schedule_without_a_preset_is_known_as_ours_too():
    for steps, kept in ((6, 6), (12, 6), (20, 15)):
        assert dispatch.cut_of(levels_for(None, asked(EPS), steps)[-kept - 1:], None, asked(EPS))
    assert not dispatch.cut_of(HOSTS["normal"](6), None, asked(EPS))


# --- other schedules ----------------------------------------------------------------------------------------

@BOTH
def test_levels_near_the_tables_get_its_coefficients_there(made):
    near = made.table(6).sigmas.copy()
    near[1:-1] *= 1.04
    found = table_for(near, asked(made), made)
    check(found, near, made.model.flow)
    assert found.kind == "adapted" and not found.own_levels and found.table_name == "calls6"
    assert found.table.same_as(adapt.adapted(made.table(6), near, made.model.flow))
    assert "moved to levels 4% away from its own" in found.message()


@pytest.mark.parametrize("name", HOSTS)
def test_foreign_levels_get_a_classical_solver_on_them_and_advice(name):
    sigmas = np.float32(HOSTS[name](6))
    found = table_for(sigmas, asked(EPS), EPS)
    check(found, sigmas, False)
    assert found.fallback and "pick scheduler s4s" in found.message()
    wanted = classical.SOLVERS[dispatch.FALLBACK[False]](np.float64(sigmas))
    assert found.table.same_as(wanted)


def test_foreign_levels_from_another_start_get_a_classical_solver():
    found = table_for([9.0, 4.0, 2.0, 1.0, 0.0], asked(EPS), EPS)
    assert found.fallback and "starts at 9" in found.why


def test_every_fallback_names_itself():
    words = dispatch.fall_back(HOSTS["karras"](7), asked(EPS), "none was chosen").message()
    assert words == "S4S fallback: none was chosen. UniPC bh2 of order 2 on the given levels ran."
    unfit = table_for(HOSTS["karras"](6), asked(EPS, prediction="v"), EPS)
    assert "mine does not suit: it is for eps prediction, the model's is v" in unfit.message()


def test_cfg_outside_the_trained_range_is_said():
    assert "(trained at cfg 2 to 5, not at 7)" in table_for(EPS.table(6).sigmas, asked(EPS), EPS, cfg=7.0).message()
    assert "cfg" not in table_for(EPS.table(6).sigmas, asked(EPS), EPS, cfg=3.0).message()


def test_repeated_levels_run_with_eulers_method():
    """Some hosts' schedules repeat a level; a repeated one changes nothing."""
    found = table_for([14.6146, 3.0, 3.0, 1.0, 0.0], asked(EPS), EPS)
    check(found, [14.6146, 3.0, 3.0, 1.0, 0.0], False)
    assert "Euler" in found.message() and "repeat" in found.message()
    assert found.table.carry[1] == 1 and not found.table.weights[1].any()


@pytest.mark.parametrize("sigmas", [[1.0, 2.0, 0.0], [1.0, float("nan"), 0.0], [0.0, 1.0], [1.0], [], [[1.0, 0.0]]])
def test_levels_that_are_no_schedule_are_refused(sigmas):
    with pytest.raises(ValueError, match="sigmas|levels"):
        table_for(sigmas, asked(EPS), EPS)


def test_nothing_of_the_callers_is_changed():
    sigmas = torch.tensor([14.6146, 5.0, 1.0, 0.0])
    kept = sigmas.clone()
    table_for(sigmas, asked(EPS), EPS)
    assert torch.equal(sigmas, kept)


def test_a_table_that_cannot_be_moved_runs_on_its_own_levels_only():
    """Two calls a step at one level, as some imported tables have them."""
    two = classical.heun(np.append(schedules.karras(4, 0.1, 14.6146)[:3], 0.0))
    made = replace(EPS, tables={"calls5": two, "calls8": EPS.table(8)})
    assert table_for(two.sigmas, asked(EPS), made).kind == "exact"
    found = table_for(np.append(11.0, two.sigmas[1:]), asked(EPS), made, own_schedule=True)
    assert found.fallback and "cannot be moved there: the table's levels do not fall strictly" in found.message()


def test_a_table_that_breaks_the_law_says_so_through_the_choice():
    own = EPS.table(6)
    weights = own.weights.copy()
    weights[-1, -1] += 0.05
    broken = Table(own.sigmas, own.query, own.scale, own.carry, weights, keeps_constants=False)
    found = table_for(own.sigmas, asked(EPS), replace(EPS, tables={"calls6": broken}))
    assert found.kind == "exact" and not found.table.keeps_constants
