"""How far a learned table may be moved, and whether its head is a latent: the numbers behind select/dispatch.py.

    python -m tests.bench.windows [starts levels heads fallback] [--model digits-eps] [--seeds 24]

Mean RMSE to a fine solver on the bundled models at guidance 3. `starts` learns small window tables first (denoise 0.5
and 0.7, 32 pairs); the rest uses the presets that ship.
"""

import argparse
from functools import partial

import numpy as np
import torch

from s4s.s4s_nodes.core import classical, preset_file, schedules
from s4s.s4s_nodes.library import shipped_folder
from s4s.s4s_nodes.select.adapt import adapted, distance, from_start, head
from s4s.training.baselines.schedules import schedules_for
from s4s.training.config import Config
from s4s.training.demo_models.source import bundled
from s4s.training.optimizers.gauss_newton import learn
from s4s.training.optimizers.state import State
from s4s.training.parametrization.parameters import Parameters
from s4s.training.teacher.pairs import ends, errors, make_pairs
from s4s.training.teacher.solvers import AUTO, carried, teacher_table

SOLVERS = ("dpmpp_2m", "unipc_bh2_2", "lms_2", "ipndm_2", "deis_2")
MOVES = (0.5, 0.7, 0.85, 1.0, 1.2, 1.4, 2.0)            # of a start's noise-to-signal ratio


class Bench:
    """A bundled model, its preset, and what every measurement asks of them."""

    def __init__(self, name: str, seeds: int):
        self.source, self.seeds = bundled(name, 3.0), seeds
        self.flow, self.name = self.source.flow, name
        self.preset = preset_file.load(shipped_folder() / f"{name}-cfg3.safetensors")
        self.classical = partial(self._classical, "ipndm_2" if self.flow else "unipc_bh2_2")
        self.images: dict = {}

    def _classical(self, name, levels):
        return classical.SOLVERS[name](np.array(levels), flow=self.flow)

    def pairs(self, first: int, count: int, start: float | None = None):
        """Pairs from pure noise, or from finished images noised to a start."""
        seeds = range(first, first + count)
        if start is None:
            return make_pairs(self.source, seeds, teacher_table(self.source, AUTO, 40), "", quiet=True)
        if seeds not in self.images:
            self.images[seeds] = self.pairs(first, count).target
        fine = teacher_table(self.source, AUTO, 40, start)
        return make_pairs(self.source, seeds, fine, "", quiet=True, clean=self.images[seeds])

    def error(self, table, pairs) -> float:
        return float(errors(ends(self.source, table, pairs), pairs.target).mean())

    def curve_from(self, start: float, calls: int) -> np.ndarray:
        """The preset's curve from a start on, for so many calls: what a host hands over."""
        fine = schedules.stretched(self.preset.curve, 1000, self.flow)
        return schedules.stretched(np.append(start, fine[fine < start]), calls, self.flow)

    def window(self, denoise: float, calls: int):
        """A table learned for the part of the curve that a denoise strength leaves."""
        start = schedules.stretched(self.preset.curve, 1000, self.flow)[round(1000 * (1 - denoise))]
        parameters = Parameters(self.curve_from(start, calls), flow=self.flow)
        vector = parameters.initial()
        state = learn(self.source, parameters, self.pairs(0, 32, start), self.pairs(1000, 16, start),
                      Config.of(iterations=5), State(vector, vector.clone()))
        return parameters.frozen(state.best)


def starts(bench: Bench) -> None:
    """Window tables, and full ones, from starts that are not their own; against the best of five classical."""
    titles = ("start", "move", "moved", "curve", "fallback", "best of 5", "ratio")
    print(f"{'table':22} " + " ".join(f"{title:>{width}}" for title, width in zip(titles, (6, 5, 7, 7, 8, 9, 5))))
    tables = [(f"window {d:g}, {n} calls", bench.window(d, n)) for d in (0.5, 0.7) for n in (4, 6)]
    tables += [(f"full, {n} calls", bench.preset.table(n)) for n in (4, 6)]
    for label, table in tables:
        own = float(table.sigmas[0])
        for move in MOVES:
            start = own * move / (1 - own + own * move) if bench.flow else own * move
            if start > bench.source.sigma_max * 1.001 or (bench.flow and own == 1 and move != 1):
                continue
            pairs, given = bench.pairs(20_000_000, bench.seeds, start), bench.curve_from(start, table.calls)
            found = [bench.error(adapted(table, levels, bench.flow), pairs)
                     for levels in (from_start(table.sigmas, start, bench.flow), given)]
            simple = [bench.error(bench._classical(name, given), pairs) for name in SOLVERS]
            print(f"{label:22} {start:6.3f} {move:5g} {found[0]:7.4f} {found[1]:7.4f} "
                  f"{bench.error(bench.classical(given), pairs):8.4f} {min(simple):9.4f} {min(simple) / found[0]:5.2f}",
                  flush=True)


