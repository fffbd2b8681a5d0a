"""Many samplings at once and one after another: each result is the one made alone, and memory stays flat."""

import gc
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import torch

from s4s.s4s_nodes.core import mixture, sample
from s4s.s4s_nodes.library import Library, ModelFacts, Request, select
from tests.bench.proof.attack import Attack
from tests.bench.proof.forked import Child

THREADS, SAMPLINGS, MOST_GROWTH = 16, 1000, 2.0         # MB


@cache
def jobs() -> list[tuple]:
    """(preset, table name) of everything that ships."""
    return [(preset, name) for preset in Library([]).named().values() for name in preset.tables]


def sampled(job: tuple, seed: int) -> torch.Tensor:
    """A choice as a host makes it, and what it samples, (4, 16, 2)."""
    preset, name = job
    table = preset.tables[name]
    found = select(Request(ModelFacts.of(preset.model), [preset], levels=table.sigmas, cfg=3.0, named=preset))
    noise = torch.randn(4, 16, 2, generator=torch.Generator().manual_seed(seed))
    denoiser = partial(mixture, flow=preset.model.flow)
    return sample(lambda x, sigma: denoiser(x.flatten(0, 1), sigma.repeat_interleave(16)).unflatten(0, (4, 16)),
                  noise * float(found.table.sigmas[0]), found.table)


def threads(chance: random.Random) -> Iterator[str | None]:
    """Sixteen threads sample different presets at once."""
    with ThreadPoolExecutor(THREADS) as pool:
        while True:
            some = [(chance.choice(jobs()), chance.randrange(1000)) for _ in range(THREADS)]
            alone = [sampled(*one) for one in some]
            for (job, seed), expected, got in zip(some, alone, pool.map(lambda one: sampled(*one), some)):
                yield None if torch.equal(expected, got) else f"{job[0].name} {job[1]}, seed {seed}: another result"


def memory(chance: random.Random) -> Iterator[str | None]:
    """A thousand samplings one after another, after a hundred that warm up."""
    while True:
        seed = chance.random()
        done = Child(lambda: growth(random.Random(seed))).result()
        yield None if done.get("result", 1e9) < MOST_GROWTH else f"memory grew by {done} MB"


def growth(chance: random.Random) -> float:
    """MB that are held more after a thousand samplings than before."""
    held = []
    for count in (100, SAMPLINGS):
        for _ in range(count):
            sampled(chance.choice(jobs()), chance.randrange(1000))
        gc.collect()
        held.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
    return held[1] - held[0]


ATTACKS = [
    Attack("load", f"{THREADS} threads sample different presets", "each as alone, bit for bit", threads),
    Attack("load", f"{SAMPLINGS:,} samplings one after another", f"memory grows by less than {MOST_GROWTH:g} MB",
           memory),
]
