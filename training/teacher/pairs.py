"""Cached pairs: seeds -> (noise, conditions, target)."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..source import SIZE, Source
from .solvers import carried

VALIDATION_SEEDS = 10_000_000       # far from the training seeds, which count up from the run's seed
TEST_SEEDS = 20_000_000             # the race's
FRESH_NOISE = 30_000_000            # added to a seed, for the noise on a window's clean image


@dataclass
class Pairs:
    """Unit noise (n, ...), its conditions, and the teacher's result (n, ...), all on one device.

    clean: for a window below the top, the images (n, ...) that are noised to its first level; None: pure noise.
    """

    noise: Tensor
    extra: dict
    target: Tensor
    clean: Tensor | None = None

    def __len__(self) -> int:
        return len(self.noise)

    def part(self, index) -> "Pairs":
        """The pairs at these positions (a slice or a list)."""
        target, clean = (None if images is None else images[index] for images in (self.target, self.clean))
        return Pairs(self.noise[index], {key: value[index] for key, value in self.extra.items()}, target, clean)

    def start(self, sigma: float, flow: bool) -> Tensor:
        """The states (n, ...) at this level: noise of deviation sigma, on the clean images where there are any."""
        noise = self.noise * sigma
        return noise if self.clean is None else self.clean * (1 - sigma if flow else 1.0) + noise


@torch.no_grad()
def ends(source: Source, table, pairs: Pairs, batch: int = 64, on_call: Callable | None = None) -> Tensor:
    """Where the table carries the pairs' starts (n, ...), in batches. on_call: as in `sample`."""
    parts = [pairs.part(slice(i, i + batch)) for i in range(0, len(pairs), batch)]
    return torch.cat([carried(source, table, some.start(float(table.sigmas[0]), source.flow), some.extra, on_call)
                      for some in parts])


def make_pairs(source: Source, seeds, table, label: str, quiet: bool = False, clean: Tensor | None = None) -> Pairs:
    """Run the teacher on these seeds, with a progress bar in network calls; from clean images where given."""
    pairs = known_pairs(source, seeds, None, clean)
    with tqdm(total=len(pairs) * table.calls, desc=label, unit="call", disable=quiet or None) as bar:
        return replace(pairs, target=ends(source, table, pairs, on_call=lambda i, x, *_: bar.update(len(x))))


def known_pairs(source: Source, seeds, target: Tensor | None, clean: Tensor | None = None) -> Pairs:
    """The pairs of these seeds whose targets were made before."""
    seeds = list(seeds)
    noise = source.noise(seeds, 0 if clean is None else FRESH_NOISE)
    return Pairs(noise, source.extra(seeds), target, clean)


def joined(parts: list[Pairs]) -> Pairs:
    clean = None if parts[0].clean is None else torch.cat([part.clean for part in parts])
    extra = {key: torch.cat([part.extra[key] for part in parts]) for key in parts[0].extra}
    return Pairs(torch.cat([part.noise for part in parts]), extra, torch.cat([part.target for part in parts]), clean)


def of_one_size(pairs: Pairs, count: int) -> Pairs:
    """The first pairs of the same size as the very first, to be shown side by side."""
    sizes = pairs.extra.get(SIZE)
    return pairs.part([i for i in range(len(pairs)) if sizes is None or sizes[i] == sizes[0]][:count])


def rmse(result: Tensor, target: Tensor) -> float:
    """Root of the mean squared difference over everything."""
    return float((result.cpu().double() - target.cpu().double()).square().mean().sqrt())


def errors(result: Tensor, target: Tensor) -> np.ndarray:
    """RMSE of each item, (n,) float64."""
    return (result.cpu().double() - target.cpu().double()).flatten(1).square().mean(1).sqrt().numpy()
