"""Infotexts in the stand-in for a host: written, pasted, and the picture's own table where its preset is gone."""

import re
from dataclasses import replace

import pytest
import torch

from s4s.s4s_nodes.core import classical, schedules
from s4s.s4s_nodes.core.preset_file import save
from tests.hosts.test_webui_sampling import TOY, ran
from tests.hosts.webui_double import CHECKPOINT, Host
from tests.hosts.webui_presets import eps_preset, shelved

PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')        # the hosts' own


@pytest.fixture
def host(monkeypatch, tmp_path):
    shelved(tmp_path)
    made = Host(monkeypatch, tmp_path)
    made.load()
    made.folder = tmp_path / "s4s_presets"
    return made


def pasted(written: dict) -> dict:
    """What the host reads back of its own line of parameters."""
    line = ", ".join(f"{key}: {value}" for key, value in {"Steps": 6, **written}.items())
    return dict(PARAMETER.findall(line))


def again(host, read: dict, steps=6, x=None, **changes):
    """(result, infotext) of the pasted parameters, as the host and the panel's fields take them."""
    there = read.get("Schedule type") in [row.label for row in host.schedules.schedulers]
    p = host.process(steps=steps, scheduler=read["Schedule type"] if there else "Automatic", **changes)
    paste = host.part("pasted")
    host.part("panel").S4SScript().process(p, host.part("outlook").choice(read), False, paste.tables(read))
    return ran(host, p, x)[0], p.extra_generation_params


def changed(host, name="toy, sd15"):
    """A retrained preset of the same name."""
    made = eps_preset(name)
    levels = schedules.karras(6, 0.0292, 14.6146, rho=5)
    made = replace(made, tables={**made.tables, "calls6": classical.dpmpp_2m(levels)})
    save(made, host.folder / f"{name}.safetensors")
    host.part("rows").refresh()


@pytest.mark.parametrize("asked", ["Automatic", "s4s_auto", "S4S Auto", "Karras", TOY])
def test_no_internal_name_is_written(host, asked):
    for steps in (6, 20):
        p = host.process(steps=steps, scheduler=asked)
        ran(host, p)
        assert "s4s_auto" not in str(p.extra_generation_params)
        assert p.extra_generation_params.get("Schedule type", "S4S").startswith("S4S")


def test_a_pasted_infotext_takes_the_preset_that_is_still_there(host):
    p = host.process(scheduler="Automatic")
    wanted, _ = ran(host, p)
    read = pasted(p.extra_generation_params)
    assert host.part("outlook").choice(read) == "by Schedule type" and read["Schedule type"] == TOY
    got, written = again(host, read)
    assert torch.equal(got, wanted) and written == p.extra_generation_params


@pytest.mark.parametrize("fate", ["gone", "changed", "renamed", "gone, its name another's"])
def test_a_picture_is_made_again_whatever_became_of_its_preset(host, fate):
    p = host.process(scheduler=TOY)
    wanted, _ = ran(host, p)
    read, file = pasted(p.extra_generation_params), host.folder / "toy, sd15.safetensors"
    if fate == "renamed":
        file.rename(host.folder / "mine.safetensors")
    elif "gone" in fate:
        file.unlink()
    host.part("rows").refresh()
    if fate in ("changed", "gone, its name another's"):
        changed(host)
        assert not torch.equal(ran(host, host.process(scheduler=TOY))[0], wanted)
    choice = host.part("outlook").choice(read)
    assert choice == ("S4S mine" if fate == "renamed" else "S4S table of the pasted picture")
    got, written = again(host, read)
    assert torch.equal(got, wanted)
    if fate != "renamed":                                                       # and once more from what that wrote
        assert written["S4S"] == read["S4S"] and written["Schedule type"] == TOY
        assert torch.equal(again(host, pasted(written))[0], wanted)


@pytest.mark.parametrize("steps, strength", [(8, 0.5), (8, 0.75), (6, 1.0), (8, 0.9)])
def test_an_img2img_is_made_again_too(host, steps, strength):
    x, changes = torch.full((3, 2), 0.3), {"denoising_strength": strength}
    p = host.process(steps=steps, scheduler=TOY, **changes)
    wanted, _ = ran(host, p, x)
    read = pasted(p.extra_generation_params)
    (host.folder / "toy, sd15.safetensors").unlink()
    host.part("rows").refresh()
    got, written = again(host, read, steps, x, **changes)
    assert torch.equal(got, wanted)
    assert torch.equal(again(host, pasted(written), steps, x, **changes)[0], wanted)


