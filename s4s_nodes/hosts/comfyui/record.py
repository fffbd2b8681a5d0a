"""What a sampler used, told where people look: the log, the node's face, and the saved image.

A prompt that uses S4S gets an entry "s4s" in its extra_pnginfo, the dictionary every saving node embeds, and the same
in its workflow's "extra", which comes back when the image is dropped into the browser. The samplers fill it while they
run. Through the host's own on_prompt hook: nothing is patched.

The rows choose among the installed presets, which the host's cache knows nothing of. So the nodes that take them carry
one input more, the mark of the presets: after a preset came or went the host runs them again.
"""

import hashlib
import itertools
import json
import logging
import sys
import uuid
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from comfy_execution.utils import get_executing_context

from ... import metadata
from ...core.classical import SOLVERS
from ...core.k_sampler import close, same_levels
from ...core.preset_file import FORMAT_VERSION, PresetError
from ...select.dispatch import checked_levels
from ...select.match import name_text
from .folder import folder_mark, presets

KEY = "s4s"
MARK = "s4s_presets"
REMEMBERED = 500            # samplers whose last entries are kept, about 2 kB each
DEEPEST = 200               # nodes one behind the other that a sampler's sign looks back over
SOLVER = "a classical solver"
FROM_IMAGE = "S4S Preset from Image, connected to S4S Use Preset, takes the old one from the image"

_notes: weakref.WeakValueDictionary = weakref.WeakValueDictionary()    # prompt id -> Notes, while the host keeps it
_remembered: OrderedDict = OrderedDict()            # sign of a sampler -> [(when, entry)] of the last run of it
_checked: dict = {}         # the prompt that the host validates now
_clock = itertools.count()


class Notes(list):
    """What one prompt's samplers used: JSON-ready entries in the order they ran; a list that can be held weakly.

    Where the host reuses a sampler's result, no sampler runs: then its entries are those of the run that made it.
    earlier: the entries of the image that the prompt's workflow came from.
    """

    def __init__(self, prompt: dict, earlier=()):
        super().__init__()
        self.prompt, self.earlier, self.ran, self.loose = prompt, earlier, set(), []
        self.sign()

    def sign(self) -> None:
        """Look at the prompt's inputs, again where they changed."""
        self.signs = signs(self.prompt)
        self.refresh()

    def refresh(self) -> None:
        """Fill in what is known of every sampler."""
        known = [(when, {"node": node, **entry}) for node, sign in self.signs.items()
                 for when, entry in _remembered.get(sign, ())]
        self[:] = [entry for _, entry in sorted(known + self.loose, key=lambda each: each[0])]

    def add(self, node: str, entry: dict) -> None:
        """What this node just used; its first entry of a prompt takes the place of an earlier run's."""
        sign, now = self.signs.get(node), next(_clock)
        if sign is None:                            # a node that another one made while the prompt ran
            self.loose.append((now, {"node": node, **entry}))
            return self.refresh()
        before = _remembered.pop(sign, []) if node in self.ran else []
        self.ran.add(node)
        _remembered[sign] = [*before, (now, entry)]
        while len(_remembered) > REMEMBERED:
            _remembered.popitem(last=False)
        for notes in [each for each in _notes.values() if sign in each.signs.values()]:
            notes.refresh()


def signs(prompt: dict) -> dict:
    """{node: digest of all that its result depends on, as the prompt says it}."""
    known: dict = {}

    def sign(name: str, depth: int) -> str:
        node = prompt.get(name)
        if name not in known and isinstance(node, dict) and depth:
            known[name] = ""                        # a circle, which the host will refuse, ends here
            links = {key: [sign(value[0], depth - 1), value[1]] if _is_link(value) else value
                     for key, value in _inputs(node).items()}
            text = json.dumps([node.get("class_type"), links], sort_keys=True, default=str)
            known[name] = hashlib.sha256(text.encode()).hexdigest()
        return known.get(name, name)
    for name in prompt:
        sign(name, DEEPEST)
    return known


