"""solver_presets/README.md: what ships, for which models, where each number comes from and what was measured."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ...s4s_nodes.core import Preset, PresetError, preset_file
from .report import race_markdown

SHIPPED = """# Presets that ship

This page is made from the files by `s4s passports --write`; a test checks that it is current.

**We measured none of these presets on a real Stable Diffusion checkpoint.** The presets for a family are noise levels
that others published for it, with a classical solver: a starting point, not a claim. The learned ones are for the two
small digits models that come with S4S. A transfer preset was learned on several small models of one kind, won on each
model that was left out (docs/transfer.md), and runs only if you choose it by name. Measure a preset on your checkpoint
with *S4S Race* or the race in WebUI's tab, or train your own with *S4S Train Preset* or the tab; both then come first.

## What runs without a preset of yours

A preset runs automatically only on the weights it was learned on. For every other model S4S falls back, and says so in
the log, on the node or under the picture, and in the image's metadata:

| model | the fallback at these calls | at others |
|---|---|---|
| SD 1.x | `gits-sd15`, 4 to 12 calls | plain |
| SDXL (eps) | `ays-sdxl`, 4 to 12 calls | plain |
| Flux, Wan, SD3, SD3.5, SD 2.x, v-prediction with or without zero terminal SNR, others | plain | plain |

`oss-flux` and `oss-wan` run only if you choose them by name: on our flow models Optimal Steps' levels ended 1.2 to 4.5
times further away than the plain choice (below).

The transfer presets, learned at cfg 3, run if you choose them by name. On each model that was left out they were this
many times closer than the best baseline: `transfer-v-zsnr` 1.16 to 2.48 (v-prediction with zero terminal SNR; 4,
5, 6 and 8 calls), `transfer-flow` 1.02 to 1.45 (4 and 6), `transfer-eps` 1.05 to 1.34 (6). The last two are narrow.

The plain choice is a classical solver on the model's own levels, with its own shift: UniPC (bh2, order 2) on Karras'
levels with rho 5, the lowest left out; the model's own levels with zero terminal SNR; for flows iPNDM of order 2 on
even, shifted levels. For the last row we know no published levels that beat it, and NeuralSolver's tables, learned on
other flows, lost 23 of 24 races on our small models.

Race published levels on your checkpoint to see whether they beat the plain choice there: their authors compared them
with even times, Karras' levels or Euler's method, never with it. On our small models, which they were not made for,
they win under strong guidance and at very few calls, and lose elsewhere. The table shows how many times closer to a
50-call teacher than the plain choice they end (below 1: further away; cfg 3 unless stated, 6 to 10 seeds, by
`tests/bench/schedule_presets.py`):

| | 4 calls | 6 | 8 | 10 |
|---|---|---|---|---|
| gits-sd15 on digits-eps | 0.89 | 0.66 | 0.43 | 0.32 |
| on a model of 32 x 32 emoji | 1.64 | 1.56 | 0.68 | 0.45 |
| on a model of emoji latents | 0.79 | 0.91 | 0.33 | 0.19 |
| the same, cfg 1 | 0.66 | 0.21 | 0.12 | 0.08 |
| the same, cfg 7 | 1.45 | 1.23 | 1.37 | 1.22 |
| ays-sdxl on digits-eps | 1.05 | 0.75 | 0.54 | 0.51 |
| on a model of 32 x 32 emoji | 1.67 | 1.18 | 0.65 | 0.49 |
| on a model of emoji latents | 0.86 | 0.72 | 0.28 | 0.20 |
| the same, cfg 1 | 0.71 | 0.19 | 0.11 | 0.08 |
| the same, cfg 7 | 1.61 | 1.28 | 1.37 | 1.14 |
| oss-flux on digits-flow | 0.41 | 0.27 | 0.26 | 0.22 |
| on a model of emoji latents | 0.76 | 0.84 | 0.83 | 0.40 |

A distilled checkpoint (Lightning, Turbo, LCM) looks like its family but needs the sampler it was distilled for.
"""

TRAINED = """The distance is the RMSE to a 50-call teacher from the same noise, on seeds no training run uses; "calls to
match" is the number of calls at which the best baseline gets as close.
"""


def passport(preset: Preset, file: Path | None = None) -> str:
    """A preset's provenance, conditions, scores and checksum as Markdown: its part of the page.

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
    said = [("teacher", f"Teacher {record.get('teacher')}{off}"), ("cfg", f"cfg {_span(record.get('cfg', 1.0))}"),
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


def _span(cfg) -> str:
    numbers = cfg if isinstance(cfg, (list, tuple)) else [cfg]
    low, high = numbers[0], numbers[-1]
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def page(folder, head: str = "# Presets\n") -> str:
    """The whole page of a folder of presets. Raises PresetError for a file that cannot be read."""
    files = sorted(Path(folder).glob("*.safetensors"))
    presets = {file: preset_file.load(file) for file in files}
    rows = ["| | for | calls | what it is | measured |", "|---|---|---|---|---|"]
    rows += [f"| [{preset.name}](#{_anchor(preset.name)}) | {preset.model.family}, {preset.model.prediction} | "
             f"{', '.join(map(str, preset.counts))} | {_kind(preset)} | {_measured(preset)} |"
             for preset in presets.values()]
    published = [passport(preset, file) for file, preset in presets.items() if "imported" in preset.training]
    learned = [passport(preset, file) for file, preset in presets.items() if "imported" not in preset.training]
    return "\n".join([head, *rows, "", *(f"{part}\n" for part in published), f"# Learned\n\n{TRAINED}",
                      *(f"{part}\n" for part in learned)])


def _kind(preset: Preset) -> str:
    return str(preset.training.get("imported", "learned"))


def _measured(preset: Preset) -> str:
    if not preset.scores:
        return "not on a checkpoint"
    seeds = min(score["seeds"] for results in preset.scores.values() for score in results.values())
    return f"on {preset.model.family}, {seeds} seeds"


def _anchor(name: str) -> str:
    """GitHub's address of a heading."""
    return "".join(c for c in name.lower().replace(" ", "-") if c.isalnum() or c in "-_")
