"""The blueprints: as this host's nodes make them, listed by it, and run on a tiny model."""

import json

import blueprint_files
import pytest
import s4s_host
import s4s_tools as t
from blueprint_files import BLUEPRINTS, to_blueprint, unpacked

pytestmark = pytest.mark.server
SMALL = {"cfg": 2.0, "calls": "3"}


@pytest.fixture(scope="module")
def info(comfy, models):
    models("sd3")
    return comfy.get("/object_info")


def saved(name: str) -> dict:
    return json.loads((blueprint_files.FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def run(comfy, info, blueprint: str, output: str, **fields):
    """A run of a blueprint on the tiny model, with the output of this name shown; what is shown."""
    kind = t.KINDS["sd3"]
    words = {"width": kind.width, "tokens": 8, "pooled": kind.pooled}
    given = {"model": ("CheckpointLoaderSimple", {"ckpt_name": "tiny_sd3.safetensors"}),
             "positive": ("TestConditioning", {**words, "seed": 0}),
             "negative": ("TestConditioning", {**words, "seed": 1}),
             "latent": ("EmptySD3LatentImage", {"width": 64, "height": 64, "batch_size": 1}),
             "vae": ("VAELoader", {"vae_name": "taesd3"})}
    prompt = {key: {"class_type": class_type, "inputs": inputs} for key, (class_type, inputs) in given.items()}
    inside = unpacked(saved(blueprint), info, {key: [key, 0] for key in given} | fields)
    for node in inside.values():
        if node["class_type"] == "S4STrainPreset":
            node["inputs"] |= {"teacher_calls": 8, "race_seeds": 2}
        if node["class_type"] == "S4SRace":
            node["inputs"] |= {"budget": 2000, "teacher_calls": 8}
    key, slot = BLUEPRINTS[blueprint].outputs[output]
    number = str(list(BLUEPRINTS[blueprint].example.nodes).index(key) + 1)
    done = comfy.run(prompt | inside | {"shown": {"class_type": "PreviewAny", "inputs": {"source": [number, slot]}}},
                     timeout=600)
    assert done.error is None, done.error
    return done.outputs("shown")["text"][0]


@pytest.mark.parametrize("name", BLUEPRINTS)
def test_the_file_is_what_this_hosts_nodes_make_of_the_blueprint(info, name):
    assert saved(name) == to_blueprint(name, BLUEPRINTS[name], info)


def test_the_host_lists_every_blueprint(comfy):
    try:
        listed = comfy.get("/global_subgraphs")
    except OSError:
        pytest.skip("this host has no list of blueprints")
    ours = {entry["name"] for entry in listed.values() if s4s_host.PACK in entry["info"]["node_pack"]}
    assert ours == set(BLUEPRINTS)


def test_a_preset_is_trained_raced_and_sampled_with(comfy, info, base):
    file = base / "models" / "s4s_presets" / "by-blueprint.safetensors"
    assert "by-blueprint" in run(comfy, info, "S4S train", "report", budget="quick", name=file.stem, **SMALL)
    assert "S4S by-blueprint" in run(comfy, info, "S4S sampler", "text", steps=3, cfg=2.0)
    assert "by-blueprint" in run(comfy, info, "S4S race", "report", preset=file.stem, seeds=2, **SMALL)
    file.unlink()
