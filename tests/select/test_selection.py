"""The invariants of choosing, over random sets of installed presets, models, cfgs, steps, windows and sizes."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from s4s.s4s_nodes.core import Model, Preset, classical, schedules
from s4s.s4s_nodes.library import Library
from s4s.s4s_nodes.select import ModelFacts, Request, levels_for, match, select
from s4s.s4s_nodes.select.adapt import starts_near
from s4s.s4s_nodes.select.cfg import join_presets

MODELS = {      # name: facts, with its weights; two of a family, and models that only their weights tell apart
    "sd15": ModelFacts("sd15", "eps", 0.0292, 14.6146, channels=4),
    "fine-tune": ModelFacts("sd15", "eps", 0.0292, 14.6146, channels=4),
    "sdxl": ModelFacts("sdxl", "eps", 0.0292, 14.6146, channels=4),
    "v": ModelFacts("sd15", "v", 0.0292, 14.6146, channels=4),
    "zsnr": ModelFacts("sd15", "v", 0.0292, 4518.0, channels=4, zero_terminal_snr=True),
    "sd3": ModelFacts("sd3", "flow", 0.003, 1.0, channels=16, shift=3.0),
    "flux": ModelFacts("flux", "flow", 0.0003, 1.0, channels=16, shift=3.158),
    "wan": ModelFacts("wan21", "flow", 0.008, 1.0, channels=16, shift=8.0),
    "wan, shift 5": ModelFacts("wan21", "flow", 0.005, 1.0, channels=16, shift=5.0)}
MODELS = {name: replace(facts, fingerprint=lambda name=name: {"weights_1d": name}) for name, facts in MODELS.items()}
SHIPPED = list(Library([]).named().values())
CFGS = (1.0, 2.0, 2.1, 4.0, 7.0)


@cache
def tables(name: str, counts: tuple, windows: tuple, bend: float) -> dict:
    """Full tables and windows (calls, share of the schedule) on a curve of its own."""
    facts = MODELS[name]
    top, flow = facts.sigma_max, facts.flow
    curve = schedules.linear_flow(9, bend) if flow else np.append(schedules.karras(9, 0.03, top, rho=4 + bend)[:9], 0.0)
    made = {f"calls{n}": classical.dpmpp_2m(schedules.stretched(curve, n, flow), flow) for n in counts}
    longest = max(made.values(), key=lambda table: table.calls).sigmas
    for n, share in windows:
        cut = schedules.stretched(longest, round(n / share), flow)[-n - 1:]
        made[f"calls{n}_from{cut[0]:.4g}"] = classical.dpmpp_2m(cut, flow)
    return made


@st.composite
def presets(draw, name=None):
    """A preset of one of the models: finished or not, recommended or not, with some tables, cfg, size and age."""
    name = name or draw(st.sampled_from(sorted(MODELS)))
    facts = MODELS[name]
    counts = tuple(sorted(draw(st.sets(st.sampled_from([4, 5, 6, 8]), min_size=1, max_size=3))))
    windows = tuple(draw(st.lists(st.sampled_from([(4, 0.5), (5, 0.6), (6, 0.5)]), unique=True, max_size=2)))
    cfg = draw(st.sampled_from(CFGS))
    record = {"cfg": [cfg, cfg], "run": "k", "created": draw(st.sampled_from(["1", "2"]))}
    if draw(st.booleans()):
        record["resolution"] = [64, 64]
    if draw(st.integers(0, 4)) == 0:
        del record["created"]
    about = Model(facts.family, facts.prediction, facts.sigma_min, facts.sigma_max, facts.zero_terminal_snr,
                  facts.shift, facts.channels, {"weights_1d": name})
    made = tables(name, counts, windows, draw(st.sampled_from([1.0, 2.0, 3.0])))
    return Preset(f"p{draw(st.integers(0, 10 ** 6))}", made, about, record, recommended=draw(st.integers(0, 4)) > 0)


class Question(tuple):
    """(facts, presets, steps, calls, cfg, size): a model, what is installed, and a request to cut from its schedule."""

    def __repr__(self):
        facts, shelf, *asked = self
        mine = [(preset.name, preset.training, sorted(preset.tables), preset.recommended) for preset in shelf
                if is_mine(preset, facts)]
        return f"{facts.fingerprint()}, steps, calls, cfg, size {asked}: {mine} of {len(shelf)}"


@st.composite
def questions(draw):
    name = draw(st.sampled_from(sorted(MODELS)))
    mine = draw(st.lists(presets(name), max_size=3))
    cfgs = {preset.training["cfg"][0]: preset for preset in mine if preset.recommended}
    if len(cfgs) > 1 and draw(st.booleans()):
        mine.append(join_presets(list(cfgs.values()), "joined"))
    shelf = draw(st.permutations([*mine, *draw(st.lists(presets(), max_size=3)), *SHIPPED]))
    calls, denoise = draw(st.sampled_from([1, 4, 5, 6, 7, 8, 12, 20])), draw(st.sampled_from([1.0, 0.6, 0.5, 0.3]))
    return Question((MODELS[name], list(shelf), int(calls / denoise), calls, draw(st.sampled_from([*CFGS, 3.0])),
                     draw(st.sampled_from([None, (64, 64), (128, 128)]))))


def ask(question, **changed):
    facts, shelf, steps, calls, cfg, size = question
    return Request(**{"facts": facts, "installed": shelf, "steps": steps, "calls": calls, "cfg": cfg, "size": size,
                      **changed})


def on(request: Request, levels) -> Request:
    """The sampler's request: the host hands it float32 levels."""
    return replace(request, steps=None, calls=None, levels=np.float32(levels))


