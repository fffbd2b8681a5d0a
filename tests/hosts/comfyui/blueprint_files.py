"""Blueprints: the nodes of a task as one node, which ComfyUI lists in its node library beside its own.

`python blueprint_files.py http://127.0.0.1:8188` asks a running ComfyUI for its nodes and writes subgraphs/ anew. The
tests write none: they compare.
"""

import json
import sys
import uuid
from dataclasses import dataclass
from urllib.request import urlopen

from workflow_examples import CALLS, CFG, Example
from workflow_files import (
    GAP,
    ROOT,
    TITLE,
    connect,
    declared,
    extra_values,
    inputs_of,
    is_widget,
    place,
    saved_node,
    written,
)

FOLDER = ROOT / "subgraphs"
OUTSIDE_IN, OUTSIDE_OUT = -10, -20              # the ids the browser gives the two ends of a subgraph
END = 140                                       # pixels: how wide they are


@dataclass(frozen=True)
class Blueprint:
    """nodes, groups: as an Example has them. inputs: name -> (key, its input). outputs: name -> (key, its output)."""

    description: str
    example: Example
    inputs: dict
    outputs: dict


def scene(key: str, *more: str, latent: str = "latent", vae: str = "") -> dict:
    """The sockets of a node that samples a model, and some of its fields; vae: another node that takes it."""
    named = {"model": (key, "model"), "positive": (key, "positive"), "negative": (key, "negative"),
             "latent": (key, latent), "vae": (vae or key, "vae")}
    return named | {name: (key, name) for name in more}


BLUEPRINTS = {
    "S4S sampler": Blueprint(
        "Samples and decodes an image with the preset that was trained for the model; the text says which one ran.",
        Example({"sampler": ("KSampler", {"seed": 1, "steps": CALLS, "cfg": CFG, "sampler_name": "s4s",
                                          "scheduler": "s4s", "denoise": 1.0}),
                 "decode": ("VAEDecode", {"samples": ("sampler", 0)}),
                 "info": ("S4SImageInfo", {"images": ("decode", 0)})},
                [("", [["sampler"], ["decode", "info"]])]),
        scene("sampler", "seed", "steps", "cfg", "denoise", latent="latent_image", vae="decode"),
        {"image": ("info", 0), "latent": ("sampler", 0), "text": ("info", 1)}),
    "S4S train": Blueprint(
        "Trains a preset for the model, races it and saves it: S4S Train Preset with the settings that most need.",
        Example({"train": ("S4STrainPreset", {"cfg": f"{CFG:g}", "calls": str(CALLS)})}, [("", [["train"]])]),
        scene("train", "cfg", "calls", "budget", "name"),
        {"preset": ("train", 0), "report": ("train", 1), "sheet": ("train", 3), "before_after": ("train", 4)}),
    "S4S race": Blueprint(
        "Races an installed preset against the classical samplers on the model, at equal network calls.",
        Example({"load": ("S4SLoadPreset", {"preset": "my-preset"}),
                 "race": ("S4SRace", {"preset": ("load", 0), "cfg": CFG})}, [("", [["load"], ["race"]])]),
        scene("race", "cfg", "calls", "seeds") | {"preset": ("load", "preset")},
        {"report": ("race", 1), "sheet": ("race", 2)}),
}


def to_blueprint(name: str, blueprint: Blueprint, info: dict) -> dict:
    """The file the browser would publish: one node, and the subgraph it stands for."""
    nodes = blueprint.example.nodes
    ids = {key: i + 1 for i, key in enumerate(nodes)}
    inner = {ids[key]: saved_node(ids[key], kind, inputs, info) for key, (kind, inputs) in nodes.items()}
    links = [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot", "type"), link))
             for link in connect(blueprint.example, ids, inner)]
    place(blueprint.example, {key: inner[ids[key]] for key in ids})
    entering = [enter(i, inner[ids[key]], target, links) for i, (key, target) in enumerate(blueprint.inputs.values())]
    leaving = [leave(i, inner[ids[key]], slot, links) for i, (key, slot) in enumerate(blueprint.outputs.values())]
    own = str(uuid.uuid5(uuid.NAMESPACE_URL, name))
    right = max(node["pos"][0] + node["size"][0] for node in inner.values())
    subgraph = {
        "id": own, "version": 1, "revision": 0, "config": {}, "name": name, "category": "S4S",
        "description": blueprint.description,
        "state": {"lastGroupId": 0, "lastNodeId": len(inner), "lastLinkId": len(links), "lastRerouteId": 0},
        "inputNode": end(OUTSIDE_IN, -END - 2 * GAP, entering),
        "outputNode": end(OUTSIDE_OUT, right + 2 * GAP, leaving),
        "inputs": slots(own, blueprint.inputs, entering), "outputs": slots(own, blueprint.outputs, leaving),
        "widgets": [], "nodes": list(inner.values()), "groups": [], "links": links, "extra": {}}
    return {"revision": 0, "last_node_id": len(inner) + 1, "last_link_id": 0,
            "nodes": [outer_node(own, name, blueprint, ids, inner, info)], "links": [], "version": 0.4,
            "definitions": {"subgraphs": [subgraph]}}


