"""Does a table that is used at twice the side gain from the shift that hosts give a larger picture?

    python -m tests.bench.size_shift --data FOLDER --cache FOLDER

data, cache: as of tests.bench.limits, whose tables for flow-emoji it takes (16 x 16, made by `--only flow-emoji`). Its
U-Net also runs at 24 and 32. Prints the RMSE to a 50-call teacher there, of the table on its own levels and moved by
shifts: a level s becomes a s / (1 + (a - 1) s). SD3's authors take 2 for twice the side, ComfyUI's Flux 1.68.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from s4s.s4s_nodes.core import preset_file
from s4s.s4s_nodes.select.adapt import adapted
from s4s.training.benchmark.race import unseen_pairs
from s4s.training.teacher.pairs import ends, errors

from .limits import models

SHIFTS, SIDES, CALLS = (0.8, 1.0, 1.25, 1.68, 2.0), (24, 32), (4, 6, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=32)
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    learned_at = models.source("flow-emoji", options.data, options.cache)
    for side in SIDES:
        source = replace(learned_at, shape=(learned_at.shape[0], side, side))
        pairs = unseen_pairs(source, options.seeds)
        for calls in CALLS:
            table = preset_file.load(options.cache / f"flow-emoji-normal-{calls}.safetensors").table(calls)
            cells = []
            for shift in SHIFTS:
                levels = shift * table.sigmas / (1 + (shift - 1) * table.sigmas)
                off = errors(ends(source, adapted(table, levels, True), pairs), pairs.target)
                cells.append(f"{shift:g}: {np.sqrt(np.mean(off ** 2)):.4f}")
            print(f"{side} x {side}, {calls} calls, by shift  {'  '.join(cells)}", flush=True)


if __name__ == "__main__":
    main()
