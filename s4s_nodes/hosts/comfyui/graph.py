"""A host's prompt as a graph: what a node's result depends on, and what is made of it."""

import hashlib
import json

KEY = "s4s"                 # the row
DEEPEST = 200               # how many nodes a sampler's sign looks back over


def signs(prompt: dict) -> dict:
    """{node: digest of all that its result depends on, as the prompt says it}."""
    known: dict = {}

    def sign(name: str, depth: int) -> str:
        node = prompt.get(name)
        if name not in known and isinstance(node, dict) and depth:
            known[name] = ""                        # a circle, which the host will refuse, ends here
            asked = {key: [sign(value[0], depth - 1), value[1]] if is_link(value) else value
                     for key, value in inputs(node).items()}
            text = json.dumps([node.get("class_type"), asked], sort_keys=True, default=str)
            known[name] = hashlib.sha256(text.encode()).hexdigest()
        return known.get(name, name)
    for name in prompt:
        sign(name, DEEPEST)
    return known


def cfg_behind(prompt: dict, name: str) -> float | None:
    """The one cfg at which what a node gives out is sampled; None for none or several.

    A node that only makes levels knows none: the sampler behind it does, or that sampler's guider.
    """
    asked = [node for each in behind(prompt, name) - {name} for node in
             (prompt[each], *(prompt.get(link) for link in links(prompt[each], "guider")))]
    scales = {cfg for node in asked if isinstance(cfg := inputs(node).get("cfg"), (int, float))}
    scales |= {1.0 for node in asked if isinstance(node, dict) and node.get("class_type") == "BasicGuider"}
    return float(scales.pop()) if len(scales) == 1 else None


def samplers_behind(prompt: dict, name: str) -> set:
    """The names of the samplers that get a node's levels; of a preset node's, KEY."""
    found = [prompt[link] for each in behind(prompt, name, "sigmas") for link in links(prompt.get(each), "sampler")
             if isinstance(prompt.get(link), dict)]
    return {str(inputs(node).get("sampler_name") or (KEY if is_ours(node) else node.get("class_type")))
            for node in found}


def behind(prompt: dict, name: str, by: str | None = None) -> set:
    """The node and all that take its results, directly or not; by: through an input of this name alone."""
    reached: set = set()
    new = {name}
    while new:
        reached |= new
        new = {each for each, node in prompt.items() if links(node, by) & new} - reached
    return reached


def is_ours(node) -> bool:
    """Whether it is a node of S4S."""
    return isinstance(node, dict) and str(node.get("class_type", "")).startswith("S4S")


def links(node, only: str | None = None) -> set:
    """The nodes that feed this one, or one input of it."""
    return {value[0] for key, value in inputs(node).items() if is_link(value) and only in (None, key)}


def inputs(node) -> dict:
    """A node's inputs in a prompt; {} for anything else."""
    given = node.get("inputs") if isinstance(node, dict) else None
    return given if isinstance(given, dict) else {}


def is_link(value) -> bool:
    """Whether an input's value is another node's output."""
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)
