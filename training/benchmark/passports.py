"""A preset's passport: where its numbers come from, for which models they are, and what was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...s4s_nodes.core import Preset, PresetError
from ...s4s_nodes.select.match import range_text
from .report import race_markdown


def passport(preset: Preset, file: Path | None = None) -> str:
    """A preset's provenance, conditions, scores and checksum as Markdown.

    Raises PresetError where its record is none that S4S writes.
    """
    try:
        return _passport(preset, file)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise PresetError(f"preset {preset.name!r} has no record that a passport can be made of ({error!r}): train or "
                          "race it again") from None


def _passport(preset: Preset, file: Path | None) -> str:
    model = preset.model
    shift = "" if model.shift is None else f", shift {model.shift:g}"
    lines = [f"## {preset.name}", "",
             f"For **{model.family}** ({model.prediction} prediction, sigma {model.sigma_min:g} to "
             f"{model.sigma_max:g}{shift}), hash `{preset.short_hash}`, licence {preset.licence}, {preset.source}."]
    lines += _published(preset) if "imported" in preset.training else _learned(preset)
    if file is not None:
        lines += [f"File `{file.name}`, SHA-256 `{hashlib.sha256(file.read_bytes()).hexdigest()}`."]
    if preset.scores:
        lines += ["", race_markdown({_row(name, score): score for name in preset.scores
                                     if (score := preset.score(name))})]
    return "\n".join(lines)


def _learned(preset: Preset) -> list[str]:
    """How it was trained, as far as the record says."""
    record = preset.training
    off = record.get("teacher_error")
    off = "" if off is None else f" (doubling its calls moves its results by RMSE {off:.2g})"
    said = [("teacher", f"Teacher {record.get('teacher')}{off}"), ("cfg", f"cfg {range_text(record.get('cfg', 1.0))}"),
            ("pairs", f"{record.get('pairs')} pairs"), ("seed", f"seed {record.get('seed')}"),
            ("mode", f"{record.get('mode')} mode from {record.get('base')}")]
    text = ", ".join(text for key, text in said if key in record)
    if record.get("loras"):
        text += f", with the LoRAs {', '.join(map(str, record['loras']))}"
    if "model_calls" in record:
        text += f"; {record['model_calls']:,} network calls for all its tables, {record.get('seconds', 0):.0f} s"
    return [f"{text}." if text else "How it was made is not recorded.", *_notes(preset)]


def _published(preset: Preset) -> list[str]:
    """What was published, what was added to it, and why this and no other."""
    record = preset.training
    text = f"A {record['imported']}, for {', '.join(map(str, preset.counts))} calls"
    if stretched := record.get("stretched_calls"):
        text += (f"; its authors published {', '.join(map(str, record['published_calls']))}, those for "
                 f"{', '.join(map(str, stretched))} are interpolated, log-linear in the index as the hosts do it")
    return [f"{text}.", *_notes(preset)]


def _notes(preset: Preset) -> list[str]:
    notes = [str(preset.training[key]) for key in ("evidence", "note") if key in preset.training]
    if not preset.recommended:
        notes.append("Not recommended: a classical solver did better in its race.")
    elif preset.lost:
        notes.append(f"Not recommended: {', '.join(preset.lost)}; there a classical solver did better in the race.")
    return [f"{note[0].upper()}{note[1:].rstrip('.')}." for note in notes]


def _row(name: str, score: dict) -> str:
    return f"{score['cfg']:g} cfg, {name[5:]} calls" if name.startswith("calls") else name