def fallback(host, **more):
    """(what a classical solver gave at 13 steps, for which the shelf has no table; its infotext as read back)"""
    p = host.process(steps=13, scheduler="Automatic", **more)
    wanted, _ = ran(host, p)
    assert p.extra_generation_params["S4S"].startswith("fallback")
    return wanted, {**pasted(p.extra_generation_params), "Steps": "13", "CFG scale": "3", "Size-1": "512",
                    "Size-2": "512", "Model hash": CHECKPOINT}


def trained(host):
    """A preset for the model with a table of 13 steps, put on the shelf."""
    levels = schedules.karras(13, 0.0292, 14.6146, rho=4)
    later = replace(eps_preset("later"), tables={"calls13": classical.dpmpp_2m(levels)})
    save(later, host.folder / "later.safetensors")
    host.part("rows").refresh()


def test_a_fallbacks_picture_is_made_again_after_a_preset_was_trained(host):
    wanted, read = fallback(host)
    assert host.part("outlook").choice(read) == "by Schedule type"             # nothing has changed
    trained(host)
    assert not torch.equal(ran(host, host.process(steps=13, scheduler="S4S Auto"))[0], wanted)
    assert host.part("outlook").choice(read) == host.part("pasted").CHOICE
    for _ in range(2):                                                          # and once more from what that wrote
        got, written = again(host, read, 13)
        assert torch.equal(got, wanted) and written["Schedule type"] == "S4S Auto"
        assert "not learned" not in written["S4S"] and written["S4S"].startswith("classical solver ")
        read = {**read, **pasted(written)}


def test_the_panel_says_that_a_pasted_fallback_runs_again(host):
    _, read = fallback(host)
    trained(host)
    outlook, paste = host.part("outlook"), host.part("pasted")
    said = outlook.of(outlook.Settings(steps=13, cfg_scale=3.0, preset=paste.CHOICE, pasted=paste.tables(read)), False)
    assert "a classical solver made the picture: its own table runs again" in said.warning, said


@pytest.mark.parametrize("unlike", [{"Model hash": "another"}, {"CFG scale": "?"}, {"Steps": "10"}])
def test_a_fallback_that_may_not_come_again_by_itself_takes_the_pictures_table(host, unlike):
    _, read = fallback(host)
    assert host.part("outlook").choice({**read, **unlike}) == host.part("pasted").CHOICE


def test_the_panel_says_what_became_of_the_preset(host):
    p = host.process(scheduler=TOY)
    ran(host, p)
    read, outlook, paste = pasted(p.extra_generation_params), host.part("outlook"), host.part("pasted")

    def words(**more):
        return outlook.of(outlook.Settings(steps=6, cfg_scale=3.0, preset=paste.CHOICE, pasted=paste.tables(read),
                                           **more), False)
    changed(host)
    assert "toy, sd15 was changed since it made the picture" in words().warning
    (host.folder / "toy, sd15.safetensors").unlink()
    assert "which made the picture, is not here: its own table runs" in words().warning and words().table == "calls6"
    off = outlook.of(outlook.Settings(steps=9, preset=paste.CHOICE, pasted=paste.tables(read)), False)
    assert "you asked for 9" in off.warning and off.steps == 6
    nothing = outlook.of(outlook.Settings(steps=6, preset=paste.CHOICE), False)
    assert "no picture with a table was pasted" in nothing.warning


@pytest.mark.parametrize("damage", ["", "AAAA", "x" * 50, "日本"])
def test_a_damaged_table_is_said_to_be(host, damage):
    p = host.process(scheduler=TOY)
    host.part("panel").S4SScript().process(p, "S4S table of the pasted picture", False, damage)
    ran(host, p)
    assert p.extra_generation_params["S4S"].startswith("fallback") and "pasted" in p.extra_generation_params["S4S"] or \
        "damaged" in p.extra_generation_params["S4S"] or "cut off" in p.extra_generation_params["S4S"]
    assert host.part("outlook").choice({"S4S table": damage, "Schedule type": TOY}) == "by Schedule type"


def test_another_models_picture_is_said_to_be(host):
    """The table of the picture knows which weights it was learned on."""
    p = host.process(scheduler=TOY)
    ran(host, p)
    read = pasted(p.extra_generation_params)
    (host.folder / "toy, sd15.safetensors").unlink()
    host.part("rows").refresh()
    host.shared.sd_model.sd_checkpoint_info.shorthash = "another"
    assert "not learned on this model" in again(host, read)[1]["S4S"]


def test_the_table_is_left_out_where_the_settings_say_so(host):
    host.shared.opts.s4s_write_table = False
    p = host.process(scheduler=TOY)
    ran(host, p)
    assert set(p.extra_generation_params) == {"S4S", "Schedule type"}
