"""A preset joined of several cfg on real models: at a cfg between two the interpolated table, outside the nearest."""

import json

import comfy.samplers
import pytest
import s4s_host
import s4s_tools as t
import torch
from s4s_tools import FAMILIES, kind
from test_sampler import chosen, ksampled
from test_server import custom, done, ksampler, latent, node, png, saved

LOW, HIGH = 2.0, 6.0


def learned(model, **options) -> dict:
    """{cfg: preset} as two trainings on this model leave them."""
    return {cfg: t.preset_at(model, cfg, name=f"at{cfg:g}", **options) for cfg in (LOW, HIGH)}


def joined(presets: dict):
    return s4s_host.pack("s4s_nodes.select.cfg").join_presets(list(presets.values()), "joined")


def table_at(presets: dict, cfg: float, name: str, flow: bool):
    """The table by the definition: linear in cfg inside, the nearest outside."""
    share = min(max((cfg - LOW) / (HIGH - LOW), 0.0), 1.0)
    between = s4s_host.pack("s4s_nodes.select.cfg").between
    return between(presets[LOW].tables[name], presets[HIGH].tables[name], share, flow)


def our_loop(table):
    """A SAMPLER that runs this very table on the host's denoiser, whatever levels it is given."""
    def run(model, x, sigmas, extra_args=None, callback=None, disable=None):
        levels = torch.tensor(table.sigmas)
        return t.core().sample_table(model, x, levels, extra_args, callback, disable, table=table)
    return comfy.samplers.KSAMPLER(run)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_ksampler_runs_the_table_of_its_cfg(models, installed, name, figure):
    model = models(name)
    presets, flow = learned(model), t.facts(model).flow
    installed(joined(presets))
    sigmas, ends = t.sigmas_of(model, "s4s", 4), {}
    for cfg in (LOW, 3.0, HIGH):
        sampler = our_loop(table_at(presets, cfg, "calls4", flow))
        ends[cfg] = t.sample(model, kind(name), sampler, sigmas, t.picture(kind(name)), cfg, seed=1)
        assert torch.equal(ksampled(model, name, 4, cfg=cfg), ends[cfg])
    middle, nearest = (t.sample(model, kind(name), our_loop(presets[cfg].tables["calls4"]), sigmas,
                                t.picture(kind(name)), 3.0, seed=1) for cfg in (HIGH, LOW))
    assert figure("from the nearest table, difference / deviation", min(
        t.off(ends[3.0], middle), t.off(ends[3.0], nearest))) > 1e-3


@pytest.mark.parametrize("cfg, words", [
    (3.0, "between those learned at cfg 2 and 6"), (LOW, "as learned at cfg 2"), (HIGH, "as learned at cfg 6"),
    (1.9, "trained at cfg 2 to 6, not at 1.9), as learned at cfg 2"),
    (6.5, "trained at cfg 2 to 6, not at 6.5), as learned at cfg 6")])
def test_the_words_say_which(models, installed, cfg, words):
    installed(joined(learned(models("sd3"))))
    choice = chosen(models("sd3"), t.sigmas_of(models("sd3"), "s4s", 4), cfg)
    assert words in choice.message() and choice.preset.name == "joined" and not choice.fallback


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("cfg", [1.0, 9.0])
def test_beyond_the_trained_cfgs_the_image_is_as_without_the_preset(models, installed, name, cfg):
    model = models(name)
    without = ksampled(model, name, 4, cfg=cfg)
    installed(joined(learned(model)))
    choice = chosen(model, t.sigmas_of(model, "s4s", 4), cfg)
    assert choice.fallback and f"joined was learned at cfg 2 to 6, you use {cfg:g}" in choice.message()
    assert torch.equal(ksampled(model, name, 4, cfg=cfg), without)


def test_image_to_image_has_its_window_at_each_cfg(models, installed):
    """The schedule is cut from that of one of the cfgs; the window's own start is near, and moves there."""
    model = models("sd3")
    presets = learned(model, starts=((4, 0.62),))
    installed(joined(presets))
    sigmas = t.sigmas_of(model, "s4s", 8)[-5:]
    choice = chosen(model, sigmas, 3.0)
    assert choice.table_name == "calls4_from0.62" and "between those learned at cfg 2 and 6" in choice.message()
    levels = s4s_host.pack("s4s_nodes.select.adapt").from_start(
        table_at(presets, 3.0, "calls4_from0.62", True).sigmas, float(sigmas[0]), True)
    assert choice.table.sigmas == pytest.approx(levels, rel=1e-6)


# --- over HTTP ------------------------------------------------------------------------------------------------------

@pytest.fixture
def served(models, installed):
    """A joined preset for the tiny sd3 and the two it is made of; test_server samples at cfg 3."""
    presets = learned(models("sd3"), family="sd3")
    for preset in presets.values():
        installed(preset)
    return installed(joined(presets))


@pytest.mark.server
def test_the_image_says_what_ran(comfy, served):
    run = done(comfy.run(saved(ksampler("sd3", seed=31), "sd3")))
    [note] = json.loads(png(comfy, run).info["s4s"])
    assert (note["preset"], note["hash"], note["table"]) == ("joined", served.long_hash, "calls4")
    assert note["kind"] == "exact" and not note["fallback"]
    assert "between those learned at cfg 2 and 6" in note["text"] and ("samples", note["text"]) in run.texts


@pytest.mark.server
def test_the_rows_the_preset_node_and_the_join_node_give_one_latent(comfy, served):
    keep = {"keep": node("SaveLatent", samples=["samples", 0], filename_prefix="cfg")}
    rows = latent(comfy, done(comfy.run(ksampler("sd3") | keep)))
    named = latent(comfy, done(comfy.run(custom("sd3", "joined") | keep)))
    graph = custom("sd3", "joined") | keep | {
        "low": node("S4SLoadPreset", preset="at2", path=""), "high": node("S4SLoadPreset", preset="at6", path=""),
        "both": node("S4SJoinPresets", preset=["low", 0], preset_2=["high", 0], name="both"),
        "one": node("S4SSampler", preset=["both", 0], unmatched="error"),
        "two": node("S4SSigmas", preset=["both", 0], calls=4, denoise=1.0, model=["model", 0])}
    graph["samples"]["inputs"] |= {"sampler": ["one", 0], "sigmas": ["two", 0]}
    del graph["preset"]
    made = latent(comfy, done(comfy.run(graph)))
    assert rows.equal(named) and rows.equal(made)


@pytest.mark.server
@pytest.mark.parametrize("denoise", [1.0, 0.5])
def test_basic_scheduler_gives_the_levels_of_the_cfg_its_sampler_has(comfy, served, denoise):
    """It knows no cfg; the guider behind it does. So it starts where a KSampler of this cfg starts."""
    keep = {"keep": node("SaveLatent", samples=["samples", 0], filename_prefix="basic")}
    plain = latent(comfy, done(comfy.run(ksampler("sd3", denoise=denoise, seed=1) | keep)))
    graph = custom("sd3", "joined") | keep | {
        "levels": node("BasicScheduler", model=["model", 0], scheduler="s4s", steps=4, denoise=denoise),
        "select": node("KSamplerSelect", sampler_name="s4s")}
    del graph["preset"]
    graph["samples"]["inputs"] |= {"sampler": ["select", 0], "sigmas": ["levels", 0]}
    assert latent(comfy, done(comfy.run(graph))).equal(plain)