def levels(bench: Bench) -> None:
    """Full tables on other levels, on the way to and at the hosts' schedules, by their distance."""
    pairs, known, rows = bench.pairs(20_000_000, bench.seeds), schedules_for(bench.source), []
    for calls in (4, 6, 8):
        table = bench.preset.table(calls)
        for name in ("simple", "time_uniform", "beta", "karras", "exponential"):
            for share in (0.1, 0.2, 0.4, 0.7, 1.0):
                there = known[name](calls)
                there[1:-1] = table.sigmas[1:-1] ** (1 - share) * there[1:-1] ** share
                there[0] = table.sigmas[0]
                simple = min(bench.error(bench._classical(solver, there), pairs) for solver in SOLVERS)
                rows.append((distance(there, table.sigmas), calls, name, share,
                             bench.error(adapted(table, there, bench.flow), pairs), simple))
    print(f"{'away':>6} {'calls':>5} {'toward':12} {'share':>5} {'moved':>7} {'best of 5':>9} {'ratio':>5}")
    for far, calls, name, share, moved, simple in sorted(rows):
        print(f"{far:6.3f} {calls:5} {name:12} {share:5g} {moved:7.4f} {simple:9.4f} {simple / moved:5.2f}")


def heads(bench: Bench) -> None:
    """The first rows of a table against those of a classical solver, and who goes on from there."""
    pairs = bench.pairs(20_000_000, bench.seeds)
    print(f"{'head of':>8} {'calls':>5}   {'head':10} {'then classical':>14} {'then 40 calls':>13}")
    for of in (4, 6, 8):
        table = bench.preset.table(of)
        for calls in sorted({2, of - 2}):
            begun = {"learned": head(table, calls, bench.flow), "classical": bench.classical(table.sigmas[:calls + 1])}
            rest = (bench.classical(table.sigmas[calls:]),
                    teacher_table(bench.source, AUTO, 40, float(table.sigmas[calls])))
            for label, first in begun.items():
                with torch.no_grad():
                    middle = carried(bench.source, first, pairs.noise * float(table.sigmas[0]), pairs.extra)
                    done = [errors(carried(bench.source, then, middle, pairs.extra), pairs.target).mean()
                            for then in rest]
                print(f"{of:8} {calls:5}   {label:10} {done[0]:14.4f} {done[1]:13.4f}", flush=True)


def fallback(bench: Bench) -> None:
    """Five classical solvers on the preset's stretched curve and on the hosts' schedules."""
    pairs, known = bench.pairs(20_000_000, bench.seeds), schedules_for(bench.source)
    known["curve"] = partial(schedules.stretched, bench.preset.curve, flow=bench.flow)
    print(f"{'schedule':13} {'calls':>5} " + " ".join(f"{name:>11}" for name in SOLVERS))
    ratios = []
    for name in ("curve", "simple", "time_uniform", "beta", "shift_2" if bench.flow else "karras"):
        for calls in (4, 6, 8, 16):
            found = np.array([bench.error(bench._classical(s, known[name](calls)), pairs) for s in SOLVERS])
            ratios.append(found / found.min())
            print(f"{name:13} {calls:5} " + " ".join(f"{value:11.4f}" for value in found), flush=True)
    print(f"{'mean ratio to the best':19}" + " ".join(f"{v:11.3f}" for v in np.exp(np.log(ratios).mean(0))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {part.__name__: part for part in (starts, levels, heads, fallback)}
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="what to measure; everything otherwise")
    parser.add_argument("--model", default="", choices=["", "digits-eps", "digits-flow"], help="both otherwise")
    parser.add_argument("--seeds", type=int, default=24)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in [options.model] if options.model else ["digits-eps", "digits-flow"]:
        bench = Bench(name, options.seeds)
        for part in options.parts or parts:
            print(f"\n{name}, {part}: {parts[part].__doc__}")
            parts[part](bench)


if __name__ == "__main__":
    main()
