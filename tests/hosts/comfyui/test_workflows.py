"""The example workflows: as this host's browser would save them, served, accepted, and run on tiny models."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
import s4s_host
import s4s_tools as t
import workflow_files
from PIL import Image
from workflow_examples import CALLS, EXAMPLES
from workflow_files import to_prompt, to_workflow

pytestmark = pytest.mark.server
MODEL_FILES = {"ckpt_name", "unet_name", "clip_name", "clip_name1", "clip_name2", "vae_name"}
ON_SD3 = ("s4s_flux", "s4s_sd3", "s4s_z_image", "s4s_train", "s4s_several_cfg", "s4s_race")     # the quicker tiny model
SMALL = {       # settings of a workflow, made small: what stays is the graph
    "ImageScale": {"width": 64, "height": 64}, "EmptyLatentImage": {"width": 64, "height": 64},
    "EmptySD3LatentImage": {"width": 64, "height": 64},
    "S4STrainPreset": {"budget": "normal", "teacher_calls": 8, "race_seeds": 2},
    "S4SRace": {"seeds": 2, "budget": 5000, "teacher_calls": 8, "calls": str(CALLS)}}


@pytest.fixture(scope="module", autouse=True)
def presets(base, models):
    """No presets but one for each tiny model, with a table for denoise 0.6; and a picture with a hole to load."""
    folder, aside = base / "models" / "s4s_presets", base / "aside"
    folder.rename(aside)
    folder.mkdir()
    levels_for = s4s_host.pack("s4s_nodes.library").levels_for
    for name in ("sd15", "sd3"):
        whole = t.preset_for(models(name), calls=(CALLS,), family=name)
        start = float(levels_for(whole, t.facts(models(name)), 10)[4])
        shown = t.preset_for(models(name), calls=(CALLS,), name=f"shown-{name}", starts=((CALLS, start),), family=name)
        t.install(base, replace(shown, training={"cfg": [-2.0, 8.0]}))      # for the cfg of every example
    picture = Image.new("RGBA", (64, 64), (200, 120, 40, 255))
    picture.paste((0, 0, 0, 0), (16, 16, 48, 48))
    picture.save(base / "input" / "example.png")
    yield
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    aside.rename(folder)


@pytest.fixture(scope="module")
def info(comfy):
    return comfy.get("/object_info")


def saved(name: str) -> dict:
    return json.loads((workflow_files.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def on_tiny_models(prompt: dict, name: str) -> dict:
    """The prompt with its loaders and text encoders replaced, and small sizes."""
    kind = t.KINDS["sd3" if name in ON_SD3 else "sd15"]
    vae = [str(max(map(int, prompt)) + 1), 0]
    made = {vae[0]: {"class_type": "VAELoader", "inputs": {"vae_name": "taesd3" if kind.pooled else "taesd"}}}
    tiny = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": f"{Path(kind.file).name}.safetensors"}}
    checkpoints = [key for key, node in prompt.items() if node["class_type"] == "CheckpointLoaderSimple"]
    for key, node in prompt.items():
        inputs = {name_: vae if value in ([c, 2] for c in checkpoints) else value
                  for name_, value in node["inputs"].items()} | SMALL.get(node["class_type"], {})
        made[key] = {"class_type": node["class_type"], "inputs": inputs}
        if node["class_type"] in ("CheckpointLoaderSimple", "UNETLoader"):
            made[key] = tiny
        if node["class_type"] == "CLIPTextEncode":
            words = {"width": kind.width, "tokens": 8, "pooled": kind.pooled, "seed": len(inputs["text"])}
            made[key] = {"class_type": "TestConditioning", "inputs": words}
        if node["class_type"] == "VAELoader":
            made[key] = made[vae[0]]
    return {key: node for key, node in made.items() if node["class_type"] not in ("CLIPLoader", "DualCLIPLoader")}


def only(prompt: dict, kind: str) -> str:
    """The one node of this class."""
    [key] = [key for key, node in prompt.items() if node["class_type"] == kind]
    return key


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_file_is_what_this_hosts_nodes_make_of_the_example(info, name):
    assert saved(name) == to_workflow(name, EXAMPLES[name], info)


def test_every_example_is_served_with_its_picture(comfy):
    assert sorted(comfy.get("/workflow_templates")[s4s_host.PACK]) == sorted(EXAMPLES)
    for name in EXAMPLES:
        place = f"/api/workflow_templates/{quote(s4s_host.PACK)}/{name}"
        assert comfy.get(f"{place}.json") == saved(name)
        assert comfy.get(f"{place}.jpg").startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_host_misses_nothing_but_the_model_files(comfy, info, name):
    run = comfy.run(to_prompt(saved(name), info))
    problems = [problem for node in run.error["node_errors"].values() for problem in node["errors"]]
    assert problems and {p["type"] for p in problems} == {"value_not_in_list"}, problems
    assert {p["extra_info"]["input_name"] for p in problems} <= MODEL_FILES, problems


@pytest.mark.parametrize("name, kind", [("s4s_text_to_image", "exact"), ("s4s_custom_sampling", "exact"),
                                        ("s4s_flux", "exact"), ("s4s_sdxl", "exact"), ("s4s_sd3", "exact"),
                                        ("s4s_z_image", "exact"),
                                        ("s4s_image_to_image", "window"),
                                        ("s4s_inpaint", "exact")])
def test_an_image_is_made_with_the_learned_table(comfy, info, name, kind):
    prompt = on_tiny_models(to_prompt(saved(name), info), name)
    run = comfy.run(prompt, workflow=saved(name))
    assert run.error is None, run.error.get("exception_message", run.error)
    picture = run.outputs(only(prompt, "SaveImage"))["images"][0]
    assert picture["subfolder"] == "S4S"
    embedded = Image.open(comfy.base / "output" / picture["subfolder"] / picture["filename"]).info
    [note] = json.loads(embedded["s4s"])
    assert note["kind"] == kind and note["calls"] == CALLS and not note["fallback"], note
    opened = json.loads(embedded["workflow"])                       # dropping the image opens the example again
    assert opened["extra"].pop("s4s") == [note] and {"extra": {}, **opened} == {"extra": {}, **saved(name)}
    for node in (key for key, node in prompt.items() if node["class_type"] == "PreviewAny"):
        assert note["preset"] in run.outputs(node)["text"][0]


def test_a_preset_is_trained(comfy, info, base):
    prompt = on_tiny_models(to_prompt(saved("s4s_train"), info), "s4s_train")
    run = comfy.run(prompt, timeout=900)
    assert run.error is None, run.error.get("exception_message", run.error)
    made = t.core().preset_file.load(base / "models" / "s4s_presets" / "my-sd15.safetensors")
    assert [table.calls for table in made.tables.values()] == [CALLS] and made.training["conditionings"] == 2
    assert made.short_hash in run.outputs(only(prompt, "PreviewAny"))["text"][0]
    assert all(run.outputs(key)["images"] for key, node in prompt.items() if node["class_type"] == "PreviewImage")
    (base / "models" / "s4s_presets" / "my-sd15.safetensors").unlink()


def test_one_preset_for_both_experts_is_trained_and_runs_in_two_samplers(comfy, info, base):
    prompt = on_two_experts("s4s_wan22_train", info, cfg=3.0)
    made = comfy.run(prompt, timeout=900)
    assert made.error is None, made.error.get("exception_message", made.error)
    file = base / "models" / "s4s_presets" / "my-wan22.safetensors"
    preset = t.core().preset_file.load(file)
    turn = preset.experts[0].tables["calls3"].calls
    assert preset.boundary == 0.875
    assert f"two models, which change at step {turn} of 3" in made.outputs(only(prompt, "PreviewAny"))["text"][0]
    run = comfy.run(on_two_experts("s4s_wan22", info, steps=3, cfg=3.0, turn=turn))
    assert run.error is None, run.error.get("exception_message", run.error)
    said = [text for _, text in run.texts if text.startswith("S4S my-wan22")]
    assert [name in text for name, text in zip(("high-noise", "low-noise"), said)] == [True, True], run.texts
    file.unlink()


def on_two_experts(name: str, info, turn: int = 0, **changed) -> dict:
    """The prompt of a file on the two tiny experts, without text encoder and autoencoder; its last latent is saved."""
    prompt, made = to_prompt(saved(name), info), {}
    for key, node in prompt.items():
        kind, inputs = node["class_type"], {name: value for name, value in node["inputs"].items() if name != "vae"}
        if kind == "UNETLoader":
            inputs |= {"unet_name": f"tiny_wan{'_low' * ('low' in inputs['unet_name'])}.safetensors"}
        if kind == "CLIPTextEncode":
            kind, inputs = "TestConditioning", {"width": 4096, "tokens": 8, "pooled": 0, "seed": len(inputs["text"])}
        if kind == "EmptyHunyuanLatentVideo":
            inputs |= {"width": 64, "height": 64, "length": 5}
        if kind == "S4STrainPreset":
            inputs |= {**SMALL[kind], "budget": "quick", "calls": "3"}
        if kind == "KSamplerAdvanced":
            first = inputs["start_at_step"] == 0
            inputs |= {"end_at_step": turn} if first else {"start_at_step": turn}
        inputs |= {key: value for key, value in changed.items() if key in inputs}
        if kind == "VAEDecode":
            kind, inputs = "SaveLatent", {"samples": inputs["samples"], "filename_prefix": "wan22"}
        if kind not in ("CLIPLoader", "VAELoader", "SaveAnimatedWEBP"):
            made[key] = {"class_type": kind, "inputs": inputs}
    return made


def test_presets_of_two_cfg_are_trained_and_joined(comfy, info, base):
    prompt = on_tiny_models(to_prompt(saved("s4s_several_cfg"), info), "s4s_several_cfg")
    for train in (node for node in prompt.values() if node["class_type"] == "S4STrainPreset"):
        train["inputs"] |= {"calls": "3", "budget": "quick", "teacher_calls": 6}
    run = comfy.run(prompt, timeout=900)
    assert run.error is None, run.error.get("exception_message", run.error)
    files = [base / "models" / "s4s_presets" / f"my-sd15 cfg {cfg}.safetensors" for cfg in ("4 to 6", "4", "6")]
    made, low, high = (t.core().preset_file.load(file) for file in files)
    assert made.training["cfg"] == [4.0, 6.0] and made.training["joined"] == [low.name, high.name]
    for alone, cfg in ((low, 4), (high, 6)):
        assert made.tables[f"calls3_cfg{cfg}"].same_as(alone.tables["calls3"])
    assert "for cfg 4 to 6" in run.outputs(only(prompt, "PreviewAny"))["text"][0]
    for file in files:
        file.unlink()


def test_a_preset_is_raced(comfy, info):
    prompt = on_tiny_models(to_prompt(saved("s4s_race"), info), "s4s_race")
    run = comfy.run(prompt, timeout=900)
    assert run.error is None, run.error.get("exception_message", run.error)
    report = run.outputs(only(prompt, "PreviewAny"))["text"][0]
    assert "shown-sd3" in report and "cfg 3," in report and f"calls{CALLS}" in report      # cfg: the preset's own
    assert run.outputs(only(prompt, "PreviewImage"))["images"]


@pytest.mark.parametrize("name", EXAMPLES)
def test_nothing_lies_on_top_of_anything_else(name):
    boxes = [(x, y - workflow_files.TITLE, x + w, y + h) for node in saved(name)["nodes"]
             for (x, y), (w, h) in [(node["pos"], node["size"])]]
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
    for group in saved(name)["groups"]:
        x, y, w, h = group["bounding"]
        for box in boxes:
            inside = x <= box[0] and y <= box[1] and box[2] <= x + w and box[3] <= y + h
            assert inside or box[2] <= x or box[0] >= x + w, (group["title"], box)
