"""The relaxed objective: a pair's start may move a little, so that few calls can meet the teacher's end.

    min over tables of E [ min over x' in B_r(x) of d(student(x'), teacher(x)) ]    (Frankel et al. 2025, eq. 7 and 9)

x' lives in unit noise, before it is multiplied by the first level. r = relaxed * 0.001 d / N^2 for d numbers per sample
and N calls: LD3's rule in its code (Tong et al., arXiv 2405.15506). The paper's own is r ~ m^(-5/2) for m free numbers,
with a constant it does not print; its tables of order 3 have m = 3N - 3, where the two rules fall alike. For a table
with more numbers the paper's rule is `relaxed` = ((3N - 3) / m)^(5/2): 0.16 for the 31 numbers of 6 calls.

An iteration takes the gradients in the free numbers and in x' from one backward pass, moves both, and keeps a sample's
new x' where it lowers that sample's distance under the new numbers (LD3). Inference and validation start from plain x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..parametrization.parameters import Parameters
from ..source import Source
from ..teacher.pairs import Pairs
from .objective import distances

ANCHOR = 1e-3               # LD3's radius: this times d / N^2
RATE = 12.0                 # of the plain gradient step on x', over N: LD3's, for each sample's own loss
MOVED = "relaxed"           # the moved starts in State.memory


@dataclass(frozen=True)
class Offer:
    """Moved starts of the pairs at these places, to be kept where they lower the distance before, (B,)."""

    places: list
    moved: Pairs
    before: Tensor


@dataclass(frozen=True)
class TrustRegion:
    """Balls of this radius, in unit noise and the norm over the whole sample, around the pairs' noise.

    The moved starts of all pairs (n, ...) are in State.memory under MOVED, on the CPU.
    """

    source: Source
    parameters: Parameters
    pairs: Pairs
    objective: Callable
    radius: float

    def loss_gradient_offer(self, vector: Tensor, memory: dict, places: list) -> tuple[float, Tensor, Offer]:
        """(mean objective from the moved starts, its gradient in the free numbers, where the starts would go next)."""
        plain = self.pairs.part(places)
        free, start = vector.detach().requires_grad_(), self._starts(memory, plain, places).requires_grad_()
        with torch.enable_grad():
            losses = distances(self.source, self.parameters, free, replace(plain, noise=start), self.objective)
            gradient, slope = torch.autograd.grad(losses.mean(), (free, start))
        moved = start.detach() - RATE / self.parameters.calls * len(places) * slope
        moved = replace(plain, noise=projected(moved, plain.noise, self.radius))
        return float(losses.detach().mean()), gradient, Offer(places, moved, losses.detach())

    @torch.no_grad()
    def kept(self, vector: Tensor, memory: dict, offer: Offer) -> dict:
        """The memory with the offered starts of those samples that come closer under these numbers."""
        after = distances(self.source, self.parameters, vector, offer.moved, self.objective)
        closer = (after < offer.before).cpu()
        starts = memory[MOVED].clone() if MOVED in memory else self.pairs.noise.cpu().clone()
        starts[torch.tensor(offer.places)[closer]] = offer.moved.noise.cpu()[closer]
        return {**memory, MOVED: starts}

    def _starts(self, memory: dict, plain: Pairs, places: list) -> Tensor:
        return memory[MOVED][places].to(plain.noise.device) if MOVED in memory else plain.noise.clone()


def trust_region(source: Source, parameters: Parameters, pairs: Pairs, objective: Callable,
                 relaxed: float) -> TrustRegion | None:
    """The trust region of this setting; None for 0."""
    radius = relaxed * ANCHOR * math.prod(source.shape) / parameters.calls ** 2
    return TrustRegion(source, parameters, pairs, objective, radius) if relaxed else None


def projected(moved: Tensor, centre: Tensor, radius: float) -> Tensor:
    """The nearest points (B, ...) of the balls around the centres."""
    way = (moved - centre).flatten(1)
    share = (radius / way.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1.0)
    return centre + (way * share).reshape(centre.shape)
