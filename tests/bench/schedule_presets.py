"""Published grids with classical solvers, beside what a host runs without a preset: which pairs are worth shipping.

    python tests/bench/schedule_presets.py MODEL[,MODEL...] [SEEDS] [CACHE]

MODEL: digits-eps, digits-flow, emoji-sd3, or one of the transfer study's own (CACHE holds its folder "models"). NAME-ve
is a rectified flow on Stable Diffusion's noise levels, x / (1 - s) = x0 + sigma noise with sigma = s / (1 - s): so
emoji-sd3-ve is a model of latents for the grids that were made for latents. 16 seeds take half an hour on one core.
Each line is a pair: how many times closer to a 50-call teacher than the plain choice (select/dispatch.py without a
preset) it ends, by calls; for each cfg, and as the geometric mean over all.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from s4s.s4s_nodes.core import classical, schedules  # noqa: E402
from s4s.s4s_nodes.select import ModelFacts, levels_for  # noqa: E402
from s4s.s4s_nodes.select.dispatch import fall_back  # noqa: E402
from s4s.training.benchmark.race import unseen_pairs  # noqa: E402
from s4s.training.teacher.pairs import ends, errors  # noqa: E402
from tests.bench.transfer import models  # noqa: E402

CALLS, CFGS = range(4, 13), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0)
SOLVERS = ("euler", "dpmpp_2m", "unipc_bh2_2", "ipndm_2")
PUBLISHED = {False: ("ays_sd1", "ays_sdxl", "gits_1.10", "gits_1.20"), True: ("oss_flux", "oss_wan", "oss_chroma")}


def source(name: str, cfg: float, cache: Path):
    """The model under guidance; NAME-ve: a flow on Stable Diffusion's levels."""
    own = name.removesuffix("-ve")
    made = models.source(own, cfg, cache, 32 if own in ("emoji-eps", "emoji-flow") else 0)
    if not name.endswith("-ve"):
        return made
    flow, levels = made.network, schedules.sd_levels()

    def network(x, sigma, **extra):
        level = sigma / (1 + sigma)
        return flow(x * (1 - level)[:, None, None, None].to(x.dtype), level, **extra)
    made.network, made.levels = network, levels
    made.model = replace(made.model, prediction="eps", sigma_min=float(levels[0]), sigma_max=float(levels[-1]),
                         shift=None)
    return made


def facts_of(made) -> ModelFacts:
    """What a host would see of the model, without its name."""
    about = made.model
    return replace(ModelFacts.of(about), family="unknown")


def grids(made, facts: ModelFacts, calls: int) -> dict:
    """name -> levels, "plain" being what a host takes without a preset."""
    names = () if facts.zero_terminal_snr else PUBLISHED[facts.flow]
    known = {name: schedules.published(name, calls) for name in names}
    if not facts.flow and not facts.zero_terminal_snr:
        known["karras"] = schedules.karras(calls, float(made.levels[0]), made.sigma_max)
    known["sgm_uniform"] = schedules.sgm_uniform(calls, made.levels)
    return {**known, "plain": levels_for(None, facts, calls)}


def measured(name: str, cfg: float, seeds: int, cache: Path) -> dict:
    """{(grid, solver): {calls: times closer than the plain choice}}."""
    made = source(name, cfg, cache)
    facts, pairs, found = facts_of(made), unseen_pairs(made, seeds), {}

    def rmse(solver) -> float:
        return float(np.sqrt(np.mean(errors(ends(made, solver, pairs), pairs.target) ** 2)))
    for calls in CALLS:
        plain = rmse(fall_back(levels_for(None, facts, calls), facts, "").table)
        for grid, levels in grids(made, facts, calls).items():
            for solver in SOLVERS:
                off = rmse(classical.SOLVERS[solver](levels, facts.flow))
                found.setdefault((grid, solver), {})[calls] = plain / off
    return found


def table(title: str, runs: list[dict]) -> None:
    """One line a pair, the geometric mean over the runs."""
    print(f"\n{title:<32} {' '.join(f'{n:>5}' for n in CALLS)}    all")
    for pair in runs[0]:
        logs = np.array([[np.log(found[pair][n]) for n in CALLS] for found in runs])
        cells = " ".join(f"{x:5.2f}" for x in np.exp(logs.mean(0)))
        print(f"{', '.join(pair):>32} {cells}  {np.exp(logs.mean()):5.2f}", flush=True)


def main(names: list[str], seeds: int, cache: Path) -> None:
    torch.set_grad_enabled(False)
    for name in names:
        runs = []
        for cfg in CFGS:
            runs.append(measured(name, cfg, seeds, cache))
            table(f"{name}, cfg {cfg:g}, {seeds} seeds", runs[-1:])
        table(f"{name}, all cfgs", runs)


if __name__ == "__main__":
    main(sys.argv[1].split(","), int(sys.argv[2]) if len(sys.argv) > 2 else 16,
         Path(sys.argv[3] if len(sys.argv) > 3 else "."))
