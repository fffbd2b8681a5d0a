"""solver_presets/README.md: what ships, for which models, where each number comes from and what was measured.

    python -m tests.bench.passports
"""

from __future__ import annotations

from s4s.s4s_nodes.core import Preset, preset_file
from s4s.s4s_nodes.library import shipped_folder
from s4s.training.benchmark.passports import passport

PAGE = shipped_folder() / "README.md"
TABLE = "| | for | calls | what it is | measured |"
TRAINED = """The distance is the RMSE to a 50-call teacher from the same noise, on seeds no training run uses; "calls to
match" is the number of calls at which the best baseline gets as close.
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


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
