"""What does a table that was learned at half the side lose at full size, beside one that was learned there?

    python -m tests.bench.half_size --data FOLDER [--cache FOLDER] [--write]

data, cache: as of tests.bench.transfer, whose model emoji-flow was trained on pictures of 16, 24 and 32 pixels; it is
trained first where the cache lacks it (20 minutes on one core). The trainer learns a table at 16 x 16 and one at 32 x
32, with as many network calls. All are measured at 32 x 32 at cfg 3, by the RMSE to a fine teacher, as is the best
classical solver on any schedule, chosen on these very seeds. --write puts the table into docs/how-to/several-sizes.md.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from s4s.s4s_nodes.core import Table, preset_file
from s4s.s4s_nodes.core.files import write_atomically
from s4s.training.baselines.halving import searched
from s4s.training.baselines.measure import baselines
from s4s.training.benchmark.race import unseen_pairs
from s4s.training.benchmark.verdict import interval, pooled
from s4s.training.config import Config
from s4s.training.distil import distil
from s4s.training.source import Source
from s4s.training.teacher.pairs import ends, errors
from tests.bench.limits.__main__ import EFFORT
from tests.bench.pages import placed
from tests.bench.transfer import models, train

ROOT = Path(__file__).resolve().parents[2]
CFG, HALF, FULL, SEEDS, CALLS = 3.0, 16, 32, 48, (4, 6, 8)
MARKS = ("<!-- measured: tests/bench/half_size.py -->", "<!-- end -->")


def learned(source: Source, calls: int, path: Path) -> Table:
    """The trainer's table for the source, kept in the file."""
    if not path.is_file():
        with tempfile.TemporaryDirectory() as folder:
            preset_file.save(distil(source, Config.of(calls=(calls,)), folder, say=print), path)
    return preset_file.load(path).tables[f"calls{calls}"]


def row(name: str, calls: int, cache: Path) -> dict:
    """Errors by seed at full size: of the best baseline, of the table learned at half the side, and there."""
    full = models.source(name, CFG, cache, FULL)
    pairs = unseen_pairs(full, SEEDS)
    ranked = searched(full, baselines(full, calls), pairs, EFFORT)
    best = min((entry for entry in ranked if len(entry.errors) == SEEDS), key=lambda entry: entry.rmse)
    off = {}
    for side in (HALF, FULL):
        path = cache / f"half-{name}-{side}-{calls}.safetensors"
        table = learned(models.source(name, CFG, cache, side), calls, path)
        off[side] = errors(ends(full, table, pairs), pairs.target)
    return {"model": name, "calls": calls, "best": best.name, "baseline": best.errors, **off}


def page(rows: list[dict]) -> str:
    lines = [f"| model | calls | best baseline | learned at {HALF} x {HALF} | learned at {FULL} x {FULL} "
             "| times closer than the baseline: half, full [95 %] |", "|---|" + "---|" * 5]
    for one in rows:
        ratios = ", ".join(f"{pooled(one['baseline']) / pooled(one[side]):.2f} "
                           "[{:.2f}, {:.2f}]".format(*interval(one["baseline"], one[side])) for side in (HALF, FULL))
        lines.append(f"| {one['model']} | {one['calls']} | {pooled(one['baseline']):.4f} ({one['best']}) | "
                     f"{pooled(one[HALF]):.4f} | {pooled(one[FULL]):.4f} | {ratios} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "s4s-transfer")
    parser.add_argument("--only", default="emoji-flow", help="models of tests.bench.transfer that know both sizes")
    parser.add_argument("--calls", default=",".join(map(str, CALLS)), help="numbers of calls")
    parser.add_argument("--write", action="store_true", help="write the table into docs/how-to/several-sizes.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    rows = []
    for name in options.only.split(","):
        with torch.enable_grad():
            train.train(name, options.data, options.cache)
        for calls in map(int, options.calls.split(",")):
            rows.append(row(name, calls, options.cache))
            print(page(rows[-1:]).splitlines()[-1], flush=True)
    if options.write:
        path = ROOT / "docs/how-to/several-sizes.md"
        write_atomically(path, placed(path.read_text(), MARKS, page(rows)).encode())


if __name__ == "__main__":
    main()
