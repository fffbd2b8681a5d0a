"""The panel in the stand-in for a host: what it says before Generate, and the preset it chooses for one generation."""

from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core.preset_file import save
from tests.hosts.test_webui_sampling import TOY, ran
from tests.hosts.webui_double import Host
from tests.hosts.webui_presets import eps_preset, shelved

NAMES = ("sampling", "scheduler", "steps", "cfg_scale", "denoising_strength", "preset", "strict")


@pytest.fixture
def host(monkeypatch, tmp_path):
    shelved(tmp_path)
    made = Host(monkeypatch, tmp_path)
    made.load()
    return made


def seen(host, img2img=False, **changes):
    outlook = host.part("outlook")
    return outlook.of(outlook.Settings(**{"steps": 6, "cfg_scale": 3.0, **changes}), img2img)


def values(sampling="S4S", scheduler="S4S Auto", steps=6, cfg=3.0, strength=1.0, preset="by Schedule type",
           strict=False):
    return sampling, scheduler, steps, cfg, strength, preset, strict


@pytest.mark.parametrize("scheduler", ["Automatic", "S4S Auto", TOY])
def test_a_table_for_the_steps_is_no_warning(host, scheduler):
    found = seen(host, scheduler=scheduler)
    assert found.warning == "" and found.steps == 0 and found.table == "calls6"
    assert found.text.startswith("toy, sd15 (") and "calls6, exact" in found.text


@pytest.mark.parametrize("steps, nearest", [(20, 8), (7, 6), (1, 4), (150, 8)])
def test_steps_without_a_table_are_said_with_the_nearest_that_have_one(host, steps, nearest):
    found = seen(host, steps=steps)
    assert f"toy, sd15 has 4, 6 and 8 steps, you asked for {steps}" in found.warning
    assert " will run" in found.warning and found.steps == nearest
    assert not seen(host, steps=nearest).warning


def test_what_ships_is_said_by_its_steps_where_nothing_was_trained(host, tmp_path):
    """The WebUI's default of 20 steps on a checkpoint that nobody trained for."""
    host.shared.sd_model.sd_checkpoint_info.shorthash = "another"
    found = seen(host, steps=20, cfg_scale=7.0)
    assert found.warning.startswith("no preset was trained for this model. UniPC") and found.steps == 10
    published = seen(host, steps=6, cfg_scale=7.0)
    assert published.warning == "" and published.preset.name == "gits-sd15"     # said, but nothing the user can set
    assert "no preset was trained for this model" in published.text.lower()


def test_another_sampler_is_said_where_a_preset_is_chosen(host):
    assert seen(host, sampling="Euler", scheduler="Karras").warning == ""
    for chosen in ({"scheduler": TOY}, {"scheduler": "Karras", "preset": TOY}):
        found = seen(host, sampling="Euler", **chosen)
        assert "Sampling method is Euler" in found.warning and found.sampling == "S4S"


def test_a_cfg_that_was_not_learned_is_said(host):
    found = seen(host, cfg_scale=12.0)
    assert "learned at cfg 1 to 7, you use 12" in found.warning and found.steps == 0


def test_a_strength_without_a_window_is_said_with_steps_that_have_one(host):
    found = seen(host, img2img=True, steps=20, denoising_strength=0.5)
    assert found.warning and found.steps
    assert not seen(host, img2img=True, steps=found.steps, denoising_strength=0.5).warning
    assert not seen(host, img2img=True, steps=8, denoising_strength=1.0).warning


@pytest.mark.parametrize("steps, strength", [(8, 0.5), (8, 0.75), (6, 0.3), (20, 0.6)])
def test_what_the_panel_says_is_what_runs(host, steps, strength):
    found = seen(host, img2img=True, steps=steps, denoising_strength=strength)
    p = host.process(steps=steps, scheduler="Automatic", denoising_strength=strength)
    ran(host, p, torch.zeros(3, 2))
    assert p.extra_generation_params["S4S"].startswith("fallback") == bool(found.warning)
    assert found.warning or f" {found.table} " in p.extra_generation_params["S4S"]