def _inputs(node) -> dict:
    """A node's inputs in a prompt; {} for anything else."""
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _is_link(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def on_prompt(data: dict) -> dict:
    """The host's hook, before a prompt is queued: prepare the entry where the prompt uses S4S."""
    if _uses_s4s(data.get("prompt")):
        _checked.clear()
        _checked.update(data["prompt"])
        mark_rows(data["prompt"], folder_mark())
        if data.get("prompt_id") is None:               # the server would mint one after this hook
            data["prompt_id"] = str(uuid.uuid4())
        extra = data["extra_data"] = data.get("extra_data") or {}
        info = extra["extra_pnginfo"] = extra.get("extra_pnginfo") or {}
        workflow = info.get("workflow")
        kept = workflow.setdefault("extra", {}) if isinstance(workflow, dict) else None
        earlier = kept.get(KEY) if isinstance(kept, dict) else None
        info[KEY] = _notes[str(data["prompt_id"])] = Notes(data["prompt"], earlier if isinstance(earlier, list) else ())
        if isinstance(kept, dict):
            kept[KEY] = info[KEY]
    return data


def typed_inputs(node) -> dict:
    """The values that stand in a node whose inputs are being validated; linked ones are left out.

    The host reports a refusal once for every input that validate_inputs names. So it names one, and looks here.
    """
    inputs = _inputs(_checked.get(str(getattr(node.hidden, "unique_id", ""))))
    return {key: value for key, value in inputs.items() if not _is_link(value)}


def presets_changed() -> None:
    """Mark the rows of the prompts that wait in the queue anew: a preset came or went since they were queued."""
    server, mark = _server(), folder_mark()
    for item in list(getattr(getattr(server, "prompt_queue", None), "queue", ())):
        if (notes := _notes.get(item[1])) is not None:
            mark_rows(notes.prompt, mark)
            notes.sign()


def _uses_s4s(prompt) -> bool:
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    return any(_is_ours(node) or KEY in _inputs(node).values() for node in nodes if isinstance(node, dict))


def mark_rows(prompt: dict, mark: str) -> None:
    """Put the mark of the installed presets into every node with a row `s4s`; the host ignores inputs it lacks."""
    for node in prompt.values():
        if KEY in (inputs := _inputs(node)).values():
            inputs[MARK] = mark


def cfg_behind() -> float | None:
    """The one cfg at which what the running node gives out is sampled, as its prompt says; None for none or several.

    A node that only makes levels knows none: the sampler behind it does, or that sampler's guider.
    """
    context = get_executing_context()
    notes = None if context is None else _notes.get(context.prompt_id)
    if notes is None:
        return None
    reached, new = set(), {context.node_id}
    while new:
        reached |= new
        new = {name for name, node in notes.prompt.items() if _links(node) & new} - reached
    asked = [node for name in reached - {context.node_id} for node in
             (notes.prompt[name], *(notes.prompt.get(link) for link in _links(notes.prompt[name], "guider")))]
    scales = {cfg for node in asked if isinstance(cfg := _inputs(node).get("cfg"), (int, float))}
    scales |= {1.0 for node in asked if isinstance(node, dict) and node.get("class_type") == "BasicGuider"}
    return float(scales.pop()) if len(scales) == 1 else None


def level_left() -> float | None:
    """The level at which the sampler before the running node left the latent; None where it finished, or is unknown."""
    context = get_executing_context()
    notes = None if context is None else _notes.get(context.prompt_id)
    before = set() if notes is None else _links(notes.prompt.get(context.node_id), "latent_image")
    ends = [note["numbers"]["sigmas"][-1] for note in notes or () if note["node"] in before and "numbers" in note]
    return float(ends[-1]) or None if ends else None


def samplers_behind() -> set:
    """The names of the samplers that get the running node's levels, as its prompt says; of a preset node's, KEY."""
    context = get_executing_context()
    notes = None if context is None else _notes.get(context.prompt_id)
    if notes is None:
        return set()
    reached, new = set(), {context.node_id}
    while new:
        reached |= new
        new = {name for name, node in notes.prompt.items() if _links(node, "sigmas") & new} - reached
    found = [notes.prompt.get(link) or {} for name in reached for link in _links(notes.prompt.get(name), "sampler")]
    return {str(_inputs(node).get("sampler_name") or (KEY if _is_ours(node) else node.get("class_type")))
            for node in found}


def _is_ours(node: dict) -> bool:
    return str(node.get("class_type", "")).startswith("S4S")


def _links(node, only: str | None = None) -> set:
    """The nodes that feed this one, or one input of it."""
    return {value[0] for key, value in _inputs(node).items() if _is_link(value) and only in (None, key)}


def entry(selection, facts) -> dict:
    """A library Selection, JSON-ready, as it is embedded; reason: why nothing of the model's own ran."""
    preset = selection.preset
    named = {} if preset is None else {"preset": preset.name, "hash": preset.long_hash, "format": FORMAT_VERSION,
                                       "trainer": str(preset.training.get("trainer", ""))}
    reason = {"reason": selection.why} if selection.fallback else {}
    numbers = metadata.to_text(selection, facts)
    return {**named, "table": selection.table_name, "kind": selection.kind, "fallback": selection.fallback, **reason,
            "calls": selection.table.calls, "text": selection.message(),
            **({} if numbers is None else {"numbers": json.loads(numbers)})}


def tell(selection, facts) -> None:
    """Log what runs, show it on the node that runs, and write it into the prompt's entry, the numbers too."""
    _tell(selection, entry(selection, facts))


def tell_schedule(selection, facts, levels, samplers, cfg=None, size=None) -> None:
    """The same of levels on which other samplers run; cfg and size as far as they are known here.

    The numbers are those of the selected table if these are its levels, else of Euler's method on them.
    """
    levels = checked_levels(levels)
    if not same_levels(selection.table, levels):
        euler = SOLVERS["euler"](levels, facts.flow)
        selection = replace(selection, table=euler, table_name=f"levels{euler.calls}", kind="classical")
    of = {"kind": "schedule", "sampler": ", ".join(sorted(samplers)), "levels": levels.tolist(),
          "text": selection.schedule_message(cfg, size)}
    _tell(selection, {**entry(selection, facts), **of})


def _tell(selection, written: dict) -> None:
    text = written["text"]
    logging.log(logging.WARNING if selection.warns else logging.INFO, text)
    if selection.details:
        logging.debug("S4S did not run %s", selection.details)
    context = get_executing_context()
    if context is None:
        return
    notes = _notes.get(context.prompt_id)
    if notes is not None:
        changed = _changed(selection, [note for note in notes.earlier
                                       if isinstance(note, dict) and note.get("node") == context.node_id])
        notes.add(context.node_id, {**written, **({"changed": changed} if changed else {})})
        if changed:
            logging.warning("S4S: %s", changed)
            text = f"{changed}\n{text}"
    face(text, context.node_id)


def face(text: str, node_id: str | None) -> None:
    """Show words on a node, where every version of the browser's part draws them; without a server nothing happens."""
    if (server := _server()) is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def _changed(selection, earlier: list) -> str:
    """What to say where the workflow's image was made here with a preset that is gone, or is no longer the same, or,
    in as many calls, with another selection than now."""
    recorded = list(_recorded(earlier))
    if any(table.same_as(selection.table) for old in recorded for table in old.tables.values()):
        return ""
    installed = {each.long_hash: each.name for each in presets().candidates()}
    now = "" if selection.preset is None else metadata.origin_of(selection.preset)["preset"]
    for old in recorded:
        [table], digits = old.tables.values(), old.training["from_image"]["preset"]
        name = f"{old.name} ({digits[:10]})" if digits else SOLVER
        made = f"this workflow's image was made with {name}"
        if digits and digits not in installed:
            what = "has changed since" if old.name in installed.values() else "is gone"
            return f"{made}, which {what}. {FROM_IMAGE}"
        if table.calls == selection.table.calls and (digits != now or not digits and close(
                table.sigmas[0], selection.table.sigmas[0])):
            runs = "another one" if name == SOLVER else SOLVER
            runs = runs if selection.preset is None else name_text(selection.preset)
            how = f"To run the old one, choose {installed[digits]} in S4S Use Preset" if digits else FROM_IMAGE
            return f"{made}, and now {runs} runs. {how}"
    return ""


def _recorded(earlier: list) -> Iterator:
    """The presets of one table that entries of an image hold; what is damaged is left out."""
    for note in earlier:
        with suppress(PresetError):
            yield metadata.from_record(note.get("numbers"))


def listen() -> None:
    """Hang on_prompt into the running server, once; without a server (a test, a script) there is nothing to do."""
    server = _server()
    if server is not None and on_prompt not in server.on_prompt_handlers:
        server.add_on_prompt_handler(on_prompt)


def _server():
    """The running server, or None: a script that only borrows the host's modules has none and imports none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
