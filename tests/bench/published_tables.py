"""NeuralSolver's published tables on the two bundled models: RMSE to a 50-call teacher, beside classical solvers.

    python tests/bench/published_tables.py [SEEDS]      # 32 seeds: some minutes on one core, 24 lines

Measured (32 seeds, CPU, float32): better than Euler everywhere, and worse than the best of five classical solvers on
a few schedules in 23 of 24 cells. So the importer marks them as not recommended.
"""

from __future__ import annotations

import sys

import torch

from s4s.s4s_nodes import importers
from s4s.s4s_nodes.core import classical, sample, schedules
from s4s.training.demo_models.source import bundled

TABLES = (("digits-flow", "neuralsolver-sit"), ("digits-flow", "neuralsolver-dcn"),
          ("digits-eps", "neuralsolver-ddpm-sd"))
SOLVERS = ("dpmpp_2m", "unipc_bh2_2", "lms_2", "deis_2", "ipndm_2")


def grids(source, calls: int) -> dict:
    """name -> levels."""
    if source.flow:
        return {f"shift_{shift:g}": schedules.linear_flow(calls, shift) for shift in (1.0, 1.5, 2.0)}
    low, high = float(source.levels[0]), source.sigma_max
    return {"time_uniform": schedules.time_uniform(calls, source.levels), "karras": schedules.karras(calls, low, high),
            "sgm_uniform": schedules.sgm_uniform(calls, source.levels),
            "ays_sd1": schedules.published("ays_sd1", calls),
            "gits_1.10": schedules.published("gits_1.10", calls), "gits_1.20": schedules.published("gits_1.20", calls)}


def main(count: int) -> None:
    for model, name in TABLES:
        for cfg in (1.0, 3.0):
            source = bundled(model, cfg=cfg)
            seeds = range(900_000, 900_000 + count)             # no training run uses them
            noise = torch.stack([torch.randn(source.shape, generator=torch.Generator().manual_seed(s)) for s in seeds])
            extra = source.conditions(seeds)

            def end(table):
                with torch.no_grad():
                    return sample(source.denoiser, noise * float(table.sigmas[0]), table, extra)
            fine = schedules.linear_flow(50) if source.flow else schedules.time_uniform(50, source.levels)
            teacher = end(classical.SOLVERS["lms_3" if source.flow else "dpmpp_3m"](fine, source.flow))

            def error(table):
                return float((end(table) - teacher).pow(2).mean().sqrt())
            for calls in (5, 6, 8, 10):
                known = grids(source, calls)
                best = min((error(classical.SOLVERS[solver](levels, source.flow)), f"{solver}, {grid}")
                           for solver in SOLVERS for grid, levels in known.items())
                euler = error(classical.euler(next(iter(known.values())), source.flow))
                print(f"{model} cfg {cfg:g} {name} {calls} calls: {error(importers.make(name).table(calls)):.4f}  "
                      f"euler {euler:.4f}  best classical {best[0]:.4f} ({best[1]})", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 32)