def is_mine(preset, facts) -> bool:
    return preset.model.hashes == facts.fingerprint()


def ships(preset) -> bool:
    return any(preset is one for one in SHIPPED)


def may_run(preset, request: Request) -> bool:
    """The rule, written again: finished, recommended, near its cfg and size."""
    if not is_mine(preset, request.facts):
        return False
    low, high = preset.training["cfg"]
    near = 0.9 * low - 1e-9 <= request.cfg <= 1.1 * high + 1e-9
    sized = request.size is None or "resolution" not in preset.training or request.size == (64, 64)
    return preset.recommended and "created" in preset.training and near and sized


def same(one, other) -> bool:
    return one.table.same_as(other.table) and one.fallback == other.fallback


@settings(max_examples=150)
@given(questions())
def test_learned_numbers_run_only_where_they_belong(question):
    request = ask(question)
    for found in (whole := select(request), select(on(request, whole.schedule[-request.calls - 1:]))):
        if found.fallback:
            shipped = match.FAMILY_SCHEDULES.get(request.facts.family)
            assert found.preset is None or found.preset.short_hash == shipped
            assert found.warns and found.message().count(". ") == 1 and len(found.message()) < 300
        else:
            assert may_run(found.preset, request) and not found.warns and found.belongs
            table = found.preset.tables.get(found.table_name, found.table)
            assert table.calls == request.calls
            assert starts_near(table.sigmas[0], whole.schedule[-request.calls - 1], request.facts.flow)


@settings(max_examples=150)
@given(questions())
def test_a_preset_that_may_run_and_has_the_table_does(question):
    """No fallback beside a table for these very steps."""
    facts, shelf, _, calls, cfg, size = question
    request = ask((facts, shelf, calls, calls, cfg, size))
    fitting = [preset for preset in shelf if may_run(preset, request) and "joined" not in preset.training
               and f"calls{calls}" in preset.tables]
    assert not fitting or not select(request).fallback


