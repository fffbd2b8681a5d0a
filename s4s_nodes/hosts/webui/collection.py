"""The sub-tab Presets: list them all; read, share, rename or delete one; add files; join several."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path

import gradio as gr
from modules import shared

from ... import published
from ...core import preset_file
from ...core.model import is_number
from ...core.names import file_name, preset_name
from ...library import ENDING, Preset, PresetError, measured, recommended_text, save_new
from ...select.cfg import join_presets
from ...select.match import counts_text
from . import dropdowns, panel, settings, shelf
from .words import say


@dataclass
class Done:
    """What a button did: a message, the preset to show next, and which one has another name now, {old: new}."""

    message: str
    chosen: str | None = None
    renamed: dict = field(default_factory=dict)


def build() -> dict:
    """The components of the sub-tab by name, on the page that is being built."""
    part = {"list": gr.HTML(value=listing(), elem_id="s4s_collection_list"),
            "said": gr.Textbox(label=say("Report"), lines=2, interactive=False, elem_id="s4s_collection_said")}
    with gr.Row():
        with gr.Column():
            part["chosen"] = gr.Dropdown(label=say("Preset"), choices=shelf.library().listed(), value=None,
                                         elem_id="s4s_collection_preset")
            part["about"] = gr.HTML(value="", elem_id="s4s_collection_about")
            part["file"] = gr.File(label=say("Its file, for sharing"), interactive=False, visible=False,
                                   elem_id="s4s_collection_file")
            with gr.Row():
                part["name"] = gr.Textbox(label=say("New name"), elem_id="s4s_collection_name")
                part["rename"] = gr.Button(say("Rename"), elem_id="s4s_collection_rename")
            with gr.Row():
                part["sure"] = gr.Checkbox(label=say("Delete for good"), value=False, elem_id="s4s_collection_sure")
                part["delete"] = gr.Button(say("Delete"), variant="stop", elem_id="s4s_collection_delete")
        with gr.Column():
            part["files"] = gr.File(
                label=say("Preset files to add"), file_count="multiple", elem_id="s4s_collection_files")
            part["add"] = gr.Button(say("Add"), elem_id="s4s_collection_add")
            part["several"] = gr.Dropdown(
                label=say("Presets for one model, learned at different cfg, to join into one"),
                choices=list(shelf.library().offered()), value=[], multiselect=True, elem_id="s4s_collection_several")
            with gr.Row():
                part["whole"] = gr.Textbox(label=say("Name of the joined preset"), elem_id="s4s_collection_whole")
                part["join"] = gr.Button(say("Join"), elem_id="s4s_collection_join")
    return part


def wire(components: dict, lists: dict) -> None:
    """Let the buttons work; lists: the page's dropdowns that name presets, which follow."""
    wishes = [components[name] for name in ("files", "name", "sure", "whole")]
    outputs = [components["said"], components["list"], *wishes, *lists.values()]
    for button, work, inputs in (("add", add, ["files"]), ("rename", rename, ["chosen", "name"]),
                                 ("delete", delete, ["chosen", "sure"]), ("join", join, ["several", "whole"])):
        components[button].click(partial(apply, lists, len(wishes), work), outputs=outputs, queue=False,
                                 inputs=[*(components[name] for name in inputs), *lists.values()])
    components["chosen"].change(show, inputs=[components["chosen"]],
                                outputs=[components[name] for name in ("about", "file", "sure")],
                                queue=False, show_progress=False)


