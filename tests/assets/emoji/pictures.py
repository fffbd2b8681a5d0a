"""The emoji the model is trained on: which code points make a class, how a picture is varied, and their latents."""

import math
from pathlib import Path

import click
import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from s4s.s4s_nodes.core.files import write_atomically
from tests.assets.emoji import taesd
from tests.assets.emoji.conditions import CLASSES

GROUPS = {                              # class -> code points in hex, ranges included; + adds the five skin tones
    "face": "1f600-1f607 1f609-1f637 1f641-1f644 1f910-1f915 1f917 1f920 1f922-1f925 1f927-1f92f 1f970-1f976 "
            "1f978-1f97a 1f9d0 1fae0-1fae4 1fae8 1fae9 2639 263a",
    "cat": "1f431 1f638-1f640",
    "animal": "1f428 1f42d-1f430 1f432 1f434-1f43c 1f648-1f64a 1f981 1f984 1f98a 1f99d 1f43b_200d_2744",
    "person": "1f466-1f469+ 1f471+ 1f474-1f476+ 1f478+ 1f934+ 1f9d1-1f9d5+",
    "hand": "1f446-1f44a+ 1f44c-1f44e+ 261d+ 270a-270c+ 1f590+ 1f596+ 1f918-1f91c+ 1f91e+ 1f91f+",
    "heart": "1f493-1f49f 1f5a4 1f90d 1f90e 1f9e1 1fa75-1fa77 2764 2665 2763",
    "fruit": "1f345-1f353 1f951 1f95d 1f96d 1fad0 1f34b_200d_1f7e9",
    "flower": "1f337-1f33c 1f3f5 1f4ae 1f490 1fab7 1fabb 1f940",
    "moon": "1f311-1f31d",
    "clock": "1f550-1f567",
    "zodiac": "2648-2653",
    "letter": "1f1e6-1f1ff",
}
TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")
FLIPPED = ("cat", "animal", "person", "hand", "heart", "fruit", "flower")      # whose mirror image is as good
COLOURED = ("heart", "letter")          # whose hue is free
VARIANTS = 10                           # of each picture: one as it is, the others shifted by a pixel, flipped, dyed


def points(group: str) -> list[str]:
    """The code points, as the npz names them, of a line of GROUPS."""
    found = []
    for word in group.split():
        word, toned = word.rstrip("+"), word.endswith("+")
        first, _, last = word.partition("-")
        names = [f"{code:x}" for code in range(int(first, 16), int(last, 16) + 1)] if last else [first]
        found += names + [f"{name}_{tone}" for name in names if toned for tone in TONES]
    return found


def read(path) -> tuple[Tensor, Tensor]:
    """Pictures (n, 3, 64, 64) in 0..1 and their classes (n,); a code point the file lacks is passed over."""
    with np.load(path) as data:
        where = {name.removeprefix("emoji_u"): i for i, name in enumerate(data["name"])}
        picked = [(where[name], label) for label, group in enumerate(CLASSES) for name in points(GROUPS[group])
                  if name in where]
        index, label = zip(*picked)
        pictures = torch.from_numpy(data["x"][list(index)])
    return pictures.permute(0, 3, 1, 2).float() / 255, torch.tensor(label)


def dyed(picture: Tensor, angle: float) -> Tensor:
    """The hue turned by an angle, brightness and grey kept: a rotation about the grey axis in YIQ."""
    to_yiq = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    turn = torch.eye(3)
    turn[1:, 1:] = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return torch.einsum("ij,jhw->ihw", to_yiq.inverse() @ turn @ to_yiq, picture).clamp(0, 1)


def varied(picture: Tensor, name: str, generator) -> Tensor:
    """The picture (3, 64, 64) moved by up to a pixel each way, where harmless flipped, where free dyed."""
    down, right, flip, turn = torch.rand(4, generator=generator).tolist()
    top, left = int(3 * down), int(3 * right)
    moved = F.pad(picture, (1, 1, 1, 1), value=1.0)[:, top:top + 64, left:left + 64]
    if name in FLIPPED and flip < 0.5:
        moved = moved.flip(2)
    return dyed(moved, 2 * math.pi * turn) if name in COLOURED else moved


def latents(data, folder, kept: Path, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (n, VARIANTS, 16, 8, 8) of the pictures and their classes (n,); made once, then read from `kept`."""
    if not kept.is_file():
        pictures, label = read(data)
        encoder, generator = taesd.encoder(folder), torch.Generator().manual_seed(seed)
        rows = []
        for i, (picture, of) in enumerate(zip(pictures, label)):
            others = [varied(picture, CLASSES[of], generator) for _ in range(VARIANTS - 1)]
            rows.append(encoder(torch.stack([picture, *others])))
            if i % 50 == 0:
                click.echo(f"encoding picture {i} of {len(pictures)}")
        write_atomically(kept, save({"latents": torch.stack(rows).half(), "label": label}))
    made = load_file(kept)
    return made["latents"].float(), made["label"]
