"""A host's server with S4S in it, over HTTP: what users and their scripts ask of it, on a random checkpoint."""

import base64
import io
import json
import shutil
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import s4s_webui_host as hosts
import torch
from open_page import Page
from PIL import Image, ImageDraw
from safetensors import safe_open
from safetensors.torch import save_file
from webui_presets import eps_preset

from s4s.s4s_nodes.core import classical, preset_file, schedules

TOY, HASH = "S4S toy_ sd15", eps_preset().long_hash
SHIPPED = [path for path in sorted((hosts.ROOT / "solver_presets").glob("*.safetensors"))
           if not path.stem.startswith("digits-")]                              # of the trainer's own models
BASE = {"prompt": "a cat", "negative_prompt": "bad", "width": 64, "height": 64, "cfg_scale": 3, "seed": 1, "steps": 8,
        "sampler_name": "S4S", "scheduler": TOY}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    data = hosts.make_data(tmp_path_factory.mktemp("data"), learned_on_it=True)
    made = hosts.Server(data)
    made.data = data
    yield made
    made.stop()
    shutil.rmtree(data / "models" / "Stable-diffusion", ignore_errors=True)


def txt2img(server, **changes):
    return answered(server.call("/sdapi/v1/txt2img", {**BASE, **changes}))


def img2img(server, picture, **changes):
    return answered(server.call("/sdapi/v1/img2img", {**BASE, "init_images": [picture], **changes}))


def answered(answer):
    """([picture, ...], [what each infotext says, ...])"""
    info = json.loads(answer["info"])
    return answer["images"], [said(text) for text in info["infotexts"]]


def said(text) -> dict:
    """An infotext's last line as the host writes it: {key: value}."""
    line = next((line for line in str(text).splitlines() if line.startswith("Steps:")), "")
    return dict(part.split(": ", 1) for part in line.split(", ") if ": " in part)


def hires(**changes):
    forge = {"hr_additional_modules": ["Use same choices"]} if hosts.kind() == "forge" else {}
    return {"enable_hr": True, "hr_scale": 1.5, "denoising_strength": 0.5, **forge, **changes}


def png(image) -> str:
    kept = io.BytesIO()
    image.save(kept, "PNG")
    return base64.b64encode(kept.getvalue()).decode()


def plot_arguments(server, **axes):
    """Arguments of the XYZ script: x=(label, [values]), ..."""
    scripts = server.call("/sdapi/v1/script-info")
    asked = next(s["args"] for s in scripts if s["name"] == "x/y/z plot" and not s["is_img2img"])
    labels, values = [a["label"] for a in asked], [a.get("value") for a in asked]
    choices = asked[0]["choices"]
    for axis in "XYZ":
        at = labels.index(f"{axis} Type") if f"{axis} Type" in labels else labels.index(f"{axis} type")
        label, wanted = axes.get(axis.lower(), ("Nothing", []))
        values[at:at + 3] = [choices.index(label), ",".join(wanted), wanted]
    return values


def test_the_rows_are_in_the_api_and_on_the_page(server):
    rows = server.call("/s4s-test/rows")
    assert rows["samplers"].count("S4S") == 1
    wanted = ["S4S Auto", TOY, "S4S toy-flow", *(f"S4S {path.stem}" for path in SHIPPED)]
    assert [label for label in rows["schedules"] if label.startswith("S4S")] == wanted
    listed = {data["name"]: data for data in server.call("/sdapi/v1/samplers")}
    assert listed["S4S"]["aliases"] == ["k_s4s"] and listed["S4S"]["options"]["scheduler"] == "s4s_auto"
    assert TOY in [row["label"] for row in server.call("/sdapi/v1/schedulers")]
    parts = {c["props"].get("elem_id"): c["props"] for c in server.call("/config")["components"] if "props" in c}
    for name, wanted in (("txt2img_sampling", "S4S"), ("img2img_sampling", "S4S"), ("txt2img_scheduler", TOY),
                         ("hr_scheduler", TOY), ("s4s_txt2img_preset", TOY), ("s4s_img2img_preset", TOY)):
        choices = [c[0] if isinstance(c, list) else c for c in parts[name]["choices"]]
        assert choices.count(wanted) == 1, name
    assert "setting_s4s_fallback" in parts and "setting_s4s_default_sd15" in parts


