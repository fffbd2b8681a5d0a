"""Workflows as the browser saves them: written from workflow_examples, drawn small, and read back as prompts.

`python workflow_files.py http://127.0.0.1:8188` asks a running ComfyUI for its nodes and writes example_workflows/
anew (the pictures only where there are none). The tests write none: they compare.
"""

import json
import sys
import uuid
from pathlib import Path
from urllib.request import urlopen

from workflow_examples import EXAMPLES, Example

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "example_workflows"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTES = {"MarkdownNote": [("text", ["STRING", {"multiline": True}])]}      # the browser's own: no server knows them
ENDS = ("SaveImage", "SaveAnimatedWEBP", "PreviewImage", "PreviewAny")          # newer hosts gave these outputs
WAN = "https://huggingface.co/Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/"
WAN22 = "https://huggingface.co/Comfy-Org/Wan_2.2_ComfyUI_Repackaged/resolve/main/split_files/diffusion_models/"
SOURCES = {     # where the browser may fetch a model that is not there
    "v1-5-pruned-emaonly-fp16.safetensors":
        ("checkpoints", "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"),
    "sd_xl_base_1.0.safetensors":
        ("checkpoints", "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/"),
    "sd3.5_large_fp8_scaled.safetensors":
        ("checkpoints", "https://huggingface.co/Comfy-Org/stable-diffusion-3.5-fp8/resolve/main/"),
    "wan2.1_t2v_1.3B_fp16.safetensors": ("diffusion_models", f"{WAN}diffusion_models/"),
    "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors": ("diffusion_models", WAN22),
    "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors": ("diffusion_models", WAN22),
    "umt5_xxl_fp8_e4m3fn_scaled.safetensors": ("text_encoders", f"{WAN}text_encoders/"),
    "wan_2.1_vae.safetensors": ("vae", f"{WAN}vae/"),
    "flux1-dev.safetensors": ("diffusion_models", "https://huggingface.co/Comfy-Org/flux1-dev/resolve/main/"),
    "clip_l.safetensors":
        ("text_encoders", "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/"),
    "t5xxl_fp16.safetensors":
        ("text_encoders", "https://huggingface.co/comfyanonymous/flux_text_encoders/resolve/main/"),
    "ae.safetensors":
        ("vae", "https://huggingface.co/Comfy-Org/Lumina_Image_2.0_Repackaged/resolve/main/split_files/vae/"),
}
ROOMY = {       # width and height where the content wants more than the sockets and widgets take
    "MarkdownNote": (360, 500), "CLIPTextEncode": (400, 170), "SaveImage": (430, 500), "PreviewImage": (430, 470),
    "SaveAnimatedWEBP": (430, 500), "PreviewAny": (430, 200), "LoadImage": (330, 400), "KSampler": (340, 560),
    "S4SPreset": (440, 640),
    "S4STrainPreset": (470, 1120), "S4SRace": (470, 1040), "KSamplerAdvanced": (340, 640)}
TITLE, GAP, FRAME = 30, 40, 50          # pixels: a node's title bar, between nodes, a group's head


def declared(info: dict, kind: str) -> list[tuple[str, list]]:
    """(name, specification) of a node's inputs, as the browser orders them."""
    if kind in NOTES:
        return NOTES[kind]
    return [item for section in ("required", "optional") for item in info[kind]["input"].get(section, {}).items()]


def is_widget(spec: list) -> bool:
    """Whether an input is a field on the node rather than a socket."""
    kind = options(spec).get("widgetType", spec[0])             # of an input that also takes links of other types
    return isinstance(kind, list) or kind in WIDGETS and not options(spec).get("forceInput")


def options(spec: list) -> dict:
    return spec[1] if len(spec) > 1 else {}


def extra_values(name: str, spec: list) -> list:
    """What the browser saves after a widget's value: of a seed what happens to it, of an upload its folder."""
    if options(spec).get("image_upload"):
        return ["image"]
    return ["fixed"] if "control_after_generate" in options(spec) else []


# --- reading --------------------------------------------------------------------------------------------------------

def to_prompt(workflow: dict, info: dict) -> dict:
    """The prompt the browser would queue. Raises ValueError for a node with more or fewer values than it has fields."""
    origins = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {str(node["id"]): {"class_type": node["type"], "inputs": inputs_of(node, info, origins)}
            for node in workflow["nodes"] if node["type"] not in NOTES}


def inputs_of(node: dict, info: dict, origins: dict) -> dict:
    """A node's inputs by name: the values of its fields, and over them what is linked."""
    values, inputs = list(node["widgets_values"]), {}
    for name, spec in declared(info, node["type"]):
        if is_widget(spec):
            if not values:
                raise ValueError(f"{node['type']} has no value for {name}")
            inputs[name] = values.pop(0)
            del values[:len(extra_values(name, spec))]
    if values:
        raise ValueError(f"{node['type']} has values left over: {values}")
    return inputs | {entry["name"]: origins[entry["link"]] for entry in node["inputs"] if entry["link"] is not None}