@settings(max_examples=150)
@given(questions())
def test_presets_of_other_models_change_nothing(question):
    request = ask(question)
    alone = replace(request, installed=[preset for preset in request.installed
                                        if is_mine(preset, request.facts) or ships(preset)])
    one, other = select(request), select(alone)
    assert same(one, other) and one.message() == other.message()
    assert one.schedule.tolist() == other.schedule.tolist()
    unknown = replace(request, cfg=None, calls=None, size=None)             # what a scheduler may know
    blind = select(replace(unknown, installed=alone.installed))
    assert select(unknown).schedule.tolist() == blind.schedule.tolist()
    for name in ("normal", "karras"):
        levels = _foreign(name, request)
        assert same(select(on(request, levels)), select(on(alone, levels)))


def _foreign(name: str, request: Request):
    if request.facts.flow:
        return schedules.linear_flow(request.calls, {"normal": 1.0, "karras": 5.0}[name])
    levels = schedules.karras(request.calls, 0.03, 14.6, rho={"normal": 3, "karras": 7}[name])
    return np.append(levels[:request.calls], 0)


@settings(max_examples=150)
@given(questions())
def test_presets_that_may_not_run_here_change_nothing(question):
    """For another cfg or size, unfinished, or not recommended: nothing but the message knows of them."""
    request = ask(question)
    fitting = replace(request, installed=[preset for preset in request.installed
                                          if may_run(preset, request) or ships(preset)])
    one, other = select(request), select(fitting)
    assert same(one, other) and one.schedule.tolist() == other.schedule.tolist()
    assert same(select(on(request, one.schedule[-request.calls - 1:])),
                select(on(fitting, one.schedule[-request.calls - 1:])))


@settings(max_examples=150)
@given(questions())
def test_scheduler_and_sampler_agree(question):
    """The sampler takes the table whose levels the scheduler gave; nothing is moved but a window's start."""
    request = ask(question)
    whole = select(request)
    levels = whole.schedule[-request.calls - 1:]
    found = select(on(request, levels))
    assert (found.preset, found.table_name, found.fallback) == (whole.preset, whole.table_name, whole.fallback)
    np.testing.assert_allclose(found.table.sigmas, whole.table.sigmas, rtol=1e-3, atol=1e-6)
    if found.kind == "exact":
        np.testing.assert_allclose(found.table.sigmas, levels, rtol=1e-3, atol=1e-6)


@settings(max_examples=150)
@given(questions())
def test_a_scheduler_that_knows_no_cfg_changes_no_whole_image(question):
    """As BasicScheduler: it may give another preset's levels; the sampler puts its own in their place."""
    facts, shelf, _, calls, cfg, size = question
    request = ask((facts, shelf, calls, calls, cfg, size))
    blind = select(replace(request, cfg=None, calls=None, size=None)).schedule
    one, other = select(on(request, blind)), select(on(request, select(request).schedule))
    assert one.fallback == other.fallback
    for part in ("sigmas", "query", "carry", "weights"):                    # the host's levels are rounded to float32
        np.testing.assert_allclose(getattr(one.table, part), getattr(other.table, part), rtol=1e-4, atol=1e-5)


@settings(max_examples=150)
@given(questions())
def test_the_order_of_the_shelf_decides_nothing_but_true_ties(question):
    request = ask(question)
    ages = [(preset.training.get("created"), preset.training["cfg"], len(preset.tables)) for preset in request.installed
            if is_mine(preset, request.facts)]
    if len(set(map(str, ages))) == len(ages):
        assert same(select(request), select(replace(request, installed=request.installed[::-1])))


# --- seen, by name ----------------------------------------------------------------------------------------------

def made(name: str, counts=(4, 6), cfg=3.0, windows=(), bend=2.0, called="mine", **more) -> Preset:
    facts = MODELS[name]
    about = Model(facts.family, facts.prediction, facts.sigma_min, facts.sigma_max, facts.zero_terminal_snr,
                  facts.shift, facts.channels, {"weights_1d": name})
    return Preset(called, tables(name, counts, windows, bend), about, {"cfg": [cfg, cfg], **more})