def test_a_page_that_finds_a_training_running_shows_its_preset_in_the_end(server):
    """All that follows work looks for new presets afterwards; the live picture has no label of gradio's over it."""
    config = server.call("/config")
    known = {c["props"].get("elem_id"): (c["id"], c["props"]) for c in config["components"] if "props" in c}

    def events(name: str) -> list:
        return [(each.get("id", i), each) for i, each in enumerate(config["dependencies"])
                if known[name][0] in each["outputs"]]
    follow = {id_ for id_, _ in events("s4s_bar")}
    assert len(follow) == 4 and follow <= {each["trigger_after"] for _, each in events("s4s_collection_list")}
    assert known["s4s_live"][1]["show_label"] is False


def test_a_broken_preset_is_named_in_the_log_and_nothing_of_ours_failed(server):
    assert "broken.safetensors" in server.text()
    assert f"{hosts.CLONE}/s4s_nodes" not in server.text() and "Error loading script: s4s" not in server.text()


def test_txt2img_runs_the_table_and_says_so(server):
    pictures, [text] = txt2img(server)
    assert text["Sampler"] == "S4S" and text["Schedule type"] == TOY
    assert text["S4S"].startswith(f"toy sd15 {HASH} calls8 exact (S4S ")
    again, _ = txt2img(server, alwayson_scripts={"S4S": {"args": []}})
    euler, [other] = txt2img(server, sampler_name="Euler", scheduler="Karras")
    assert np.abs(hosts.pixels(pictures[0]) - hosts.pixels(again[0])).max() == 0
    assert np.abs(hosts.pixels(pictures[0]) - hosts.pixels(euler[0])).max() > 2 and "S4S" not in other
    assert "S4S" in server.call("/sdapi/v1/png-info", {"image": "data:image/png;base64," + pictures[0]})["info"]


def test_the_page_says_before_generate_that_steps_have_no_table(server):
    page = Page(server)
    page.shows |= {"txt2img_sampling": "S4S", "txt2img_cfg_scale": 3}
    page.press("txt2img_steps", "change")
    assert "has 4, 6 and 8 steps, you asked for 20" in page.shows["s4s_txt2img_warning"]
    page.press("s4s_txt2img_mend")
    assert page.shows["txt2img_steps"] == 8
    page.press("txt2img_steps", "change")
    assert page.shows["s4s_txt2img_table"] == "calls8" and "calls8, exact" in page.shows["s4s_txt2img_outlook"]
    assert "has 4" not in page.shows["s4s_txt2img_warning"]


def test_auto_finds_the_preset_for_the_checkpoint(server):
    for asked in ("Automatic", "S4S Auto", None):
        _, [text] = txt2img(server, steps=4, scheduler=asked)
        assert text["Schedule type"] == TOY and f"{HASH} calls4 exact" in text["S4S"], asked


def test_without_a_table_it_falls_back_loudly(server):
    _, [text] = txt2img(server, steps=11)
    assert text["S4S"].startswith("fallback ") and "you asked for 11" in text["S4S"]
    assert "S4S fallback: " in server.text() and "on the given levels ran" in server.text()
    with pytest.raises(RuntimeError, match="500"):
        txt2img(server, steps=11, override_settings={"s4s_fallback": "stop"})
    assert "fallback" in txt2img(server, steps=11)[1][0]["S4S"]                  # the setting was for one request


def test_a_lora_in_the_prompt_makes_another_model_of_the_checkpoint(server):
    """The shelf's presets were learned without it; the next picture without it has them again."""
    place = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    [checkpoint] = (server.data / "models" / "Stable-diffusion").glob("*.safetensors")
    with safe_open(checkpoint, framework="pt") as file:
        wide, _ = file.get_slice(f"model.diffusion_model.{place}.weight").get_shape()
    key = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    (server.data / "models" / "Lora").mkdir(exist_ok=True)
    save_file({f"{key}.lora_down.weight": torch.ones(2, wide), f"{key}.lora_up.weight": torch.ones(wide, 2),
               f"{key}.alpha": torch.tensor(2.0)}, server.data / "models" / "Lora" / "hat.safetensors")
    server.call("/sdapi/v1/refresh-loras", {})
    _, [text] = txt2img(server, scheduler="Automatic", prompt="a cat <lora:hat:1>")
    assert text["S4S"].startswith("fallback"), text
    _, [text] = txt2img(server, scheduler="Automatic")
    assert "calls8 exact" in text["S4S"]