# --- writing --------------------------------------------------------------------------------------------------------

def to_workflow(name: str, example: Example, info: dict) -> dict:
    """The file the browser would save, opening with everything in view."""
    ids = {key: i + 1 for i, key in enumerate(example.nodes)}
    nodes = [saved_node(ids[key], kind, inputs, info) for key, (kind, inputs) in example.nodes.items()]
    by_id = {node["id"]: node for node in nodes}
    links = connect(example, ids, by_id)
    groups = place(example, {key: by_id[ids[key]] for key in ids})
    right = max(node["pos"][0] + node["size"][0] for node in nodes)
    scale = round(min(1.0, 1700 / right), 2)
    return {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "revision": 0, "last_node_id": len(nodes),
            "last_link_id": len(links), "nodes": nodes, "links": links, "groups": groups, "config": {},
            "extra": {"ds": {"scale": scale, "offset": [60, 140]}}, "version": 0.4}


def saved_node(number: int, kind: str, inputs: dict, info: dict) -> dict:
    """A node without its links: sockets before fields, every field with a value."""
    fields = [(name, spec) for name, spec in declared(info, kind) if is_widget(spec)]
    sockets = [(name, spec) for name, spec in declared(info, kind) if not is_widget(spec)]
    values = [value for name, spec in fields for value in [plain(inputs, name, spec), *extra_values(name, spec)]]
    entries = [{"name": name, "type": spec[0], "link": None} for name, spec in sockets]
    entries += [{"name": name, "type": "COMBO" if isinstance(spec[0], list) else spec[0], "widget": {"name": name},
                 "link": None} for name, spec in fields if kind not in NOTES]
    outputs = [] if kind in NOTES or kind in ENDS else [{"name": name, "type": type_, "links": []} for name, type_ in
                                                        zip(info[kind]["output_name"], info[kind]["output"])]
    models = [{"name": value, "url": SOURCES[value][1] + value, "directory": SOURCES[value][0]}
              for value in values if value in SOURCES]
    properties = {} if kind in NOTES else {"Node name for S&R": kind}
    return {"id": number, "type": kind, "pos": [0, 0], "size": size_of(kind, sockets, values, outputs), "flags": {},
            "order": number - 1, "mode": 0, "inputs": entries, "outputs": outputs,
            "properties": properties | ({"models": models} if models else {}), "widgets_values": values}


def plain(inputs: dict, name: str, spec: list):
    """A field's value; where it is linked, what the browser shows of it meanwhile."""
    value = inputs.get(name)
    return value if name in inputs and not isinstance(value, tuple) else options(spec).get("default")


def size_of(kind: str, sockets: list, values: list, outputs: list) -> list[int]:
    width, height = ROOMY.get(kind, (300, 0))
    return [width, max(height, 20 * max(len(sockets), len(outputs)) + 26 * len(values) + 20)]


def connect(example: Example, ids: dict, by_id: dict) -> list:
    """The links, entered at both ends too."""
    links = []
    for key, (_, inputs) in example.nodes.items():
        for slot, entry in enumerate(by_id[ids[key]]["inputs"]):
            origin = inputs.get(entry["name"])
            if isinstance(origin, tuple):
                source = by_id[ids[origin[0]]]["outputs"][origin[1]]
                links.append([len(links) + 1, ids[origin[0]], origin[1], ids[key], slot, source["type"]])
                entry["link"] = len(links)
                source["links"].append(len(links))
    return links


def place(example: Example, nodes: dict) -> list:
    """Give every node its position, column by column, and return the groups' frames."""
    x, frames = 0, []
    for title, columns in example.groups:
        left, bottom = x, 0
        for column in columns:
            bottom = max(bottom, stack([nodes[key] for key in column], x))
            x += max(nodes[key]["size"][0] for key in column) + GAP
        if title:
            frames.append({"id": len(frames) + 1, "title": title, "flags": {}, "font_size": 24, "color": "#3f789e",
                           "bounding": [left - 15, -TITLE - FRAME, x - GAP - left + 30, bottom + TITLE + FRAME + 15]})
        x += GAP
    return frames


def stack(column: list, x: int) -> int:
    """Put nodes under one another from y = 0; where the last one ends."""
    y = 0
    for node in column:
        node["pos"] = [x, y]
        y += node["size"][1] + TITLE + GAP // 2
    return y - TITLE - GAP // 2


# --- drawing --------------------------------------------------------------------------------------------------------

