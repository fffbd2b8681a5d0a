"""The pictures of docs/webui.md, shot in the WebUI's page: see tests/hosts/pictures.py."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from tests.hosts.pictures import clip_of, save, until

HERE = Path(__file__).resolve().parent
PRESET = "my-sd15"
ASKED = {"prompt": "a cat", "width": 64, "height": 64, "cfg_scale": 3, "steps": 8, "seed": 1, "sampler_name": "S4S",
         "scheduler": f"S4S {PRESET}"}


def shoot(page, base: Path, _) -> None:
    """All pictures of docs/webui.md, on the tests' random checkpoint."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    import conftest
    conftest.import_clone()
    import s4s_webui_host as hosts

    from s4s.s4s_nodes.core.preset_file import load, save
    folder = hosts.make_data(base, learned_on_it=True) / "models" / "s4s_presets"
    preset = replace(load(folder / "toy, sd15.safetensors"), name=PRESET)
    for path in folder.glob("*"):
        path.unlink()
    save(preset, folder / f"{PRESET}.safetensors")
    page.set_viewport_size({"width": 1120, "height": 1300})
    server = hosts.Server(base, "--gradio-allowed-path", str(hosts.folder()))     # its style sheet
    try:
        page.goto(f"http://127.0.0.1:{server.port}")
        rows(page)
        presets(page)
        [infotext] = json.loads(server.call("/sdapi/v1/txt2img", ASKED, seconds=1800)["info"])["infotexts"]
        (folder / f"{PRESET}.safetensors").unlink()
        pasted(page, infotext)
        training(page)
    finally:
        server.stop()


def rows(page) -> None:
    """The line before Generate with its button, and the list of schedule types."""
    option = page.get_by_role("option", name="S4S", exact=True).first
    until(option, page.locator("#txt2img_sampling input").first.click)
    option.click()
    page.locator("#s4s_txt2img_warning", has_text="S4S: ").wait_for()
    page.get_by_role("button", name="Set Sampling steps to").first.wait_for()
    save("webui-warning.png", page.screenshot(clip=clip_of(page, "#s4s_txt2img_warning", "#txt2img_cfg_scale")))
    page.locator("#txt2img_scheduler input").first.click()
    page.keyboard.press("Control+A")
    page.keyboard.type("S4S")
    page.get_by_role("option", name=f"S4S {PRESET}", exact=True).wait_for()
    page.get_by_role("option", name="Karras", exact=True).wait_for(state="hidden")
    clip = clip_of(page, "#txt2img_sampling", "#txt2img_cfg_scale", "ul.options:visible", margin=0)
    save("webui-dropdown.png", page.screenshot(clip=clip))
    page.keyboard.press("Escape")


def presets(page) -> None:
    page.locator("#tabs button", has_text="S4S").first.click()
    page.get_by_role("tab", name="Presets").click()
    page.locator("#s4s_collection_list td", has_text=PRESET).wait_for()
    save("webui-presets.png", page.screenshot(clip=clip_of(page, "#tab_s4s_tab", margin=0)))


def pasted(page, infotext: str) -> None:
    """The panel after the preset of a pasted picture was deleted."""
    page.set_viewport_size({"width": 1340, "height": 1900})
    page.reload()

    def paste():
        page.locator("#txt2img_prompt textarea").first.fill(infotext)
        page.locator("#paste").first.click()
    until(page.locator("#s4s_txt2img_warning", has_text="is not here"), paste)
    until(page.locator("#s4s_txt2img_outlook"), page.locator("#s4s_txt2img .label-wrap").first.click)
    page.locator("#s4s_txt2img img").first.wait_for()
    page.locator("#s4s_txt2img").get_by_text("eps prediction, sigma").last.wait_for()
    save("webui-panel.png", page.screenshot(clip=clip_of(page, "#s4s_txt2img_warning", "#s4s_txt2img")))


def training(page) -> None:
    page.set_viewport_size({"width": 1120, "height": 1300})
    page.locator("#tabs button", has_text="S4S").first.click()
    for field, value in {"prompts": "a cat\na red house", "cfg": "3", "width": "64", "height": "64",
                         "name": "my-preset"}.items():
        page.locator(f"#s4s_{field} textarea, #s4s_{field} input").first.fill(value)
    page.locator("#s4s_effort label").first.click()             # quick
    page.locator("#s4s_train").click()
    better = page.get_by_text(re.compile(r"so far (?!1\.00).* closer")).first
    until(better, page.locator("#s4s_bar b").wait_for)          # there is none of a training that was refused
    page.locator("#s4s_live img").first.wait_for()
    save("webui-training.png", page.screenshot(clip=clip_of(page, "#tab_s4s_tab", margin=0)))
