"""solver_presets/README.md: what ships, for which models, where each number comes from and what was measured.

    python -m tests.bench.passports
"""

import hashlib
from pathlib import Path

from s4s.s4s_nodes.core import Preset, preset_file
from s4s.s4s_nodes.core.lists import range_text
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.benchmark.verdict import within

PAGE = shipped_folder() / "README.md"
TABLE = "| | for | calls | what it is | measured |"
TRAINED = """The distance is the RMSE to a 50-call teacher from the same noise, on seeds that no training uses. "Calls
to match" is the number of calls that the best baseline needs to get as close.
"""


def page() -> str:
    """The whole page; what it says above the table stays."""
    files = sorted(PAGE.parent.glob("*.safetensors"))
    head = PAGE.read_text(encoding="utf-8").partition(TABLE)[0].removesuffix("\n")
    presets = {file: preset_file.load(file) for file in files}
    rows = [TABLE, "|---|---|---|---|---|"]
    rows += [f"| [{preset.name}](#{_anchor(preset.name)}) | {preset.model.family}, {preset.model.prediction} | "
             f"{', '.join(map(str, preset.counts))} | {preset.training.get('imported', 'learned')} | "
             f"{_measured(preset)} |" for preset in presets.values()]
    published = [passport(preset, file) for file, preset in presets.items() if "imported" in preset.training]
    learned = [passport(preset, file) for file, preset in presets.items() if "imported" not in preset.training]
    return "\n".join([head, *rows, "", *(f"{part}\n" for part in published), f"# Learned\n\n{TRAINED}",
                      *(f"{part}\n" for part in learned)])


def _measured(preset: Preset) -> str:
    if not preset.scores:
        return "not on a checkpoint"
    seeds = min(score["seeds"] for results in preset.scores.values() for score in results.values())
    return f"on {preset.model.family}, {seeds} seeds"


def _anchor(name: str) -> str:
    """GitHub's address of a heading."""
    return "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c in "-_")


def passport(preset: Preset, file: Path) -> str:
    """A preset's provenance, conditions, scores and checksum as Markdown."""
    model = preset.model
    shift = "" if model.shift is None else f", shift {model.shift:g}"
    lines = [f"## {preset.name}", "",
             f"For **{model.family}**: {model.prediction} prediction, sigma {model.sigma_min:g} to "
             f"{model.sigma_max:g}{shift}.", ""]
    facts = _published(preset) if "imported" in preset.training else _learned(preset)
    facts += [f"License: {preset.licence}. Source: {preset.source.rstrip('.')}.",
              f"Hash `{preset.short_hash}`. File `{file.name}`, SHA-256 "
              f"`{hashlib.sha256(file.read_bytes()).hexdigest()}`."]
    lines += [f"* {fact}" for fact in facts]
    if preset.scores:
        lines += ["", race_markdown({_row(name, score): score for name in preset.scores
                                     if (score := preset.score(name))})]
    return "\n".join(lines)


def _learned(preset: Preset) -> list[str]:
    """How it was trained, as far as the record says."""
    record = preset.training
    off = record.get("teacher_error")
    off = "" if off is None else f" (doubling its calls moves its results by RMSE {off:.2g})"
    parts = [("teacher", f"Teacher: {record.get('teacher')}{off}"),
             ("cfg", f"cfg {range_text(record.get('cfg', 1.0))}"),
             ("pairs", f"{record.get('pairs')} pairs"), ("seed", f"seed {record.get('seed')}"),
             ("mode", f"{record.get('mode')} mode from {record.get('base')}")]
    text = ", ".join(part for key, part in parts if key in record)
    lines = [f"{text}." if text else "How it was made is not recorded."]
    if "model_calls" in record:
        lines += [f"{record['model_calls']:,} network calls for all its tables, {record.get('seconds', 0):.0f} s."]
    return [*lines, *_notes(preset)]


def _published(preset: Preset) -> list[str]:
    """What was published, what was added to it, and why this and no other."""
    record = preset.training
    text = f"A {record['imported']}, for {', '.join(map(str, preset.counts))} calls."
    if stretched := record.get("stretched_calls"):
        text += (f" Its authors published {', '.join(map(str, record['published_calls']))} calls. Those for "
                 f"{', '.join(map(str, stretched))} are interpolated, log-linearly in the index, as the hosts do it.")
    return [text, *_notes(preset)]


def _notes(preset: Preset) -> list[str]:
    notes = [str(preset.training[key]) for key in ("evidence", "note") if key in preset.training]
    if not preset.recommended:
        notes.append("Not recommended: a classical solver did better in its race")
    elif preset.lost:
        notes.append(f"Not recommended: {', '.join(preset.lost)}. A classical solver did better in their race")
    return [f"{note[0].upper()}{note[1:].rstrip('.')}." for note in notes]


def _row(name: str, score: dict) -> str:
    return f"cfg {score['cfg']:g}, {name[5:]} calls" if name.startswith("calls") else name


def race_markdown(scores: dict) -> str:
    """The summary of several tables as a Markdown table; scores: row label -> verdict.summary."""
    titles = ["", "S4S RMSE", "best baseline: RMSE", "times closer [95 %]", "S4S median", "best baseline: median",
              "times closer [95 %]", "calls to match"]
    crowds = bool(scores) and all("ratio_frechet" in s for s in scores.values())
    titles += ["Fréchet distance: S4S", "best baseline", "times closer [95 %]"] if crowds else []
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for label, s in scores.items():
        match = s.get("classical_calls_to_match") or (
            f"more than {s['most_calls_tried']}" if "most_calls_tried" in s else "not measured")
        cells = [label, f"{s['rmse']:.4f}", f"{s['best_classical']}: {s['best_rmse']:.4f}", _times(s, "ratio"),
                 f"{s['median']:.4f}", f"{s['best_classical_by_median']}: {s['best_median']:.4f}",
                 _times(s, "ratio_median"), str(match)]
        if crowds:
            cells += [f"{s['frechet']:.3f}", f"{s['best_classical_by_frechet']}: {s['best_frechet']:.3f}",
                      _times(s, "ratio_frechet")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _times(scores: dict, key: str) -> str:
    moves = dict(zip(("ratio", "ratio_median"), scores.get("teacher_moves", ())))
    if within(scores[key], moves.get(key, 1.0)):
        return "within the teacher's error"
    low, high = scores[f"{key}_95"]
    return f"**{scores[key]:.2f}** [{low:.2f}, {high:.2f}]"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