INKS = {"MODEL": "#b39ddb", "CLIP": "#ffd500", "VAE": "#ff6e6e", "CONDITIONING": "#ffa931", "LATENT": "#ff9cf9",
        "IMAGE": "#64b5f6", "SIGMAS": "#cdffcd", "SAMPLER": "#ecb4b4", "GUIDER": "#66ffff", "NOISE": "#b0b0b0",
        "S4S_PRESET": "#7ee08a"}


def drawn(workflow: dict, width: int = 512):
    """The graph as a small picture: frames, nodes with their titles, wires in the browser's colours."""
    from PIL import Image, ImageDraw, ImageFont
    boxes = {node["id"]: (*node["pos"], *node["size"]) for node in workflow["nodes"]}
    right, bottom = max(x + w for x, _, w, _ in boxes.values()), max(y + h for _, y, _, h in boxes.values())
    zoom = 2 * width / (right + 120)
    page = Image.new("RGB", (2 * width, int((bottom + 220) * zoom)), "#202020")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(size=15)

    def spot(x, y):
        return (x + 60) * zoom, (y + 140) * zoom
    for group in workflow["groups"]:
        x, y, w, h = group["bounding"]
        pen.rounded_rectangle([*spot(x, y), *spot(x + w, y + h)], 8, fill="#2b3742")
        pen.text(spot(x + 14, y + 6), group["title"], fill="#9fc3de", font=font)
    for _, origin, out, target, slot, kind in workflow["links"]:
        (x0, y0, w0, _), (x1, y1, *_) = boxes[origin], boxes[target]
        curve(pen, spot(x0 + w0, y0 + 14 + 20 * out), spot(x1, y1 + 14 + 20 * slot), INKS.get(kind, "#999999"))
    for node in workflow["nodes"]:
        x, y, w, h = boxes[node["id"]]
        ours, noted = node["type"].startswith("S4S"), node["type"] in NOTES
        pen.rounded_rectangle([*spot(x, y - TITLE), *spot(x + w, y + h)], 6, outline="#7ee08a" if ours else "#111111",
                              fill="#3d4636" if noted else "#353535", width=2)
        pen.text(spot(x + 8, y - TITLE + 4), "Note" if noted else node["type"], fill="#eeeeee", font=font)
    return page.resize((width, page.height * width // page.width), Image.LANCZOS)


def curve(pen, start: tuple, end: tuple, ink: str) -> None:
    """A wire: a cubic curve that leaves and arrives level."""
    bend = max(abs(end[0] - start[0]) / 2, 20)
    xs, ys = [start[0], start[0] + bend, end[0] - bend, end[0]], [start[1], start[1], end[1], end[1]]
    at = [((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3) for t in (i / 24 for i in range(25))]
    pen.line([(sum(a * x for a, x in zip(row, xs)), sum(a * y for a, y in zip(row, ys))) for row in at], ink, 2)


# --- words ----------------------------------------------------------------------------------------------------------

def locale_of(info: dict) -> dict:
    """What the nodes themselves say, in the shape of a translation."""
    return {kind: {"display_name": spec["display_name"], "description": spec["description"],
                   "inputs": {name: {"name": options(s).get("display_name") or name, "tooltip": options(s)["tooltip"]}
                              for name, s in declared(info, kind)},
                   "outputs": {str(i): {"name": name, "tooltip": tip} for i, (name, tip) in enumerate(
                       zip(spec["output_name"], spec["output_tooltips"]))}}
            for kind, spec in sorted(info.items()) if kind.startswith("S4S")}


def written(content, indent: str = "") -> str:
    """JSON for people and for diffs: what fits stands on one line."""
    line = json.dumps(content, ensure_ascii=False)
    if len(indent) + len(line) <= 110 or not isinstance(content, (dict, list)):
        return line
    deeper = indent + " "
    parts = [f"{json.dumps(key, ensure_ascii=False)}: {written(value, deeper)}" for key, value in content.items()] \
        if isinstance(content, dict) else [written(value, deeper) for value in content]
    opened, closed = "{}" if isinstance(content, dict) else "[]"
    return opened + "\n" + ",\n".join(deeper + part for part in parts) + "\n" + indent + closed


def main(url: str) -> None:
    """Write every file anew from the nodes of a running ComfyUI."""
    info = json.load(urlopen(f"{url}/object_info"))
    FOLDER.mkdir(exist_ok=True)
    for name, example in EXAMPLES.items():
        workflow = to_workflow(name, example, info)
        (FOLDER / f"{name}.json").write_text(written(workflow) + "\n", encoding="utf-8")
        if not (FOLDER / f"{name}.jpg").exists():
            drawn(workflow).save(FOLDER / f"{name}.jpg", quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