def apply(lists: dict, wishes: int, work: Callable, *asked) -> list:
    """Do work(*asked but for what the dropdowns show), and give updates: words, list, wishes, dropdowns.

    Where it cannot be done nothing but the words changes.
    """
    asked, shown_there = asked[:-len(lists)], asked[-len(lists):]
    before = _labels()
    try:
        check_access()
        done = work(*asked)
    except (ValueError, OSError) as error:
        return [shelf.without_places(_message(error)), *[gr.update()] * (1 + wishes + len(lists))]
    after = _labels()
    renamed_too = {before[old]: after.get(new) for old, new in done.renamed.items() if old in before}
    updates = dict(zip(lists, dropdowns.refreshed(lists, shown_there, {**done.renamed, **renamed_too})))
    if dropdowns.COLLECTION in updates:
        updates[dropdowns.COLLECTION]["value"] = done.chosen
    empty = [gr.update(value=value) for value in (None, "", False, "")]
    return [shelf.without_places(done.message), listing(), *empty, *updates.values()]


def check_access() -> None:
    """Raise PresetError if the host is open to others and therefore forbids changes, as for extensions."""
    if getattr(getattr(shared, "cmd_opts", None), "disable_extension_access", False):
        raise PresetError("presets cannot be added, renamed, deleted, joined or given a race's scores here, because "
                          "this server is open to others (--listen, --share, --server-name): start it with "
                          "--enable-insecure-extension-access to allow it")


def _message(error: Exception) -> str:
    """An error without the path that the system adds to it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {Path(error.filename).name}' if error.filename else ''}"
    return str(error)


def _labels() -> dict[str, str]:
    return {name: label for label, name in shelf.names().items()}


def listing() -> str:
    """All presets as a table, and below it what could not be read."""
    library = shelf.library()
    presets = library.offered()
    rows = "".join(_row(name, presets[name], library.in_shipped(path)) for name, path in library.files().items()
                   if name in presets)
    heads = (say("Preset"), say("For"), say("Steps"), say("Measured"), say("Recommended"), say("Whose"))
    head = "".join(f'<th style="text-align: start">{escape(words)}</th>' for words in heads)
    problems = "".join(f"<li>{escape(shelf.without_places(problem))}</li>" for problem in library.problems())
    about = escape(say("Measured: how many times closer a table gets to the result of many steps than the best "
                       "classical sampler and schedule, at equal steps."))
    return (f'<div style="max-height: 36em; overflow: auto"><table style="width: 100%"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div><p>{about}</p>"
            + (f"<p>{escape(say('Cannot be used:'))}</p><ul>{problems}</ul>" if problems else ""))


def _row(name: str, preset: Preset, ships: bool) -> str:
    plain = {"yes": say("yes"), "no": say("no"), "unfinished": say("unfinished"), "not raced": "–",
             "{} times closer": say("{} times closer"), "{} to {} times closer": say("{} to {} times closer"),
             "{} times further": say("{} times further"), "{} to {} times further": say("{} to {} times further"),
             "{} times further to {} times closer": say("{} times further to {} times closer")}
    (found, numbers), fine = measured(preset), recommended_text(preset)
    scores = [preset.score(table) for table in preset.tables]
    seeds = min((score["seeds"] for score in scores if is_number(score.get("seeds"))), default=None)
    cells = (name, f"{preset.model.family}, {preset.model.prediction}", counts_text(preset.counts),
             plain[found].format(*numbers) + (say(", on {} seeds").format(seeds) if seeds is not None else ""),
             plain.get(fine) or say("not {}").format(fine.removeprefix("not ")),
             say("ships with S4S") if ships else say("yours"))
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def show(name) -> tuple:
    """Updates of description, file and tick for the preset that was chosen: a tick is for one preset only."""
    nothing, library = gr.update(value=None, visible=False), shelf.library()
    if not name:
        return "", nothing, False
    try:
        preset = library.get(name)
    except PresetError as error:
        return escape(shelf.without_places(str(error))), nothing, False
    rights = "".join(f"<p>{escape(words)}: {escape(value)}</p>" for words, value in (
        (say("License"), preset.licence), (say("Source"), preset.source)) if value)
    page = shelf.report_page(preset)
    link = shelf.link_to(page) if page.is_file() else ""
    return link + panel.description(preset) + rights, gr.update(value=str(library.path(name)), visible=True), False


def add(files) -> Done:
    """Read uploaded files and save each under the name it carries; a refused one does not stop the others."""
    if not files:
        raise PresetError("no file was given: choose preset files (.safetensors) first, then press Add")
    words, chosen = [], None
    for file in files if isinstance(files, list) else [files]:
        path = Path(getattr(file, "name", file))            # gradio 3 gives open files, gradio 4 text
        try:
            _check_uploaded(file)
            if path.suffix.lower() != ENDING:
                raise PresetError(f"{path.name} is no preset file ({ENDING}). {published.GONE}")
            preset = preset_file.load(path)
            chosen = _saved(preset)
            words.append(f"{path.name}: added as {chosen}. {_for_what(preset)}")
        except (ValueError, OSError) as error:
            said = _message(error).replace(str(path), path.name)
            words.append(f"not added: {said}" if path.name in said else f"{path.name}, not added: {said}")
    if chosen is None:
        raise PresetError("\n".join(words))
    return Done("\n".join(words), chosen)


def _check_uploaded(file) -> None:
    """Raise PresetError for a file that nobody uploaded, since a request can name any file of the server.

    Gradio 3 makes a copy of whatever file is named, and keeps the name as orig_name; gradio 4 looks itself.
    """
    uploads = os.path.realpath(os.environ.get("GRADIO_TEMP_DIR") or os.path.join(tempfile.gettempdir(), "gradio"))
    for path in map(str, filter(None, (getattr(file, "name", file), getattr(file, "orig_name", None)))):
        real = os.path.realpath(path)
        if not os.path.isabs(path) or Path(uploads) not in Path(real).parents:
            raise PresetError("was not uploaded on this page: choose the file there, then press Add")


def rename(name, new) -> Done:
    """Rename one of the user's presets, both the file and the name in it."""
    new = preset_name(str(new or "").strip())
    check_ships(new)
    known = shelf.library().rename(_known(name), new).relative_to(shelf.folder()).with_suffix("").as_posix()
    return Done(f"{name} is {known} now{_by_setting(name)}", known, {name: known})