def test_what_changes_the_networks_answer_is_a_fallback(server):
    """The host's own settings, and what its extensions hang into the network."""
    page = Page(server)

    def ran(**asked) -> str:
        return txt2img(server, scheduler="S4S Auto", **asked)[1][0]["S4S"]
    if hosts.kind() == "forge":
        freeu = {"FreeU Integrated (SD 1.x, SD 2.x, SDXL)": {"args": [True, 1.3, 1.4, 0.9, 0.2, 0.0, 1.0]}}
        assert "toy sd15 was learned on this model without LoRAs and patches" in ran(alwayson_scripts=freeu)
        page.press("s4s_take_last")
        assert "A training leaves it out: the preset will not run while it is on" in page.shows["s4s_notice"]
    assert ran().startswith("toy sd15 ")
    page.press("s4s_take_last")
    assert page.shows["s4s_notice"] == "" and "do not take part in a training" in page.shows["s4s_without"]
    server.call("/sdapi/v1/options", {"s_min_uncond": 2.0})
    assert "toy sd15 was learned with cfg alone this sampling has NGMS" in ran()
    server.call("/sdapi/v1/options", {"s_min_uncond": 0.0})
    assert ran().startswith("toy sd15 ")


def test_another_sampler_may_use_the_schedule(server):
    _, [text] = txt2img(server, sampler_name="Euler")
    assert text["Sampler"] == "Euler" and text["Schedule type"] == TOY and "S4S" not in text
    assert text["S4S schedule"] == f"toy sd15 {HASH}"
    _, [text] = txt2img(server, sampler_name="Euler", scheduler="S4S Auto")
    assert text["Schedule type"] == TOY and text["S4S schedule"] == f"toy sd15 {HASH}"
    _, [text] = txt2img(server, sampler_name="Euler", scheduler="S4S Auto", steps=13)
    assert text["S4S schedule"].startswith("fallback the model's own levels - ") and "S4S schedule, fallback" in \
        server.text()


def test_a_batch_is_its_pictures(server):
    first, second = txt2img(server, steps=4)[0][0], txt2img(server, steps=4, seed=2)[0][0]
    both = [picture for picture in txt2img(server, steps=4, batch_size=2)[0]][-2:]
    for one, other in zip((first, second), both):
        assert np.abs(hosts.pixels(one) - hosts.pixels(other)).max() <= 2
    _, texts = txt2img(server, steps=4, n_iter=2)
    assert all("calls4 exact" in text["S4S"] for text in texts[-2:])


def test_img2img_at_any_strength(server):
    picture, kinds = txt2img(server, steps=4)[0][0], {}
    for strength in (0.1, 0.5, 0.75, 1.0):
        pictures, [text] = img2img(server, picture, denoising_strength=strength)
        kinds[strength] = text["S4S"]
        assert text["Schedule type"] == TOY and hosts.pixels(pictures[0]).shape == (64, 64, 3)
    assert "calls8 exact" in kinds[1.0] and "calls5_from1.9" in kinds[0.5]
    _, [text] = img2img(server, picture, denoising_strength=0.5, override_settings={"img2img_fix_steps": True})
    assert text["S4S"]


def test_inpainting_leaves_the_kept_half(server):
    picture = txt2img(server, steps=4)[0][0]
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).rectangle([32, 0, 63, 63], fill=255)
    source = png(Image.fromarray(hosts.pixels(picture).astype("uint8")))
    after, [text] = img2img(server, source, mask=png(mask), mask_blur=0, inpainting_fill=1, inpaint_full_res=False,
                            denoising_strength=0.75)
    change = np.abs(hosts.pixels(after[0]) - hosts.pixels(picture))
    assert change[:, :28].mean() < 0.5 < change[:, 36:].mean() and text["S4S"]


def test_hires_fix_has_words_of_its_own(server):
    latent = server.call("/sdapi/v1/latent-upscale-modes")[0]["name"]
    pictures, [text] = txt2img(server, steps=6, **hires(hr_upscaler=latent))
    assert hosts.pixels(pictures[0]).shape == (96, 96, 3)
    assert "calls6 exact" in text["S4S"] and text["Hires S4S"]
    assert "hires schedule type" not in (key.lower() for key in text)
    _, [text] = txt2img(server, steps=6, sampler_name="Euler", scheduler="Karras",
                        **hires(hr_upscaler=latent, hr_sampler_name="S4S", hr_scheduler=TOY, hr_second_pass_steps=4))
    text = {key.lower(): value for key, value in text.items()}                   # ersatzForge: HiRes
    assert "s4s" not in text and text["hires s4s"] and text["hires schedule type"] == TOY
    assert text["hires sampler"] == "S4S"


