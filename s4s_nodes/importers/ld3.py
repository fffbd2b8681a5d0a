"""LD3's schedules (Tong et al. 2024, arXiv 2405.15506): levels and, beside them, the times the network is told.

A file holds 2 (N + 1) times: the solver's, then the network's. It does not name the solver; the run's config.yml
beside it does, else it is taken to be UniPC as in their configurations. No licence to redistribute.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..core import Model, Table, classical
from . import clock, models
from .lower import ADAMS_BASHFORTH, Run, ended
from .restricted import UnreadableFile, array

SOURCE = "LD3, Tong et al. (2024), arXiv 2405.15506; github.com/vinhsuhi/LD3"
_EDM = Model("edm", "x0", 0.002, 80.0, channels=3)
_DEFAULTS = {True: ("uni_pc", 3, "bh1"), False: ("uni_pc", 2, "bh2")}           # exploding?, as in their configs


def table(levels, asked, exploding: bool, solver: str, order: int, variant: str) -> Table:
    """The table for levels (N+1,) of the state and of the network, by one of their solvers.

    A VP sampler's state holds alpha(level) x, and so does what the network is shown, whatever time it is told.
    """
    factor = 1.0 if exploding else float(clock.alpha(levels[-1]))
    scale = np.ones(len(asked) - 1) if exploding else clock.alpha(levels[:-1]) / clock.alpha(asked[:-1])
    if solver == "ipndm":
        return ended(_ipndm(levels, asked, scale, order), factor)
    # data prediction: D is what the network answers, so the classical table holds with another question
    solved = (classical.SOLVERS["euler"](levels) if solver == "euler"
              else classical.unipc(levels, order=order, kind=variant))
    return ended(replace(solved, query=asked[:-1], scale=scale), factor)


def _ipndm(levels, asked, scale, order: int) -> Table:
    """x' = x + (t' - t) sum b_j eps_j with the noise the network sees at the time it is told, newest first."""
    run, noises = Run(levels[0], len(levels) - 1), []
    x = run.start
    for i, (level, after) in enumerate(zip(levels[:-1], levels[1:])):
        answer = run.call(x, asked[i], level, scale[i])
        noises = [(scale[i] * x - answer) / asked[i], *noises][:order]
        x = x + (after - level) * sum(b * noise for b, noise in zip(ADAMS_BASHFORTH[len(noises)], noises))
    return run.finish(x)


def fits(content) -> bool:
    """Whether a file's content is one of LD3's."""
    return isinstance(content, dict) and "best_t_steps" in content


def read(content: dict, model: Model | None, config: dict) -> tuple[Table, Model, dict]:
    """(table, model, record) of a file's content; config holds what config.yml says, if anything."""
    both = array(content.get("best_t_steps"))
    if both is None or both.ndim != 1 or len(both) % 2 or not 4 <= len(both) <= 202 or not (both > 0).all():
        raise UnreadableFile(f"holds times of shape {None if both is None else both.shape}: expected 2 (N + 1) "
                             "positive numbers")
    at, queries = np.split(both, 2)
    exploding = at[0] > 1.5                                   # network times of VP models end at 1
    assumed = model is None
    model = model or (_EDM if exploding else models.SD15)
    levels, asked = (at, queries) if exploding else (models.clock_of(model)(each) for each in (at, queries))
    solver, order, variant = _DEFAULTS[bool(exploding)]
    solver, order, variant = (config.get("solver_name", solver), config.get("order", str(order)),
                              config.get("unipc_variant", variant))
    if solver not in ("uni_pc", "ipndm", "euler") or order not in ("1", "2", "3", "4") or variant not in ("bh1", "bh2"):
        raise UnreadableFile(f"was learned for the solver {solver[:40]!r} of order {order[:10]!r}: only uni_pc, ipndm "
                             "and euler can be read; use its levels with a classical solver")
    learned = table(levels, asked, bool(exploding), solver, int(order), variant)
    record = {"solver": f"{solver}, order {order}" + (f", {variant}" if solver == "uni_pc" else ""),
              "solver_known": "solver_name" in config}
    if "scale" in config:
        record["cfg"] = float(config["scale"])
    return learned, model, {**record, **({"assumed_model": model.family} if assumed else {})}


def config_beside(path) -> dict:
    """The plain `key: value` lines of the run's config.yml, as text; {} where there is none."""
    file = Path(path).with_name("config.yml")
    if not file.is_file() or file.stat().st_size > 2 ** 16:
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    pairs = (line.partition(":") for line in lines if line[:1].isalpha() and ":" in line)
    return {key.strip(): value.strip().strip("'\"") for key, _, value in pairs if value.strip() not in ("", "null")}