def delete(name, sure) -> Done:
    """Remove a preset of the user's, damaged or not."""
    if reason := shelf.library().why_kept(_known(name)):
        raise PresetError(reason)
    if not sure:
        raise PresetError(f"this deletes {name}: tick Delete for good, then press Delete again")
    shelf.library().delete(name)
    return Done(f"deleted {name}{_by_setting(name)}")


def join(names, new) -> Done:
    """Join several presets into a new one; they stay as they are."""
    new = preset_name(str(new or "").strip())
    whole = join_presets([shelf.library().get(name) for name in names or ()], new)
    low, high = whole.training["cfg"]
    return Done(f"joined as {_saved(whole)}: for cfg {low:g} to {high:g}. {_for_what(whole)}", file_name(whole.name))


def _saved(preset: Preset) -> str:
    """Save a preset where the host finds it, and return the name it has there. Raises PresetError for one taken."""
    check_ships(preset.name)
    return save_new(preset, shelf.folder()).stem


def check_ships(name: str) -> None:
    """Raise PresetError where a preset that ships has this name: a file of the user's would hide it."""
    library = shelf.library()
    if file_name(name) in library.files() and library.ships(file_name(name)):
        raise PresetError(f"{file_name(name)} ships with S4S, and another of that name would hide it: choose another "
                          "name")


def _known(name) -> str:
    if not name:
        raise PresetError("no preset is chosen: choose one in the list Preset")
    return name


def _for_what(preset: Preset) -> str:
    model = preset.model
    return f"It is for {model.family}, {model.prediction} prediction, {', '.join(map(str, preset.counts))} steps"


def _by_setting(name: str) -> str:
    """A warning where the host's settings name a preset that no longer exists."""
    families = settings.families_with(name)
    return f". Settings, S4S still name it for {', '.join(families)}: choose another there" if families else ""