def test_nothing_leaks_between_the_cells_of_a_plot(server):
    arguments = plot_arguments(server, x=("Sampler", ["S4S", "Euler"]), y=("Steps", ["6", "4"]))
    _, texts = txt2img(server, scheduler="Automatic", script_name="x/y/z plot", script_args=arguments)
    cells = [text for text in texts if text][-4:] if len(texts) > 4 else texts
    for text in texts:
        assert ("S4S" in text) == (text.get("Sampler") == "S4S"), texts
        assert text.get("Sampler") == "S4S" or "S4S" not in text.get("Schedule type", ""), texts
    assert cells


def test_presets_are_an_axis_by_their_schedule_types(server):
    arguments = plot_arguments(server, x=("Schedule type", ["S4S Auto", "S4S gits-sd15"]), y=("Nothing", []))
    _, texts = txt2img(server, scheduler="Karras", steps=6, script_name="x/y/z plot", script_args=arguments)
    assert all(text.get("Sampler") in ("S4S", None) for text in texts)
    last = texts[-1]
    if "S4S" in last and len(texts) > 1:                                        # reForge tells of the first cell only
        assert last["Schedule type"] == "S4S gits-sd15"


def test_an_infotext_comes_back(server):
    if hosts.kind() == "forge":
        pytest.skip("this host's API cannot replay an infotext, whatever the sampler")
    wanted, [text] = txt2img(server, steps=6, seed=7)
    line = ", ".join(f"{key}: {value}" for key, value in text.items())
    again, [replayed] = answered(server.call("/sdapi/v1/txt2img", {
        "infotext": f"a cat\nNegative prompt: bad\n{line}"}))
    assert replayed == text and np.abs(hosts.pixels(again[0]) - hosts.pixels(wanted[0])).max() == 0


def test_a_picture_is_made_again_after_its_preset_was_deleted(server):
    """From what the host read of its own infotext: the panel's fields take it, as in a paste on the page."""
    shelf = server.data / "models" / "s4s_presets"
    wanted, [text] = txt2img(server, steps=6, seed=7)
    panel = {"S4S": {"args": ["S4S table of the pasted picture", False, f"{text['S4S table']}/"]}}
    kept = (shelf / "toy, sd15.safetensors").rename(server.data / "kept.safetensors")
    try:
        _, [without] = txt2img(server, steps=6, seed=7)
        again, [replayed] = txt2img(server, steps=6, seed=7, scheduler="Automatic", alwayson_scripts=panel)
        info = server.call("/sdapi/v1/png-info", {"image": "data:image/png;base64," + wanted[0]})["info"]
    finally:
        kept.rename(shelf / "toy, sd15.safetensors")
    assert without["S4S"].startswith("fallback") and replayed == text
    assert np.abs(hosts.pixels(again[0]) - hosts.pixels(wanted[0])).max() == 0
    assert f"S4S table: {text['S4S table']}" in info                            # in the file, unquoted


def test_a_fallbacks_picture_is_made_again_after_a_preset_was_trained(server):
    """As after a paste: the panel's fields take the picture's table."""
    shelf = server.data / "models" / "s4s_presets"
    wanted, [text] = txt2img(server, steps=13, seed=7, scheduler="S4S Auto")
    panel = {"S4S": {"args": ["S4S table of the pasted picture", False, f"{text['S4S table']}/"]}}
    levels = schedules.karras(13, 0.0292, 14.6146, rho=4)
    toy = preset_file.load(shelf / "toy, sd15.safetensors")
    preset_file.save(replace(toy, name="later", tables={"calls13": classical.dpmpp_2m(levels)}),
                     shelf / "later.safetensors")
    try:
        other, [trained] = txt2img(server, steps=13, seed=7, scheduler="S4S Auto")
        again, [replayed] = txt2img(server, steps=13, seed=7, scheduler="S4S Auto", alwayson_scripts=panel)
    finally:
        (shelf / "later.safetensors").unlink()
    assert text["S4S"].startswith("fallback") and "later" in trained["S4S"]
    assert replayed["S4S"].startswith("classical solver ") and replayed["Schedule type"] == "S4S Auto"
    assert np.abs(hosts.pixels(again[0]) - hosts.pixels(wanted[0])).max() == 0
    assert np.abs(hosts.pixels(other[0]) - hosts.pixels(wanted[0])).max() > 0