@pytest.mark.parametrize("name", ["flux", "wan"])
@pytest.mark.parametrize("steps", [5, 6, 10, 20])
def test_flux_and_wan_do_not_run_an_sd3_preset_nor_optimal_steps(name, steps):
    shelf = [made("sd3", (5, 6)), *SHIPPED]
    found = select(Request(MODELS[name], shelf, steps, cfg=3.0))
    assert found.fallback and found.preset is None and found.kind == "classical"
    assert found.schedule.tolist() == levels_for(None, MODELS[name], steps).tolist()        # its own shift, as without
    ran = "Euler" if name == "flux" else "UniPC bh1"                                       # of the official templates
    assert found.message().startswith(f"S4S fallback: no preset was trained for this model. {ran} on the model's own")


def test_a_preset_learned_at_cfg_2_does_not_run_at_cfg_7():
    found = select(Request(MODELS["sd15"], [made("sd15", cfg=2.0)], 6, cfg=7.0))
    assert found.fallback and "mine was learned at cfg 2, you use 7" in found.message()


def test_of_two_presets_at_cfg_8_the_nearer_runs_however_many_tables_the_other_has():
    two, four, six = (made("sd15", (4, 5, 6, 8), cfg=cfg, called=f"at{cfg:g}") for cfg in (2.0, 4.0, 8.5))
    both = join_presets([four, six], "joined")
    assert select(Request(MODELS["sd15"], [two, both], 6, cfg=8.0)).preset is both
    assert select(Request(MODELS["sd15"], [two, both], 6, cfg=2.0)).preset is two


def test_of_two_presets_of_one_model_and_cfg_the_one_whose_levels_were_given_runs():
    one, other = made("sd3", bend=1.0, called="one", created="1"), made("sd3", bend=3.0, called="other", created="2")
    shelf = [one, other]
    assert select(Request(MODELS["sd3"], shelf, 6, cfg=3.0)).preset is other                # the newer
    for mine in shelf:
        found = select(Request(MODELS["sd3"], shelf, levels=mine.table(6).sigmas, cfg=3.0))
        assert found.preset is mine and found.kind == "exact" and not found.own_levels


def test_a_window_runs_for_its_denoise_and_not_for_whole_images():
    mine = made("sd3", (4,), windows=((6, 0.5),))
    facts = MODELS["sd3"]
    half = select(Request(facts, [mine], 12, 6, cfg=3.0))
    assert half.kind == "window" and half.table.same_as(mine.tables[half.table_name])
    assert select(Request(facts, [mine], 6, cfg=3.0)).fallback
    assert select(Request(facts, [mine], 12, cfg=3.0)).schedule[0] == pytest.approx(1.0)


def test_a_window_of_another_preset_does_not_move_a_whole_image():
    """Nor the levels of a scheduler that does not know which part will run."""
    whole, window = made("sd3", (8,), called="whole"), made("sd3", (4,), windows=((4, 0.5),), bend=1.0, called="window")
    facts = MODELS["sd3"]
    for calls in (8, None):
        for shelf in ([whole], [whole, window]):
            assert select(Request(facts, shelf, 8, calls, cfg=3.0)).preset is whole
    assert select(Request(facts, [whole, window], 8, 4, cfg=3.0)).preset is window


def test_a_preset_of_a_window_alone_gives_the_scheduler_its_levels_where_the_calls_are_known():
    """As an image's metadata gives it back: the same cut of the same number of steps has the window's own levels."""
    for name in ("sd15", "sd3", "flux"):
        facts, whole = MODELS[name], tables(name, (8,), ((5, 0.6),), 2.0)
        ((key, window),) = ((key, table) for key, table in whole.items() if "from" in key)
        alone = Preset("alone", {key: window}, facts.model, {"created": "1"})
        for request in (Request(facts, [alone], 8, 5), Request(facts, [], 8, 5, named=alone)):
            found = select(request)
            assert found.table.same_as(window) and found.table_name == key and not found.fallback
            assert found.schedule[0] == facts.sigma_max and (np.diff(found.schedule) < 0).all()