def enter(slot: int, node: dict, target: str, links: list) -> dict:
    """Link a node's input to the subgraph's input of this number; the link."""
    [(place_, entry)] = [(i, entry) for i, entry in enumerate(node["inputs"]) if entry["name"] == target]
    links.append({"id": len(links) + 1, "origin_id": OUTSIDE_IN, "origin_slot": slot, "target_id": node["id"],
                  "target_slot": place_, "type": entry["type"]})
    entry["link"] = len(links)
    return links[-1]


def leave(slot: int, node: dict, output: int, links: list) -> dict:
    """Link a node's output to the subgraph's output of this number; the link."""
    source = node["outputs"][output]
    links.append({"id": len(links) + 1, "origin_id": node["id"], "origin_slot": output, "target_id": OUTSIDE_OUT,
                  "target_slot": slot, "type": source["type"]})
    source["links"].append(len(links))
    return links[-1]


def end(number: int, x: int, links: list) -> dict:
    return {"id": number, "bounding": [x, 0, END, 20 * len(links) + 2 * TITLE]}


def slots(own: str, names: dict, links: list) -> list:
    return [{"id": str(uuid.uuid5(uuid.UUID(own), f"{name} {link['id']}")), "name": name, "type": link["type"],
             "linkIds": [link["id"]]} for name, link in zip(names, links)]


def outer_node(own: str, name: str, blueprint: Blueprint, ids: dict, inner: dict, info: dict) -> dict:
    """The node that stands for the subgraph; the fields it shows keep the values they have inside."""
    entries, shown = [], []
    for outer, (key, target) in blueprint.inputs.items():
        spec = dict(declared(info, blueprint.example.nodes[key][0]))[target]
        [entry] = [entry for entry in inner[ids[key]]["inputs"] if entry["name"] == target]
        entries.append({"name": outer, "type": entry["type"], "link": None})
        if is_widget(spec):
            entries[-1]["widget"] = {"name": outer}
            shown += [[str(ids[key]), target]]
            shown += [[str(ids[key]), "control_after_generate"]] if extra_values(target, spec) else []
    outputs = [{"name": outer, "type": inner[ids[key]]["outputs"][slot]["type"], "links": []}
               for outer, (key, slot) in blueprint.outputs.items()]
    return {"id": len(inner) + 1, "type": own, "pos": [0, 0], "size": [360, 20 * len(entries) + 26 * len(shown) + 80],
            "flags": {}, "order": 0, "mode": 0, "inputs": entries, "outputs": outputs,
            "properties": {"proxyWidgets": shown}, "widgets_values": [], "title": name}


def unpacked(file: dict, info: dict, given: dict) -> dict:
    """The prompt the browser queues for a blueprint whose inputs are given: name -> a value, or [node, output]."""
    [subgraph] = file["definitions"]["subgraphs"]
    names = [entry["name"] for entry in subgraph["inputs"]]
    origins = {link["id"]: given.get(names[link["origin_slot"]]) if link["origin_id"] == OUTSIDE_IN
               else [str(link["origin_id"]), link["origin_slot"]] for link in subgraph["links"]}
    prompt = {}
    for node in subgraph["nodes"]:
        inside = {**node, "inputs": [entry for entry in node["inputs"] if origins.get(entry["link"]) is not None]}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs_of(inside, info, origins)}
    return prompt


def main(url: str) -> None:
    """Write every blueprint anew from the nodes of a running ComfyUI."""
    info = json.load(urlopen(f"{url}/object_info"))
    FOLDER.mkdir(exist_ok=True)
    for name, blueprint in BLUEPRINTS.items():
        (FOLDER / f"{name}.json").write_text(written(to_blueprint(name, blueprint, info)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
