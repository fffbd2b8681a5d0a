"""A class of emoji -> the conditioning of emoji_sd3.safetensors, without a text encoder; pure torch.

Each class has TOKENS context tokens of its own, one-hot rows of width WIDTH = classes * TOKENS, and a one-hot pooled
vector. The null condition of classifier-free guidance is all zeros, for both.
"""

import torch
from torch import Tensor

CLASSES = ("face", "cat", "animal", "person", "hand", "heart", "fruit", "flower", "moon", "clock", "zodiac", "letter")
TOKENS = 4
WIDTH = TOKENS * len(CLASSES)
POOLED = len(CLASSES)


def condition(name: str | None) -> tuple[Tensor, Tensor]:
    """The context (1, TOKENS, WIDTH) and pooled vector (1, POOLED) of a class; None is the null condition.

    Raises ValueError for a name that is not in CLASSES.
    """
    if name is not None and name not in CLASSES:
        raise ValueError(f"no class of emoji {name!r}; there are {', '.join(CLASSES)}")
    label = len(CLASSES) if name is None else CLASSES.index(name)
    context, pooled = conditions(torch.tensor([label]))
    return context, pooled


def conditions(label: Tensor) -> tuple[Tensor, Tensor]:
    """Contexts (B, TOKENS, WIDTH) and pooled vectors (B, POOLED) of labels (B,), len(CLASSES) meaning none."""
    pooled = torch.eye(len(CLASSES) + 1)[label, :POOLED]
    context = torch.einsum("bc,tu->btcu", pooled, torch.eye(TOKENS))
    return context.flatten(2), pooled