def test_the_second_pass_of_hires_fix_is_looked_at_too(host):
    found = seen(host, hires=True, hires_steps=20, denoising_strength=0.5)
    assert found.warning.startswith("Hires fix: ") and found.steps == 0         # the first pass's are good
    assert seen(host, hires=True, hires_sampler="Euler").warning == ""


def test_before_a_checkpoint_is_loaded_the_steps_are_looked_at(host):
    host.part("outlook").sd_models.model_data.sd_model = None
    assert "is not loaded yet" in seen(host).text and seen(host).warning == ""
    found = seen(host, steps=20)
    assert found.warning.startswith("No preset here has 20 steps; they have ") and found.steps == 12
    named = seen(host, steps=20, scheduler=TOY)
    assert named.steps == 8 and "is not loaded yet" in named.text


def test_the_panel_opens_the_table_of_the_steps_and_keeps_what_the_user_opened(host):
    panel = host.part("panel")
    warning, button, words, shown, tables, image, about = panel.follow("txt2img", NAMES, "", *values(steps=8))
    assert not warning["visible"] and not button["visible"] and "calls8, exact" in words
    assert tables == {"choices": ["calls4", "calls5_from1.9", "calls6", "calls8"], "value": "calls8"}
    assert image["visible"] and image["value"].size[0] == 1024 and "toy, sd15" in about
    assert panel.follow("txt2img", NAMES, shown, *values(steps=8, cfg=4.0))[3:] == (shown, {}, {}, {})
    assert panel.draw(shown, "calls4")["value"].tobytes() != image["value"].tobytes()
    assert panel.draw(shown, "calls99") == {} and panel.draw("", "calls4") == {}
    warning, button, *_, = panel.follow("txt2img", NAMES, shown, *values(steps=20))
    assert warning["visible"] and button == {"value": "Set Sampling steps to 8", "visible": True}
    assert panel.mend("txt2img", NAMES, *values(steps=20)) == ({}, {"value": 8})
    assert panel.mend("txt2img", NAMES, *values("Euler", TOY)) == ({"value": "S4S"}, {})


def test_the_panel_chooses_a_preset_for_one_generation(host, tmp_path):
    """By name or schedule type, over the schedule type and the settings; it is named as if it had been chosen there."""
    save(eps_preset("other"), tmp_path / "s4s_presets" / "other.safetensors")
    script = host.part("panel").S4SScript()
    for chosen, wanted in (("other", "other"), ("S4S other", "other"), ("by Schedule type", "toy, sd15"),
                           (None, "toy, sd15")):
        p = host.process(scheduler=TOY)
        script.process(p, chosen, False)
        ran(host, p)
        assert p.extra_generation_params["S4S"].startswith(wanted.replace(",", "")), chosen
        assert p.extra_generation_params["Schedule type"] == ("S4S other" if wanted == "other" else TOY)
    p = host.process(scheduler=TOY)
    script.process(p)                                                           # over the API without arguments
    ran(host, p)
    assert p.extra_generation_params["Schedule type"] == TOY
    p = host.process(scheduler=TOY)
    script.process(p, "misspelt", False)
    ran(host, p)
    assert "S4S misspelt names a preset that does not exist" in p.extra_generation_params["S4S"]


def test_the_panels_strict_refuses_another_models_preset(host, tmp_path):
    made = eps_preset("strange")
    save(replace(made, model=replace(made.model, hashes={"sha256_10": "f" * 10})), tmp_path / "s4s_presets" /
         "strange.safetensors")
    script = host.part("panel").S4SScript()
    for strict in (False, True):
        p = host.process(scheduler="Karras", steps=6)
        script.process(p, "strange", strict)
        ran(host, p)
        assert p.extra_generation_params["S4S"].startswith("fallback") == strict
        assert ("was not learned on this model" in seen(host, preset="strange", strict=strict).warning)
