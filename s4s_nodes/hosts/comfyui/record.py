"""What a sampler used, told where people look: the log, the node's face, and the saved image.

A prompt that uses S4S gets an entry "s4s" in its extra_pnginfo, the dictionary every saving node embeds; the samplers
fill it while they run. Through the host's own on_prompt hook: nothing is patched. Where the host reuses a sampler's
result of an earlier prompt, no sampler runs and the entry stays empty; the first image of that result has it.

The rows choose among the installed presets, which the host's cache knows nothing of. So the nodes that take them carry
one input more, the mark of the presets: after a preset came or went the host runs them again.
"""

from __future__ import annotations

import logging
import sys
import uuid
import weakref

from comfy_execution.utils import get_executing_context

from ...core.preset_file import FORMAT_VERSION
from .folder import folder_mark

KEY = "s4s"
MARK = "s4s_presets"


class Notes(list):
    """What one prompt's samplers said; a list of JSON-ready entries that can be held weakly."""


_notes: weakref.WeakValueDictionary = weakref.WeakValueDictionary()    # prompt id -> Notes, while the host keeps it


def on_prompt(data: dict) -> dict:
    """The host's hook, before a prompt is queued: prepare the entry where the prompt uses S4S."""
    if _uses_s4s(data.get("prompt")):
        mark_rows(data["prompt"], folder_mark())
        if data.get("prompt_id") is None:               # the server would mint one after this hook
            data["prompt_id"] = str(uuid.uuid4())
        extra = data["extra_data"] = data.get("extra_data") or {}
        info = extra["extra_pnginfo"] = extra.get("extra_pnginfo") or {}
        info[KEY] = _notes[str(data["prompt_id"])] = Notes()
    return data


def _uses_s4s(prompt) -> bool:
    nodes = prompt.values() if isinstance(prompt, dict) else ()
    return any(str(node.get("class_type", "")).startswith("S4S") or KEY in _texts(node.get("inputs"))
               for node in nodes if isinstance(node, dict))


def mark_rows(prompt: dict, mark: str) -> None:
    """Put the mark of the installed presets into every node with a row `s4s`; the host ignores inputs it lacks."""
    for node in prompt.values():
        if isinstance(node, dict) and KEY in _texts(node.get("inputs")):
            node["inputs"][MARK] = mark


def _texts(inputs) -> list:
    return [value for value in inputs.values() if isinstance(value, str)] if isinstance(inputs, dict) else []


def entry(found) -> dict:
    """A library Selection, JSON-ready, as it is embedded; reason: why nothing of the model's own ran."""
    preset = found.preset
    named = {} if preset is None else {"preset": preset.name, "hash": preset.long_hash, "format": FORMAT_VERSION,
                                       "trainer": str(preset.training.get("trainer", ""))}
    reason = {"reason": found.why} if found.fallback else {}
    return {**named, "table": found.table_name, "kind": found.kind, "fallback": found.fallback, **reason,
            "calls": found.table.calls, "text": found.words()}


def tell(found) -> None:
    """Log what runs, show it on the node that runs, and write it into the prompt's entry."""
    logging.log(logging.WARNING if found.warns else logging.INFO, found.words())
    if found.details:
        logging.debug("S4S did not run %s", found.details)
    context = get_executing_context()
    if context is None:
        return
    notes = _notes.get(context.prompt_id)
    if notes is not None:
        notes.append({"node": context.node_id, **entry(found)})
    if (server := _server()) is not None:
        server.send_progress_text(found.words(), context.node_id)


def listen() -> None:
    """Hang on_prompt into the running server, once; without a server (a test, a script) there is nothing to do."""
    server = _server()
    if server is not None and on_prompt not in server.on_prompt_handlers:
        server.add_on_prompt_handler(on_prompt)


def _server():
    """The running server, or None: a script that only borrows the host's modules has none and imports none."""
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