@pytest.mark.parametrize("button", ["interrupt", "skip"])
def test_the_buttons_end_a_generation(server, button):
    done, began = [], time.monotonic()
    asked = threading.Thread(target=lambda: done.extend(txt2img(server, steps=150)[1]))
    asked.start()
    seen = 0
    while asked.is_alive() and seen < 3:
        time.sleep(0.1)
        seen = server.call("/sdapi/v1/progress?skip_current_image=true")["state"]["sampling_step"]
    server.call(f"/sdapi/v1/{button}", {})
    asked.join(120)
    whole = time.monotonic() - began
    assert not asked.is_alive() and seen < 140 and done, whole
    assert "calls4 exact" in txt2img(server, steps=4)[1][0]["S4S"]                # and the next one is whole


def test_ones_own_presets_are_added_renamed_joined_and_deleted_on_the_page(server, tmp_path):
    """As a browser does it; what the schedule types and the dropdowns of the open page show follows."""
    page, shelf = Page(server), server.data / "models" / "s4s_presets"
    part = {name: f"s4s_collection_{name}" for name in ("preset", "name", "sure", "several", "whole", "said", "list")}
    assert "broken.safetensors" in page.shows[part["list"]] and TOY not in page.choices[part["several"]]
    for cfg in (3, 7):
        made = replace(eps_preset(f"at {cfg}"), training={"cfg": cfg})
        page.upload("s4s_collection_files", preset_file.save(made, tmp_path / f"at {cfg}.safetensors"))
        page.press("s4s_collection_add")
        assert f"added as at {cfg}" in page.shows[part["said"]] and page.shows[part["preset"]] == f"at {cfg}"
    page.shows["txt2img_scheduler"] = "S4S at 3"
    page.shows |= {part["preset"]: "at 3", part["name"]: "three"}
    page.press(part["preset"], "change")
    assert page.download("s4s_collection_file") == (shelf / "at 3.safetensors").read_bytes()
    page.press("s4s_collection_rename")
    assert page.shows["txt2img_scheduler"] == "S4S three" and "S4S three" in page.choices["hr_scheduler"]
    page.shows |= {part["several"]: ["at 7", "three"], part["whole"]: "both"}
    page.press("s4s_collection_join")
    assert "joined as both: for cfg 3 to 7" in page.shows[part["said"]] and "both" in page.shows[part["list"]]
    assert "calls4 exact" in txt2img(server, steps=4, scheduler="S4S both")[1][0]["S4S"]
    for name, said in (("gits-sd15", "ships with S4S"), ("at 7", "deleted"), ("three", "deleted"),
                       ("both", "deleted")):
        page.shows |= {part["preset"]: name, part["sure"]: False}
        page.press("s4s_collection_delete")
        assert "tick Delete for good" in page.shows[part["said"]] or said == "ships with S4S"
        page.shows[part["sure"]] = True
        page.press("s4s_collection_delete")
        assert said in page.shows[part["said"]]
    assert page.shows["txt2img_scheduler"] == "S4S Auto" and "three" not in page.shows[part["list"]]
    assert not {"S4S three", "S4S both", "S4S at 7"} & set(server.call("/s4s-test/rows")["schedules"])
    assert {path.stem for path in shelf.iterdir()} == {"broken", "toy, sd15", "toy-flow"}


def test_a_file_of_the_server_that_a_request_names_is_not_added(server):
    page, shelf = Page(server), server.data / "models" / "s4s_presets"
    secret = preset_file.save(eps_preset("secret"), server.data / "secret.safetensors")
    page.shows["s4s_collection_files"] = [{"name": str(secret), "path": str(secret), "orig_name": "x", "data": None,
                                           "is_file": True, "meta": {"_type": "gradio.FileData"}}]
    try:
        page.press("s4s_collection_add")
    except RuntimeError as error:                       # gradio 4 refuses it itself
        assert ": 500 " in str(error)
    else:
        assert "was not uploaded on this page" in page.shows["s4s_collection_said"]
        assert str(server.data) not in page.shows["s4s_collection_said"]
    assert "secret" not in {path.stem for path in shelf.iterdir()}


def test_reload_ui_brings_a_new_preset_and_doubles_nothing(server):
    shelf = server.data / "models" / "s4s_presets"
    shutil.copy(shelf / "toy, sd15.safetensors", shelf / "a new one.safetensors")
    before = server.call("/s4s-test/rows")
    server.reload_ui()
    after = server.call("/s4s-test/rows")
    assert after["loaded"] > before["loaded"]
    assert sorted(after["samplers"]) == sorted(before["samplers"])
    assert sorted(after["schedules"]) == sorted([*before["schedules"], "S4S a new one"])
    _, [text] = txt2img(server, steps=4, scheduler="S4S a new one")
    assert text["Schedule type"] == "S4S a new one" and "calls4 exact" in text["S4S"]
    (shelf / "a new one.safetensors").unlink()
