"""A real server over HTTP: what the browser is shown, and whole workflows with our nodes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import s4s_client
import s4s_tools as t
from PIL import Image

pytestmark = pytest.mark.server


@pytest.fixture(scope="module", autouse=True)
def presets(base, models):
    """Presets for the tiny models, there before the server is asked."""
    made = [t.preset_for(models(name), calls=(4, 6), name=f"served-{name}", family=family)
            for name, family in (("sd15", "sd15"), ("sd3", "sd3"))]
    paths = [t.install(base, preset) for preset in made]
    yield {preset.name: preset for preset in made}
    for path in paths:
        path.unlink(missing_ok=True)


def graph(name: str, size: int = 64) -> dict:
    """The loader, conditioning and an empty latent for a tiny model."""
    kind = t.KINDS[name]
    words = {"width": kind.width, "tokens": 8, "pooled": kind.pooled}
    latent = "EmptyLatentImage" if name == "sd15" else "EmptySD3LatentImage"
    return {"model": node("CheckpointLoaderSimple", ckpt_name=f"tiny_{name}.safetensors"),
            "positive": node("TestConditioning", **words, seed=0),
            "negative": node("TestConditioning", **words, seed=1),
            "latent": node(latent, width=size, height=size, batch_size=1)}


def node(name_: str, **inputs) -> dict:
    return {"class_type": name_, "inputs": inputs}


def ksampler(name: str, sampler="s4s", scheduler="s4s", steps=4, denoise=1.0, seed=1, size=64) -> dict:
    return graph(name, size) | {"samples": node(
        "KSampler", model=["model", 0], seed=seed, steps=steps, cfg=3.0, sampler_name=sampler, scheduler=scheduler,
        positive=["positive", 0], negative=["negative", 0], latent_image=["latent", 0], denoise=denoise)}


def saved(prompt: dict, name: str, prefix="test") -> dict:
    vae = {"sd15": "taesd", "sd3": "taesd3"}[name]
    return prompt | {"vae": node("VAELoader", vae_name=vae),
                     "image": node("VAEDecode", samples=["samples", 0], vae=["vae", 0]),
                     "save": node("SaveImage", images=["image", 0], filename_prefix=prefix)}


def custom(name: str, preset: str, calls=4, denoise=1.0, advanced=True, **more) -> dict:
    """SamplerCustom(Advanced) on the outputs of S4S Preset."""
    prompt = graph(name) | {"preset": node("S4SPreset", preset=preset, calls=calls, denoise=denoise, strict=False,
                                           model=["model", 0], **more)}
    common = {"sampler": ["preset", 1], "sigmas": ["preset", 2], "latent_image": ["latent", 0]}
    if advanced:
        return prompt | {
            "noise": node("RandomNoise", noise_seed=1),
            "guider": node("CFGGuider", model=["model", 0], positive=["positive", 0], negative=["negative", 0],
                           cfg=3.0),
            "samples": node("SamplerCustomAdvanced", noise=["noise", 0], guider=["guider", 0], **common)}
    return prompt | {"samples": node("SamplerCustom", model=["model", 0], add_noise=True, noise_seed=1, cfg=3.0,
                                     positive=["positive", 0], negative=["negative", 0], **common)}


def done(run: s4s_client.Run) -> s4s_client.Run:
    assert run.error is None, run.error
    return run


def png(comfy, run, node_id="save") -> Image.Image:
    found = run.outputs(node_id)["images"][0]
    return Image.open(comfy.base / found["type"] / found["subfolder"] / found["filename"])


def test_the_clone_is_imported_and_nothing_is_said_against_it(comfy):
    log = comfy.log()
    assert "S4S-clone" in log
    for bad in ("IMPORT FAILED", "Cannot import", "Traceback", "comfy_entrypoint"):
        assert bad not in "\n".join(line for line in log.splitlines() if "S4S" in line or "s4s" in line), log[-2000:]
    assert "(IMPORT FAILED): " + str(comfy.base) not in log


def test_the_browser_is_shown_both_rows(comfy):
    nodes = comfy.get("/object_info")
    def options(kind, name):
        spec = nodes[kind]["input"]["required"][name]
        return spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    for kind, name in (("KSampler", "sampler_name"), ("KSamplerAdvanced", "sampler_name"),
                       ("KSamplerSelect", "sampler_name"), ("KSampler", "scheduler"), ("KSamplerAdvanced", "scheduler"),
                       ("BasicScheduler", "scheduler")):
        assert options(kind, name).count("s4s") == 1, (kind, name)
    for kind, spec in nodes.items():                # every list of samplers has the row, not only these
        for inputs in spec["input"].values():
            for name, (values, *_) in ((n, v) for n, v in inputs.items() if isinstance(v, list) and v):
                if isinstance(values, list) and "euler" in values and "dpmpp_2m" in values:
                    assert "s4s" in values, (kind, name)


def test_every_input_and_output_has_a_tooltip(comfy):
    ours = {name: spec for name, spec in comfy.get("/object_info").items()
            if name.startswith("S4S")}
    assert len(ours) >= 9
    for name, spec in ours.items():
        assert spec["display_name"].startswith("S4S ") and spec["description"] and spec["category"].startswith("S4S")
        for section in ("required", "optional"):
            for key, (_, options) in spec["input"].get(section, {}).items():
                assert len(options.get("tooltip", "")) > 10, (name, key)
        assert len(spec["output_tooltips"]) == len(spec["output"])
        assert all(len(tip or "") > 5 for tip in spec["output_tooltips"]), name


def test_the_folder_lists_what_is_installed(comfy, presets):
    listed = comfy.get("/models/s4s_presets")
    assert "served-sd3.safetensors" in listed and any(name.startswith("digits-eps") for name in listed)
    spec = comfy.get("/object_info/S4SPreset")["S4SPreset"]["input"]["required"]["preset"]
    options = spec[0] if isinstance(spec[0], list) else spec[1]["options"]
    assert options[0] == "auto" and {"served-sd15", "served-sd3", "gits-sd15"} <= set(options)
    assert not [name for name in options if name.startswith("digits-")]         # no model of a host is like theirs


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_a_plain_ksampler_writes_its_preset_into_the_image(comfy, presets, name):
    run = done(comfy.run(saved(ksampler(name), name), workflow={"nodes": []}))
    info = png(comfy, run).info
    [note] = json.loads(info["s4s"])
    preset = presets[f"served-{name}"]
    assert note["preset"] == preset.name and note["hash"] == preset.long_hash and note["table"] == "calls4"
    assert note["calls"] == 4 and note["fallback"] is False and note["node"] == "samples" and note["format"] == 1
    assert json.loads(info["workflow"]) == {"nodes": [], "extra": {"s4s": [note]}} and "KSampler" in info["prompt"]
    assert run.previews >= 1                                        # live previews
    assert ("samples", note["text"]) in run.texts                   # and the words on the node's face


def test_a_fallback_is_written_too(comfy):
    run = done(comfy.run(saved(ksampler("sd3", scheduler="normal", steps=5, seed=2), "sd3")))
    [note] = json.loads(png(comfy, run).info["s4s"])
    assert note["fallback"] is True and note["text"].startswith("S4S fallback") and note["calls"] == 5
    assert "S4S fallback" in comfy.log()


@pytest.mark.parametrize("asked, words", [
    ({}, "S4S schedule: served-sd3 ("),
    ({"cfg": 7.0}, "S4S schedule, fallback: served-sd3 was learned at cfg 3, you use 7. It uses the model's own"),
    ({"steps": 5}, "S4S schedule, fallback: served-sd3 has 4 and 6 steps, you asked for 5. It uses the model's own")])
def test_levels_for_another_sampler_are_told_and_written(comfy, presets, asked, words):
    prompt = saved(ksampler("sd3", "euler", seed=61), "sd3")
    prompt["samples"]["inputs"] |= asked
    run = done(comfy.run(prompt))
    [note] = json.loads(png(comfy, run).info["s4s"])
    assert note["text"].startswith(words) and note["text"] in comfy.log() and note["text"] in dict(run.texts)["samples"]
    assert (note["kind"], note["sampler"], note["fallback"]) == ("schedule", "euler", bool(asked))
    assert len(note["levels"]) == prompt["samples"]["inputs"]["steps"] + 1 and note["levels"][-1] == 0
    assert asked or note["hash"] == presets["served-sd3"].long_hash
    assert note["numbers"]["sigmas"] == note["levels"]


def basic(name: str, sampler: str, **more) -> dict:
    """BasicScheduler's levels for SamplerCustom."""
    prompt = custom(name, "auto", advanced=False) | {
        "levels": node("BasicScheduler", model=["model", 0], scheduler="s4s", steps=4, denoise=1.0),
        "select": node("KSamplerSelect", sampler_name=sampler)}
    del prompt["preset"]
    prompt["samples"]["inputs"] |= {"sampler": ["select", 0], "sigmas": ["levels", 0], "noise_seed": 62, **more}
    return saved(prompt, name)


