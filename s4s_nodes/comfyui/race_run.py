"""Races on the host's own model: tables of a preset against the classical samplers, equal calls, unseen seeds."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Callable

from torch import Tensor

from ...training.denoisers import Source
from ...training.evaluate import Raced, race, strong_pairs, unseen_pairs, window_of, with_scores
from ...training.pairs import Pairs, ends
from ..core.preset import Preset
from ..library import suits
from . import facts
from .denoiser import Scene, inside
from .train_view import Show, painter, unpacked

SHEET = 4                   # images side by side in a sheet
# who takes part first where not all can: what has won races, by turns
SOLVERS = ("dpmpp_2m", "lms_2", "unipc_bh2_2", "ipndm_2", "euler", "deis_2")
SCHEDULES = {False: ("karras", "beta", "gits_1.00", "ays_sd1", "sgm_uniform", "gits_1.10", "kl_optimal"),
             True: ("shift_1.5", "beta", "sgm_uniform", "shift_3", "time_uniform", "shift_2", "kl_optimal")}    # flow


@dataclass(frozen=True)
class Race:
    """What is to be raced: these tables of a preset on these seeds (counted from the range that no training uses),
    against so many classical pairs (0: all that count), for at most so many network calls (0: no limit)."""

    scene: Scene
    preset: Preset
    tables: list
    seeds: range
    opponents: int = 0
    budget: int = 0
    teacher_calls: int = 50


@dataclass(frozen=True)
class Outcome:
    """The preset with its scores, the report, and rows of pictures: quick ones, and latents for a VAE."""

    preset: Preset
    report: str
    shown: dict
    latents: dict


def run_race(wish: Race, show: Show) -> Outcome:
    """Race on the scene's model. Raises ValueError for a preset of another kind of model, or too small a budget."""
    seen = facts.of_model(wish.scene.patcher)
    if reason := suits(wish.preset, seen):
        raise ValueError(f"preset {wish.preset.name!r} cannot be raced on this model: {reason}")

    def work(source: Source) -> Outcome:
        began = time.monotonic()
        show.paint = painter(source.network.guider.inner_model, source.device)
        raced, pairs = race_all(source, wish.preset, wish.tables, wish.seeds, wish.teacher_calls, show,
                                wish.opponents, wish.budget)
        scored = with_scores(wish.preset, {**wish.preset.scores, **{name: r.scores for name, r in raced.items()}})
        lines = [f"{scored.name} ({scored.short_hash}) on this model ({seen.family}), cfg {source.cfg:g}, "
                 f"{len(wish.seeds)} unseen seeds; {source.model_calls:,} network calls, "
                 f"{time.monotonic() - began:.0f} s"]
        for name, result in raced.items():
            lines += ["", f"{name}: {result.verdict}", *table_lines(result, 12)]
        return Outcome(scored, "\n".join(lines), *seen_rows(source, raced, pairs, show))
    return inside(wish.scene, wish.preset.model, work)


def race_all(source: Source, preset: Preset, tables: list, seeds: range, teacher_calls: int, show: Show,
             opponents: int = 0, budget: int = 0) -> tuple[dict[str, Raced], Pairs]:
    """({table: Raced}, the teacher's pairs of whole images) of these tables, against the classical pairs that count."""
    limit = fitting(source, preset, tables, len(seeds), teacher_calls, opponents, budget)
    raced, whole = {}, None
    for name in tables:
        show.say(f"race of {name}: the teacher on {len(seeds)} unseen seeds")
        pairs = told(source, show, lambda: unseen_pairs(source, len(seeds), preset.tables[name],
                                                        teacher_calls=teacher_calls, seed=seeds.start))
        whole = pairs if pairs.clean is None or whole is None else whole
        show.say(f"race of {name} on {len(seeds)} unseen seeds")
        raced[name] = race(source, preset, name, pairs, rivals(source, window_of(source, preset.tables[name]), limit),
                           on_progress=show.counted)
    return raced, whole


def told(source: Source, show: Show, work: Callable):
    """work() with the bar moving at every network call, where the host can interrupt."""
    before = source.model_calls
    source.on_model_calls = lambda images: show.counted(source.model_calls - before, 2 * (source.model_calls - before))
    try:
        return work()
    finally:
        source.on_model_calls = None


def rivals(source: Source, top: float | None, most: int) -> set:
    """The first `most` of the classical (solver, schedule) that count."""
    places = [{name: i for i, name in enumerate(names)} for names in (SOLVERS, SCHEDULES[source.flow])]
    turn = {pair: sum(place.get(name, len(place)) for place, name in zip(places, pair))
            for pair in strong_pairs(source, top)}
    return set(sorted(turn, key=lambda pair: (turn[pair], pair))[:most])


def fitting(source: Source, preset: Preset, tables: list, seeds: int, teacher_calls: int, opponents: int,
            budget: int) -> int:
    """How many opponents the budget allows. Raises ValueError where it is too small for three, with what would do."""
    everyone = len(strong_pairs(source))
    most = min(opponents or everyone, everyone)
    if not budget:
        return most

    def cost(count):
        rounds = max(2, seeds // 8) * count + max(2, seeds // 2) * max(3, count // 5)
        return sum(seeds * teacher_calls + preset.tables[name].calls * (4 * seeds + rounds) for name in tables)
    fits = [count for count in range(3, most + 1) if cost(count) <= budget]
    if not fits:
        raise ValueError(f"a budget of {budget:,} network calls is too small for this race: at least "
                         f"{cost(min(3, most)):,} are needed; or take fewer seeds, or fewer teacher calls")
    return fits[-1]


def seen_rows(source: Source, raced: dict[str, Raced], pairs: Pairs, show: Show) -> tuple[dict, dict]:
    """(name -> quick pictures (n, H, W, 3), name -> latents as a VAE takes them) of the same unseen seeds."""
    base = source.network.guider.inner_model
    rows = sheet_rows(source, raced, pairs)
    return ({name: show.paint(latents) for name, latents in rows.items()},
            {name: unpacked(base, base.process_latent_out(latents.float())) for name, latents in rows.items()})


def sheet_rows(source: Source, raced: dict[str, Raced], pairs: Pairs) -> dict[str, Tensor]:
    """The same unseen seeds by teacher, best classical pair and preset: name -> latents (n, ...)."""
    few = pairs.part(slice(0, SHEET))
    rows = {"teacher": few.target}
    for name, result in raced.items():
        if "_from" in name:
            continue
        calls, best = result.learned.solver.calls, result.best
        rows[f"{calls} calls: {best.name}, the best classical ({result.scores['best_rmse']:.4f})"] = ends(
            source, best.solver, few)
        rows[f"{calls} calls: S4S ({result.scores['rmse']:.4f})"] = ends(source, result.learned.solver, few)
    return rows


def table_lines(result: Raced, shown: int = 6) -> list[str]:
    """The race in rows: RMSE to the teacher, best first; how many were left out of the list."""
    entries = sorted([result.learned, *result.ranked[:shown]], key=lambda entry: entry.rmse)
    names = {id(entry): "S4S" if entry is result.learned else entry.name for entry in entries}
    lines = [f"  {names[id(entry)]:32} {entry.rmse:.4f}  ({len(entry.errors)} seeds)" for entry in entries]
    return [*lines, f"  of {len(result.ranked)} classical pairs that took part"]
