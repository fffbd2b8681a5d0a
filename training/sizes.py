"""Images of several sizes as one Source, for a trainer that handles one size.

An image of d numbers is kept as a vector of D, the largest image's: its numbers times sqrt(D / d), then zeros. Whatever
a table does to states and predictions is linear, so it does to vectors what it does to images. The mean square of a
vector's numbers is that of the image's own: RMSE is each image's, and every size counts alike.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .source import SIZE, Source


@dataclass
class SeveralSizes(Source):
    """parts: a Source of each size, largest first; prompts: how many take turns.

    Its shape is (D,). Its network is also told each image's size, by number.
    """

    parts: tuple[Source, ...] = ()
    prompts: int = 1

    @property
    def shapes(self) -> list[tuple]:
        return [tuple(part.shape) for part in self.parts]

    def extra(self, seeds) -> dict:
        return {**super().extra(seeds), SIZE: torch.tensor([*map(self._size_of, seeds)], device=self.device)}

    def noise(self, seeds, fresh: int = 0) -> Tensor:
        drawn = [self.parts[self._size_of(seed)].noise([seed], fresh) for seed in seeds]
        return torch.cat([pack(one, self.shape[0]) for one in drawn])

    def images(self, states: Tensor, extra: dict) -> Tensor:
        return unpack(states, self.shapes[int(extra[SIZE][0])])

    def _size_of(self, seed: int) -> int:
        """Sizes take turns, and each prompt (number seed modulo prompts) meets all as often: a Latin square."""
        turn, prompt = divmod(int(seed), self.prompts)
        return (turn + prompt) % len(self.parts)


def of_sizes(parts: Sequence[Source], prompts: int) -> Source:
    """One Source for those of a model at several sizes, which differ in network and shape alone; each size once."""
    distinct = {tuple(part.shape): part for part in reversed(parts)}.values()
    largest, *others = ordered = sorted(distinct, key=lambda part: -math.prod(part.shape))
    if not others:
        return largest

    def network(x: Tensor, sigma: Tensor, size: Tensor, **extra) -> Tensor:
        answer = torch.zeros_like(x)
        for number in size.unique().tolist():
            here, part = size == number, ordered[number]
            images = part.network(unpack(x[here], part.shape), sigma[here],
                                  **{name: value[here] for name, value in extra.items()})
            answer[here] = pack(images.to(x), x.shape[1])
        return answer
    return SeveralSizes(**{**vars(largest), "shape": (math.prod(largest.shape),), "network": network,
                           "chunk": min(part.chunk for part in ordered)}, parts=tuple(ordered), prompts=prompts)


def pack(images: Tensor, length: int) -> Tensor:
    """Images (n, *shape) as vectors (n, length)."""
    flat = images.flatten(1)
    return torch.nn.functional.pad(flat * math.sqrt(length / flat.shape[1]), (0, length - flat.shape[1]))


def unpack(vectors: Tensor, shape: tuple) -> Tensor:
    """The images (n, *shape) that `pack` was given."""
    count = math.prod(shape)
    return (vectors[:, :count] / math.sqrt(vectors.shape[1] / count)).reshape(len(vectors), *shape)