def test_levels_of_basic_scheduler_are_told_for_another_sampler_alone(comfy, presets):
    [note] = json.loads(png(comfy, done(comfy.run(basic("sd3", "euler")))).info["s4s"])
    assert (note["node"], note["sampler"], note["hash"]) == ("levels", "euler", presets["served-sd3"].long_hash)
    assert note["text"].startswith("S4S schedule: served-sd3 (") and "not known" not in note["text"]
    [note] = json.loads(png(comfy, done(comfy.run(basic("sd3", "euler", cfg=7.0)))).info["s4s"])
    assert note["fallback"] and "you use 7" in note["text"]
    [note] = json.loads(png(comfy, done(comfy.run(basic("sd3", "s4s")))).info["s4s"])
    assert note["node"] == "samples" and note["kind"] == "exact"


def test_a_cfg_that_basic_scheduler_cannot_know_is_said(comfy):
    """Behind it are two samplers, at cfg 3 and 7."""
    prompt = basic("sd3", "euler")
    prompt["other"] = node("SamplerCustom", **prompt["samples"]["inputs"] | {"cfg": 7.0})
    prompt |= {"seen": node("VAEDecode", samples=["other", 0], vae=["vae", 0]),
               "kept": node("SaveImage", images=["seen", 0], filename_prefix="other")}
    [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
    assert "cfg is not known here, learned at 3" in note["text"] and note["text"] in comfy.log()


def test_levels_of_the_nodes_are_told_for_another_sampler(comfy, presets):
    """S4S Preset's and S4S Sigmas'; with their own sampler the sampler alone tells."""
    prompt = saved(custom("sd3", "served-sd3") | {"select": node("KSamplerSelect", sampler_name="euler")}, "sd3")
    prompt["samples"]["inputs"]["sampler"] = ["select", 0]
    [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
    assert (note["node"], note["kind"], note["hash"]) == ("preset", "schedule", presets["served-sd3"].long_hash)
    prompt["loaded"] = node("S4SLoadPreset", preset="served-sd3", path="")
    prompt["two"] = node("S4SSigmas", preset=["loaded", 0], calls=4, denoise=1.0, model=["model", 0])
    prompt["samples"]["inputs"]["sigmas"] = ["two", 0]
    del prompt["preset"]
    [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
    assert (note["node"], note["sampler"]) == ("two", "euler")


def test_a_result_the_host_reuses_has_the_entry_of_the_run_that_made_it(comfy):
    prompt = ksampler("sd3", seed=21)
    first, again = (done(comfy.run(saved(prompt, "sd3", prefix))) for prefix in ("first", "again"))
    notes = [json.loads(png(comfy, run).info["s4s"]) for run in (first, again)]
    assert ran(again, "samples") == 0 and len(notes[0]) == 1 and notes[0] == notes[1]
    other = png(comfy, done(comfy.run(saved(ksampler("sd3", seed=22), "sd3"))))
    assert len(json.loads(other.info["s4s"])) == 1


def test_a_prompt_without_s4s_is_left_alone(comfy):
    run = done(comfy.run(saved(ksampler("sd3", "euler", "normal", seed=3), "sd3")))
    assert "s4s" not in png(comfy, run).info


def test_image_info_tells_the_same_as_the_metadata(comfy):
    prompt = saved(ksampler("sd3", seed=4), "sd3") | {"info": node("S4SImageInfo", images=["image", 0])}
    prompt["save"]["inputs"]["images"] = ["info", 0]
    prompt["shown"] = node("PreviewAny", source=["info", 1])
    run = done(comfy.run(prompt))
    [note] = json.loads(png(comfy, run).info["s4s"])
    assert run.outputs("info")["text"] == [note["text"]]


@pytest.mark.parametrize("advanced", [True, False])
@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_a_custom_graph_on_the_preset_nodes_outputs(comfy, presets, name, advanced):
    calls = 4 if advanced else 6                # another number, or the node would come from the cache, without words
    run = done(comfy.run(saved(custom(name, "auto", calls=calls, advanced=advanced), name)))
    [note] = json.loads(png(comfy, run).info["s4s"])
    assert note["preset"] == f"served-{name}" and note["kind"] == "exact"
    shown = run.outputs("preset")
    assert note["preset"] in shown["text"][0] and "cfg: 3" in shown["text"][0] and len(shown["images"]) == 1
    page = png(comfy, run, "preset")
    assert page.width == 1024


def test_the_nodes_one_by_one_give_what_the_preset_node_gives(comfy):
    whole = done(comfy.run(custom("sd3", "served-sd3") | {"keep": node(
        "SaveLatent", samples=["samples", 0], filename_prefix="whole")}))
    prompt = custom("sd3", "served-sd3") | {
        "loaded": node("S4SLoadPreset", preset="served-sd3", path=""),
        "one": node("S4SSampler", preset=["loaded", 0], unmatched="error"),
        "two": node("S4SSigmas", preset=["loaded", 0], calls=4, denoise=1.0, model=["model", 0]),
        "keep": node("SaveLatent", samples=["samples", 0], filename_prefix="parts")}
    prompt["samples"]["inputs"] |= {"sampler": ["one", 0], "sigmas": ["two", 0]}
    del prompt["preset"]
    parts = done(comfy.run(prompt))
    assert latent(comfy, whole).equal(latent(comfy, parts))


def latent(comfy, run, node_id="keep"):
    from safetensors.torch import load_file
    found = run.outputs(node_id)["latents"][0]
    return load_file(comfy.base / "output" / found["subfolder"] / found["filename"])["latent_tensor"]


def test_dropdown_rows_and_nodes_give_the_same_latent(comfy):
    rows = done(comfy.run(ksampler("sd3") | {"keep": node(
        "SaveLatent", samples=["samples", 0], filename_prefix="rows")}))
    nodes = done(comfy.run(custom("sd3", "auto", advanced=False) | {"keep": node(
        "SaveLatent", samples=["samples", 0], filename_prefix="nodes")}))
    assert latent(comfy, rows).equal(latent(comfy, nodes))


def test_an_edited_file_runs_again_and_an_untouched_one_does_not(comfy, base, models):
    prompt = {"loaded": node("S4SLoadPreset", preset="edited", path=""),
              "shown": node("S4SShowPreset", preset=["loaded", 0])}
    path = t.install(base, t.preset_for(models("sd3"), calls=(4,), name="edited"))
    assert "edited" in json.dumps(comfy.get("/object_info/S4SLoadPreset"))          # what R asks for
    first = done(comfy.run(prompt))
    assert "calls4" in first.outputs("shown")["text"][0] and len(first.outputs("shown")["images"]) == 1
    again = done(comfy.run(prompt))
    assert ran(again, "shown") == 0
    t.install(base, t.preset_for(models("sd3"), calls=(4, 6), name="edited"))
    edited = done(comfy.run(prompt))
    assert ran(edited, "shown") == 1 and len(edited.outputs("shown")["images"]) == 2
    path.unlink()
    refused = comfy.run(prompt)
    assert "no preset 'edited' is installed" in json.dumps(refused.error)


def ran(run, node_id: str) -> int:
    """How often a node was executed, rather than taken from the cache."""
    return sum(e["type"] == "executing" and e["data"].get("node") == node_id for e in run.events)


def test_import_save_and_load_again(comfy, base):
    prompt = {"made": node("S4SImport", source="ays-sd15", path="", kind="auto"),
              "kept": node("S4SSavePreset", preset=["made", 0], name="my ays", overwrite=False)}
    run = done(comfy.run(prompt))
    path = base / "models" / "s4s_presets" / "my ays.safetensors"
    assert str(path) in run.outputs("kept")["text"][0] and path.is_file()
    assert "licence" in run.outputs("made")["text"][0] and "race them" in run.outputs("made")["text"][0]
    used = done(comfy.run(saved(custom("sd15", "my ays", calls=10), "sd15")))
    assert json.loads(png(comfy, used).info["s4s"])[0]["preset"] == "my ays"
    prompt["made"]["inputs"]["source"] = "ays-sdxl"
    refused = comfy.run(prompt)
    assert "already exists" in json.dumps(refused.error)
    path.unlink()


@pytest.mark.parametrize("prompt, words", [
    (custom("sd3", "nowhere"), "no preset 'nowhere' is installed"),
    (custom("sd3", "served-sd15"), "does not suit this model"),
    ({"x": node("S4SLoadPreset", preset="served-sd3", path="/no/such/file"),
      "y": node("S4SShowPreset", preset=["x", 0])}, "there is no file"),
    ({"x": node("S4SImport", source="from a file", path="/no/such/file", kind="auto"),
      "y": node("S4SShowPreset", preset=["x", 0])}, "Version 0.4 was the last that imported"),
    (custom("sd3", "served-sd3", calls=0), "smaller than min"),
])
def test_what_is_wrong_is_said_in_words(comfy, prompt, words):
    if "samples" in prompt:
        prompt = saved(prompt, "sd3")
    run = comfy.run(prompt)
    assert words in json.dumps(run.error), run.error


def test_strict_stops_with_what_to_do(comfy):
    prompt = saved(custom("sd3", "served-sd3", calls=5), "sd3")
    prompt["preset"]["inputs"]["strict"] = True
    run = comfy.run(prompt)
    assert run.error["event"] == "execution_error" and "strict" in run.error["exception_message"]


def test_the_scheduler_function_gives_the_presets_levels(comfy):
    """Through a stand-in for the packs that take one: KSampler-like, it calls func(model, sampler name, steps)."""
    prompt = graph("sd3") | {
        "loaded": node("S4SLoadPreset", preset="served-sd3", path=""),
        "func": node("S4SSchedulerFunc", preset=["loaded", 0]),
        "levels": node("TestSchedulerFunc", model=["model", 0], scheduler_func_opt=["func", 0], steps=6),
        "shown": node("PreviewAny", source=["levels", 0])}
    run = done(comfy.run(prompt))
    assert run.outputs("shown")["text"][0].startswith("1.0,") and run.outputs("shown")["text"][0].count(",") == 6


def test_interrupting_stops_within_one_call(comfy):
    async def stop(post, event):
        if event["type"] == "progress" and event["data"]["value"] == 2:
            await post("/interrupt")
    run = comfy.run(saved(ksampler("sd15", steps=60, seed=9, size=256), "sd15"), on_event=stop)
    assert run.error and run.error["event"] == "execution_interrupted"
    furthest = max(e["data"]["value"] for e in run.events if e["type"] == "progress")
    assert furthest <= 4            # the interrupt itself travels over HTTP while a call is running


def test_a_preset_that_came_or_went_runs_the_rows_again(comfy, base, presets):
    """The host's cache knows nothing of presets; the same prompt in between is reused."""
    path = base / "models" / "s4s_presets" / "served-sd3.safetensors"
    prompt, aside = saved(ksampler("sd3", seed=71), "sd3"), base / "served-sd3.aside"
    path.rename(aside)
    try:
        [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
        assert note["fallback"] and note["reason"] == "no preset was trained for this model"
        before = len(done(comfy.run(prompt)).texts)
    finally:
        aside.rename(path)
    run = done(comfy.run(saved(ksampler("sd3", seed=71), "sd3", prefix="again")))
    [note] = json.loads(png(comfy, run).info["s4s"])
    assert before == 0 and note["preset"] == "served-sd3" and not note["fallback"] and "reason" not in note


def test_use_preset_chooses_for_a_plain_ksampler(comfy, presets):
    """Its name, on another model's weights too where the kinds agree; the scheduler's levels are its own."""
    prompt = saved(ksampler("sd3", seed=72), "sd3")
    [sampler] = [each for each in prompt.values() if each["class_type"] == "KSampler"]
    prompt["use"] = node("S4SUsePreset", model=sampler["inputs"]["model"], preset="transfer-flow", strict=False)
    sampler["inputs"]["model"] = ["use", 0]
    [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
    assert (note["preset"], note["table"], note["kind"]) == ("transfer-flow", "calls4", "exact")
    assert "not learned on this model" in note["text"] and not note["fallback"]
    prompt["use"]["inputs"]["strict"] = True
    assert "strict is on" in comfy.run(prompt).error["exception_message"]


# --- the same image again -------------------------------------------------------------------------------------------

def image_of(comfy, run) -> Path:
    [image] = run.outputs("save")["images"]
    return comfy.base / "output" / image["subfolder"] / image["filename"]


def from_image(comfy, prompt: dict, path: Path) -> dict:
    """The prompt with the preset of an image, which was dropped on the node, for its model."""
    shutil.copy(path, comfy.base / "input" / path.name)
    [sampler] = [each for each in prompt.values() if each["class_type"] == "KSampler"]
    again = {key: {**each, "inputs": dict(each["inputs"])} for key, each in prompt.items()}
    for key, each in prompt.items():
        if each is sampler:
            again[key]["inputs"]["model"] = ["use", 0]
    return again | {"old": node("S4SFromImage", image=path.name),
                    "use": node("S4SUsePreset", model=sampler["inputs"]["model"], preset="gone", strict=False,
                                other=["old", 0])}


@pytest.mark.parametrize("name, options", [
    ("sd3", {}), ("sd15", {}), ("sd3", {"scheduler": "normal"}), ("sd15", {"scheduler": "karras", "steps": 5}),
    ("sd3", {"denoise": 0.5}), ("sd15", {"denoise": 0.6, "steps": 3}), ("sd3", {"steps": 7}),
    ("sd3", {"sampler": "euler"}), ("sd3", {"sampler": "euler", "denoise": 0.5})])
def test_an_image_is_made_again_after_its_preset_is_gone(comfy, base, presets, name, options):
    """From the table in its metadata, be it exact, moved, a window's or a fallback's: the pixels are the same."""
    prompt = saved(ksampler(name, seed=81, **options), name, "before")
    path = base / "models" / "s4s_presets" / f"served-{name}.safetensors"
    before = image_of(comfy, done(comfy.run(prompt, workflow={"nodes": []})))
    aside = base / "served.aside"
    path.rename(aside)
    try:
        without = done(comfy.run(prompt, workflow=json.loads(Image.open(before).info["workflow"])))
        again = done(comfy.run(from_image(comfy, prompt, before)))
    finally:
        aside.rename(path)
    [old], [new] = (json.loads(Image.open(each).info["s4s"]) for each in (before, image_of(comfy, again)))
    assert np.array_equal(Image.open(before), Image.open(image_of(comfy, again))), new["text"]
    parts = ("sigmas", "query", "carry", "weights")
    assert [new["numbers"].get(part) for part in parts] == [old["numbers"].get(part) for part in parts]
    [plain] = json.loads(Image.open(image_of(comfy, without)).info["s4s"])
    lost = "preset" in old and old["preset"] == f"served-{name}"
    assert lost == ("which is gone" in plain.get("changed", ""))
    assert any(plain["changed"] in text for _, text in without.texts) if lost else "changed" not in plain


def test_a_changed_preset_of_the_same_name_is_said_once_the_image_is_dropped_in(comfy, base, models, presets):
    prompt, path = saved(ksampler("sd3", seed=82), "sd3"), base / "models" / "s4s_presets" / "served-sd3.safetensors"
    before = png(comfy, done(comfy.run(prompt, workflow={"nodes": []})))
    workflow, kept = json.loads(before.info["workflow"]), path.read_bytes()
    assert "changed" not in json.loads(png(comfy, done(comfy.run(saved(ksampler("sd3", seed=82), "sd3", "same"),
                                                                 workflow=workflow))).info["s4s"])[0]
    try:
        t.install(base, replace(t.preset_at(models("sd3"), 3.2, name="served-sd3"), training={"cfg": 3.0}))
        run = done(comfy.run(prompt, workflow=json.loads(before.info["workflow"])))
    finally:
        path.write_bytes(kept)
    [note] = json.loads(png(comfy, run).info["s4s"])
    words = f"made with served-sd3 ({presets['served-sd3'].short_hash}), which has changed since"
    assert words in note["changed"] and words in comfy.log() and words in dict(run.texts)["samples"]


@pytest.mark.parametrize("before, words", [
    ("served-sd3", "choose served-sd3 in S4S Use Preset"), (None, "S4S Preset from Image, connected to S4S Use")])
def test_another_selection_than_recorded_is_said_once_the_image_is_dropped_in(comfy, base, models, presets, before,
                                                                              words):
    """A newer preset of the same model, or the first one where the image was a fallback's; with how to get the old."""
    def run(prefix, workflow, steps=4):
        return done(comfy.run(saved(ksampler("sd3", seed=86, steps=steps), "sd3", prefix), workflow=workflow))
    path, aside = base / "models" / "s4s_presets" / "served-sd3.safetensors", base / "served.aside"
    if before is None:
        path.rename(aside)
    try:
        made = png(comfy, run("before", {"nodes": []}))
        workflow = json.loads(made.info["workflow"])
        again = json.loads(png(comfy, run("again", json.loads(json.dumps(workflow)))).info["s4s"])[0]
        newer = replace(t.preset_at(models("sd3"), 3.2, name="newer"), training={"cfg": 3.0, "created": "9"})
        newer = t.install(base, newer)
        replayed = run("replayed", json.loads(json.dumps(workflow)))
        longer = json.loads(png(comfy, run("longer", json.loads(json.dumps(workflow)), 5)).info["s4s"])[0]
    finally:
        newer.unlink()
        if before is None:
            aside.rename(path)
    [old], [note] = (json.loads(each.info["s4s"]) for each in (made, png(comfy, replayed)))
    assert old.get("preset") == before and "changed" not in again and note["preset"] == "newer"
    assert "and now newer (" in note["changed"] and words in note["changed"] and note["changed"] in comfy.log()
    assert note["changed"] in dict(replayed.texts)["samples"] and "changed" not in longer


def test_lost_tables_of_a_dropped_image_are_named_and_saved_again_once_asked(comfy, base, presets):
    """As the browser asks; the preset that comes back runs by itself, and makes the image again."""
    prompt, path = saved(ksampler("sd3", seed=87), "sd3"), base / "models" / "s4s_presets" / "served-sd3.safetensors"
    before, aside = image_of(comfy, done(comfy.run(prompt, workflow={"nodes": []}))), base / "served.aside"
    notes = json.loads(Image.open(before).info["workflow"])["extra"]["s4s"]

    def asked(save=False, notes=notes):
        return comfy.ask("/s4s/recorded", {"notes": notes, "save": save})
    assert asked() == {"text": "", "names": []} == asked(notes=[3, None, {"numbers": {"s4s_table": 1}}])
    path.rename(aside)
    try:
        lost = asked()
        assert lost["text"].startswith("served-sd3 (") and lost["text"].endswith(") is gone") and not path.exists()
        assert asked(save=True)["names"] == ["served-sd3"] and asked()["text"] == ""
        again = image_of(comfy, done(comfy.run(saved(ksampler("sd3", seed=87), "sd3", "back"))))
        note, = json.loads(Image.open(again).info["s4s"])
        hostile = [{"numbers": {**notes[0]["numbers"], "preset": "0" * 16, "name": name}}
                   for name in ("../away", "con", "x" * 300, "")]
        assert all(asked(save=True, notes=[each]).get("names", []) == [] for each in hostile)
    finally:
        aside.rename(path)
    assert np.array_equal(Image.open(before), Image.open(again)) and note["preset"] == "served-sd3"
    assert not list(base.glob("**/away*"))


def test_a_prompt_that_waits_sees_the_preset_that_came_meanwhile(comfy, base, presets):
    """Queued behind what saves the preset, it had the mark of before; its result of before is not taken."""
    path = base / "models" / "s4s_presets" / "served-sd3.safetensors"
    prompt, aside = saved(ksampler("sd3", seed=83), "sd3"), base / "served.aside"
    path.rename(aside)
    try:
        [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
        assert note["fallback"]
        save = {"load": node("S4SLoadPreset", preset="transfer-flow", path=str(aside)),
                "kept": node("S4SSavePreset", preset=["load", 0], name="", overwrite=False)}
        for before in (saved(ksampler("sd15", steps=40, seed=84, size=256), "sd15"), save):
            comfy.post("/prompt", {"prompt": before})
        [note] = json.loads(png(comfy, done(comfy.run(prompt))).info["s4s"])
    finally:
        aside.rename(path)
    assert note["preset"] == "served-sd3"


@pytest.mark.parametrize("numbers", [None, [], {"s4s_table": 1}, {"s4s_table": 1, "name": "x" * 9999}])
def test_a_strangers_workflow_extra_changes_nothing(comfy, numbers):
    extra = {"s4s": [{"node": "samples", "numbers": numbers}, 3, None]}
    run = done(comfy.run(saved(ksampler("sd3", seed=85), "sd3"), workflow={"nodes": [], "extra": extra}))
    assert "changed" not in json.loads(png(comfy, run).info["s4s"])[0]
