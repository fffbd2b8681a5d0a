"""solver_presets/README.md: what ships, for which models, where each number comes from and what was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from .core import Preset, preset as preset_file
from .report import race_markdown

SHIPPED = """# Presets that ship

This page is made from the files by `s4s passports --write`; a test checks that it is current.

**None of these presets was measured on a real Stable Diffusion checkpoint.** The ones for a family (SD 1.x, SDXL, Flux,
Wan) are noise levels that others published, with a classical solver: an honest start, taken by itself for its family
and its numbers of calls until you train a preset or race one on your checkpoint (*S4S Train Preset*, *S4S Race*, or the
tab of WebUI: one button each). The learned ones are for the two small models of digits that come with S4S.
"""

TRAINED = """The distance is the RMSE to a 50-call teacher from the same noise, on seeds no training run uses; "calls to
match" is the number of calls at which the best classical solver x schedule pair gets as close.
"""


def passport(preset: Preset, file: Path | None = None) -> str:
    """A preset's provenance, conditions, scores and checksum as Markdown: its part of the page."""
    model = preset.model
    shift = "" if model.shift is None else f", shift {model.shift:g}"
    lines = [f"## {preset.name}", "",
             f"For **{model.family}** ({model.prediction} prediction, sigma {model.sigma_min:g} to "
             f"{model.sigma_max:g}{shift}), hash `{preset.short_hash}`, licence {preset.licence}, {preset.source}."]
    lines += _published(preset) if "imported" in preset.training else _learned(preset)
    if file is not None:
        lines += [f"File `{file.name}`, SHA-256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`."]
    if preset.scores:
        lines += ["", race_markdown({_row(name, score): score for name, score in preset.scores.items()})]
    return "\n".join(lines)


def _learned(preset: Preset) -> list[str]:
    """How it was trained, as far as the record says."""
    made = preset.training
    off = made.get("teacher_error")
    off = "" if off is None else f" (doubling its calls moves its results by RMSE {off:.2g})"
    said = [("teacher", f"Teacher {made.get('teacher')}{off}"), ("cfg", f"cfg {_span(made.get('cfg', 1.0))}"),
            ("pairs", f"{made.get('pairs')} pairs"), ("seed", f"seed {made.get('seed')}"),
            ("mode", f"{made.get('mode')} mode from {made.get('base')}")]
    words = ", ".join(text for key, text in said if key in made)
    if "model_calls" in made:
        words += f"; {made['model_calls']:,} network calls for all its tables, {made.get('seconds', 0):.0f} s"
    return [f"{words}." if words else "How it was made is not recorded.", *_notes(preset)]


def _published(preset: Preset) -> list[str]:
    """What was published, what was added to it, and why this and no other."""
    made = preset.training
    words = f"A {made['imported']}, for {', '.join(map(str, preset.counts))} calls"
    if stretched := made.get("stretched_calls"):
        words += (f"; its authors published {', '.join(map(str, made['published_calls']))}, those for "
                  f"{', '.join(map(str, stretched))} are interpolated, log-linear in the index as the hosts do it")
    return [f"{words}.", *_notes(preset)]


def _notes(preset: Preset) -> list[str]:
    notes = [str(preset.training[key]) for key in ("evidence", "note") if key in preset.training]
    if not preset.recommended:
        notes.append("Not recommended: a classical solver did better in its race.")
    return [f"{note[0].upper()}{note[1:].rstrip('.')}." for note in notes]


def _row(name: str, score: dict) -> str:
    return f"{score['cfg']:g} cfg, {name[5:]} calls" if name.startswith("calls") else name


def _span(cfg) -> str:
    numbers = cfg if isinstance(cfg, (list, tuple)) else [cfg]
    low, high = numbers[0], numbers[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def page(folder, head: str = "# Presets\n") -> str:
    """The whole page of a folder of presets. Raises PresetError for a file that cannot be read."""
    files = sorted(Path(folder).glob("*.safetensors"))
    presets = {file: preset_file.load(file) for file in files}
    rows = ["| | for | calls | what it is | measured |", "|---|---|---|---|---|"]
    rows += [f"| [{made.name}](#{_anchor(made.name)}) | {made.model.family}, {made.model.prediction} | "
             f"{', '.join(map(str, made.counts))} | {_kind(made)} | {_measured(made)} |" for made in presets.values()]
    published = [passport(made, file) for file, made in presets.items() if "imported" in made.training]
    learned = [passport(made, file) for file, made in presets.items() if "imported" not in made.training]
    return "\n".join([head, *rows, "", *(f"{part}\n" for part in published), f"# Learned\n\n{TRAINED}",
                      *(f"{part}\n" for part in learned)])


def _kind(preset: Preset) -> str:
    return str(preset.training.get("imported", "learned"))


def _measured(preset: Preset) -> str:
    if not preset.scores:
        return "not on a checkpoint"
    seeds = min(score["seeds"] for score in preset.scores.values())
    return f"on {preset.model.family}, {seeds} seeds"


def _anchor(name: str) -> str:
    """GitHub's address of a heading."""
    return "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c in "-_")
