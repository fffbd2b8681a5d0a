"""What the loop costs beside the network: time and memory a call, ours and theirs in turns in one process.

The network is a no-op that answers a tensor made beforehand, so all that is measured is the sampler's own. Nothing of
tests is imported here: a host's Python runs this file, too (tests/hosts/comfyui/costs.py).
"""

import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from s4s.s4s_nodes.core import Table, classical, sample_table, schedules

SHAPES = ((1, 4, 64, 64), (1, 4, 128, 128), (8, 4, 128, 128), (1, 16, 128, 128), (1, 16, 21, 90, 160))
DTYPES = ("float32", "bfloat16")
CALLS = 8
FROM_LEVELS = "S4S, made from the levels"
GROWTH, GROWN = (4, 8, 16, 32, 50), (1, 16, 128, 128)         # numbers of calls, on which latent


@dataclass(frozen=True)
class Cell:
    """One sampler on one latent.

    microseconds: a call. shares: that time as a share of each of their samplers', the median of the rounds.
    states: what a run holds at once beside its start, as a multiple of the latent.
    """

    shape: tuple
    dtype: str
    calls: int
    sampler: str
    microseconds: float
    shares: dict[str, float]
    states: float
    moved: float
    least: float | None


def of_k_diffusion(sampling) -> dict[str, Callable]:
    """name -> k-diffusion's function, of its module `sampling`."""
    return {name: getattr(sampling, f"sample_{name}") for name in ("dpmpp_2m", "lms")}


def cells(theirs: dict[str, Callable], seconds: float) -> Iterator[Cell]:
    """Every sampler on every latent, and ours and dpmpp_2m with more and more calls, in about so many seconds.

    theirs: name -> a function with k-diffusion's signature.
    """
    places = [(shape, dtype, CALLS) for shape in SHAPES for dtype in DTYPES]
    places += [(GROWN, "float32", calls) for calls in GROWTH if calls != CALLS]
    for place in places:
        yield from measured(*place, theirs, seconds / len(places))


@torch.no_grad()
def measured(shape: tuple, dtype: str, calls: int, theirs: dict[str, Callable], seconds: float) -> Iterator[Cell]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype)) * 14.6
    runs = samplers(theirs, x, calls)
    taken = times(runs, seconds)
    for name, run in runs.items():
        shares = {other: median(mine / its for mine, its in zip(taken[name], taken[other])) for other in theirs}
        with Meter() as meter:
            run()
        yield Cell(shape, dtype, calls, name, median(taken[name]) / calls * 1e6, shares, meter.highest / x.nbytes,
                   meter.moved / x.nbytes / calls, least(table) if (table := tables(calls).get(name)) else None)


def samplers(theirs: dict[str, Callable], x: torch.Tensor, calls: int) -> dict[str, Callable]:
    """name -> a function of no arguments that samples once: theirs, and ours, whose names begin with S4S."""
    sigmas = schedules.karras(calls, 0.03, 14.6)
    levels = torch.from_numpy(sigmas).float()
    answer = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(x.dtype)

    def denoiser(x, sigma, **extra):
        return answer
    # newer ComfyUIs ask the model how to scale noise
    denoiser.inner_model = SimpleNamespace(model_patcher=SimpleNamespace(get_model_object=lambda name: None))

    def their(sampler):
        return lambda: sampler(denoiser, x, levels.clone(), extra_args={}, disable=True)    # uni_pc writes to them

    def our(table):
        return lambda: sample_table(denoiser, x, levels, disable=True, table=table)
    return {**{name: their(sampler) for name, sampler in theirs.items()},
            **{name: our(table) for name, table in tables(calls).items()}, FROM_LEVELS: our(classical.dpmpp_2m)}


def tables(calls: int) -> dict[str, Table]:
    sigmas = schedules.karras(calls, 0.03, 14.6)
    two = classical.dpmpp_2m(sigmas)
    return {"S4S, 2 terms": two, "S4S, 3 terms": learned(sigmas, 3), "S4S, full history": learned(sigmas, calls),
            FROM_LEVELS: two}


def least(table: Table) -> float:
    """States that a call has to read and write: its predictions, the state where it is carried on, the new state."""
    return sum((row.carry != 0) + len(row.terms) + 1 for row in table.rows) / table.calls


def learned(sigmas: np.ndarray, terms: int) -> Table:
    """A table as the trainer makes them: every row carries x and weighs the newest `terms` predictions."""
    calls = len(sigmas) - 1
    weights = np.tril(np.random.default_rng(0).normal(0, 0.3, (calls, calls)))
    weights -= np.tril(weights, -terms)
    weights[-1, -1] += 1 - weights[-1].sum()
    return Table(sigmas, sigmas[:-1], np.ones(calls), np.append(np.full(calls - 1, 0.5), 0.0), weights)


def times(runs: dict[str, Callable], seconds: float) -> dict[str, list[float]]:
    """Seconds of the processor for each, in turns: a busy machine disturbs all alike, and little."""
    taken, began, rounds = {name: [] for name in runs}, time.perf_counter(), 0
    while rounds < 5 or time.perf_counter() - began < seconds:
        rounds += 1
        for name, run in runs.items():
            start = time.process_time()
            run()
            if rounds > 2:                          # the first two warm up
                taken[name].append(time.process_time() - start)
    return taken


class Meter(TorchDispatchMode):
    """Counts the bytes of the tensors made inside it: `held` now, `highest` so far; and `moved`: read and written."""

    def __init__(self):
        super().__init__()
        self.held, self.highest, self.moved, self._known = 0, 0, 0, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given, result = _tensors((args, kwargs)), func(*args, **(kwargs or {}))
        before, made = {id(leaf.untyped_storage()) for leaf in given}, _tensors(result)
        for leaf in made:
            if id(leaf.untyped_storage()) not in before:
                self._count(leaf.untyped_storage())
        if not func.is_view:
            self.moved += sum(leaf.nbytes for leaf in (*given, *made))
        return result

    def _count(self, storage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return

        def gone(_):
            if self._known.pop(key, None) is not None:
                self.held -= size
        self._known[key] = weakref.ref(storage, gone)
        self.held += size
        self.highest = max(self.highest, self.held)


def _tensors(tree) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def ours(found: list[Cell]) -> list[Cell]:
    return [cell for cell in found if cell.sampler.startswith("S4S")]
