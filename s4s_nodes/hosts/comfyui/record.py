"""Reports what a sampler used where people look: in the log, on the node, and in the saved image.

A prompt that uses S4S gets an entry "s4s" in its extra_pnginfo, the dictionary every saving node embeds, and the same
in its workflow's "extra", which comes back when the image is dropped into the browser. The samplers fill it while they
run. Through the host's own on_prompt hook: nothing is patched.

The rows choose among the installed presets, which the host's cache knows nothing of. So the nodes that take them carry
one input more, the mark of the presets: after a preset came or went the host runs them again.
"""

import itertools
import json
import logging
import sys
import uuid
import weakref
from collections import OrderedDict
from dataclasses import replace

from comfy_execution.utils import get_executing_context

from ... import metadata
from ...core.classical import SOLVERS
from ...core.k_sampler import same_levels
from ...core.preset_file import FORMAT_VERSION
from ...select.dispatch import checked_levels
from . import graph, recorded
from .folder import folder_mark
from .graph import KEY

MARK = "s4s_presets"
LEVELS = ("S4SPreset", "S4SSigmas")                 # our nodes that output levels, beside those with a row
REMEMBERED = 500            # samplers whose last entries are kept, about 2 kB each

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
        """Read the prompt's inputs, again if they changed."""
        self.signs = graph.signs(self.prompt)
        self.refresh()

    def refresh(self) -> None:
        """Fill in what is known of every sampler."""
        known = [(when, {"node": node, **entry}) for node, sign in self.signs.items()
                 for when, entry in _remembered.get(sign, ())]
        self[:] = [entry for _, entry in sorted(known + self.loose, key=lambda each: each[0])]

    def level_left(self, node: str | None) -> float | None:
        """The level at which the sampler before this node left the latent; None if it finished, or is unknown."""
        before = graph.links(self.prompt.get(node), "latent_image")
        ends = [note["numbers"]["sigmas"][-1] for note in self if note["node"] in before and "numbers" in note]
        return float(ends[-1]) or None if ends else None

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


def on_prompt(data: dict) -> dict:
    """The host's hook before a prompt is queued: prepare the entry if the prompt uses S4S."""
    prompt = data.get("prompt")
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    if any(graph.is_ours(node) or KEY in graph.inputs(node).values() for node in nodes):
        _checked.clear()
        _checked.update(data["prompt"])
        mark_rows(data["prompt"], folder_mark())
        if data.get("prompt_id") is None:               # the server would create one after this hook
            data["prompt_id"] = str(uuid.uuid4())
        extra = data["extra_data"] = data.get("extra_data") or {}
        info = extra["extra_pnginfo"] = extra.get("extra_pnginfo") or {}
        workflow = info.get("workflow")
        kept = workflow.setdefault("extra", {}) if isinstance(workflow, dict) else {}
        kept = kept if isinstance(kept, dict) else {}
        earlier = kept.get(KEY) if isinstance(kept.get(KEY), list) else ()
        kept[KEY] = info[KEY] = _notes[str(data["prompt_id"])] = Notes(data["prompt"], earlier)
    return data


def typed_inputs(node) -> dict:
    """The values that stand in a node whose inputs are being validated; linked ones are left out.

    The host reports a refusal once for every input that validate_inputs names. So it names one, and looks here.
    """
    inputs = graph.inputs(_checked.get(str(getattr(node.hidden, "unique_id", ""))))
    return {key: value for key, value in inputs.items() if not graph.is_link(value)}


def presets_changed() -> None:
    """Mark the rows of the waiting prompts again: a preset was added or removed since they were queued."""
    server, mark = _server(), folder_mark()
    for item in list(getattr(getattr(server, "prompt_queue", None), "queue", ())):
        if (notes := _notes.get(item[1])) is not None:
            mark_rows(notes.prompt, mark)
            notes.sign()


def mark_rows(prompt: dict, mark: str) -> None:
    """Put the mark of the installed presets into every node with a row `s4s`; the host ignores inputs it lacks.

    What gives levels without a cfg of its own is marked by what samples on them, too: it runs again where that changed.
    """
    for name, node in prompt.items():
        row, inputs = KEY in graph.inputs(node).values(), graph.inputs(node)
        if row or isinstance(node, dict) and node.get("class_type") in LEVELS:
            inputs[MARK] = mark * row
            if "cfg" not in inputs:
                inputs[MARK] += f" {graph.cfg_behind(prompt, name)} {sorted(graph.samplers_behind(prompt, name))}"


def running() -> tuple:
    """(the Notes of the prompt that runs now, those of an empty one if unknown; the id of its node, or None)."""
    context = get_executing_context()
    return (Notes({}), None) if context is None else (_notes.get(context.prompt_id, Notes({})), context.node_id)


def tell_schedule(selection, facts, levels, samplers, cfg=None, size=None) -> None:
    """`tell` of levels on which other samplers run; cfg and size as far as they are known here.

    The numbers are those of the selected table if these are its levels, else of Euler's method on them.
    """
    levels = checked_levels(levels)
    if not same_levels(selection.table, levels):
        euler = SOLVERS["euler"](levels, facts.flow)
        selection = replace(selection, table=euler, table_name=f"levels{euler.calls}", kind="classical")
    tell(selection, facts, kind="schedule", sampler=", ".join(sorted(samplers)), levels=levels.tolist(),
         text=selection.schedule_message(cfg, size))


def tell(selection, facts, **more) -> None:
    """Log what runs, show it on the node that runs, and write it into the prompt's entry, the numbers too.

    more: what the entry says otherwise, or besides; its reason: why nothing of the model's own ran.
    """
    preset, numbers = selection.preset, metadata.to_text(selection, facts)
    written = {} if preset is None else {"preset": preset.name, "hash": preset.long_hash, "format": FORMAT_VERSION,
                                         "trainer": str(preset.training.get("trainer", ""))}
    written |= {"table": selection.table_name, "kind": selection.kind, "fallback": selection.fallback,
                **({"reason": selection.why} if selection.fallback else {}), "calls": selection.table.calls,
                "text": selection.message(), **({} if numbers is None else {"numbers": json.loads(numbers)}), **more}
    text = written["text"]
    logging.log(logging.WARNING if selection.warns else logging.INFO, text)
    if selection.details:
        logging.debug("S4S did not run %s", selection.details)
    notes, node = running()
    changed = recorded.changed(selection, [note for note in notes.earlier
                                           if isinstance(note, dict) and note.get("node") == node])
    notes.add(node, {**written, **({"changed": changed} if changed else {})})
    if changed:
        logging.warning("S4S: %s", changed)
        text = f"{changed}\n{text}"
    face(text, node)


def face(text: str, node_id: str | None) -> None:
    """Show a text on a node, where every version of the frontend draws it; without a server nothing happens."""
    if (server := _server()) is not None and node_id is not None:
        server.send_progress_text(text, node_id)


def listen() -> None:
    """Add on_prompt and a route to the running server, once; without one (a test, a script) do nothing."""
    server = _server()
    if server is not None and on_prompt not in server.on_prompt_handlers:
        server.add_on_prompt_handler(on_prompt)
        server.routes.post("/s4s/recorded")(_recorded)


async def _recorded(request):
    """What the browser asks of a workflow's entries: which presets are lost here, or to save those again."""
    from aiohttp import web  # the server's own

    try:
        answer = recorded.answer(await request.read())
    except (ValueError, OSError) as error:
        return web.json_response({"text": str(error)}, status=400)
    presets_changed()
    return web.json_response(answer)


def _server():
    """The running server, or None: a script that only borrows the host's modules has none and imports none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
