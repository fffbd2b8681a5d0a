"""Two distilled models, made by this script from two small ones: at cfg 1 each matches its base model under guidance.

lightning: of eps-26, in the manner of SDXL-Lightning (Lin et al. 2024) and of progressive distillation (Salimans and Ho
2022): one Euler step on 8 levels lands where 4 steps of the guided base land. lcm: of vit-digits, a flow, by
consistency distillation (Song et al. 2023; Luo et al. 2023): from every level it predicts where the guided base ends.
"""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from s4s.s4s_nodes.core import schedules
from s4s.training.demo_models.models import load_classifier
from s4s.training.source import Source
from tests.bench.limits.models import digits, source, trained

INNER, TRAJECTORIES, SEEDS = 4, 768, 40_000_000     # of lightning: the base's steps for one, and its own noises
GRID, HUBER, TARGET_DECAY = 50, 0.03, 0.95          # of lcm: levels, its loss, and its moving target
DECAY = 0.995               # of the weights' moving average that is kept


@dataclass(frozen=True)
class Kind:
    """What is distilled. calls: of its own sampler, Euler on sgm_uniform, as its makers would recommend."""

    base: str
    cfg: float
    losses: Callable
    batches: int
    size: int
    rate: float
    calls: int = 8


def step_losses(kind: Kind, module: nn.Module, base: Source, folder: Path) -> Iterator[Tensor]:
    """Of the denoised image whose Euler step lands where the base's inner steps land, weighed by 1 + 1 / sigma^2."""
    fine = torch.as_tensor(schedules.sgm_uniform(kind.calls * INNER, base.levels).copy(), dtype=torch.float32)
    seeds = range(SEEDS, SEEDS + TRAJECTORIES)
    x, label, states = base.noise(seeds) * fine[0], base.conditions(seeds)["label"], []
    with torch.no_grad():
        for level, following in zip(fine, fine[1:]):
            states.append(x)
            denoised = torch.cat([base.network(part, level.expand(len(part)), label=labels)
                                  for part, labels in zip(x.split(64), label.split(64))])
            x = denoised + (x - denoised) * (following / level)
    coarse, passed = fine[::INNER], torch.stack([*states[::INNER], x])
    while True:
        step, which = torch.randint(0, kind.calls, (kind.size,)), torch.randint(0, TRAJECTORIES, (kind.size,))
        sigma, shown = coarse[step], passed[step, which]
        ratio = (coarse[step + 1] / sigma)[:, None, None, None]
        wanted = (passed[step + 1, which] - ratio * shown) / (1 - ratio)
        off = (module.denoise(shown, sigma, label[which]) - wanted).square().mean((1, 2, 3))
        yield (off * (1 + sigma ** -2)).mean()


def consistency_losses(kind: Kind, module: nn.Module, base: Source, folder: Path) -> Iterator[Tensor]:
    """Of the answer to that of its own moving average one guided Euler step of the base further down."""
    images, labels = digits(folder)
    target = deepcopy(module).requires_grad_(False)
    while True:
        picked, place = torch.randint(0, len(images), (kind.size,)), torch.randint(1, GRID + 1, (kind.size,))
        label, sigma, below = labels[picked], place / GRID, (place - 1) / GRID
        level, lower = sigma[:, None, None, None], below[:, None, None, None]
        x = (1 - level) * images[picked] + level * torch.randn(kind.size, *base.shape)
        with torch.no_grad():
            denoised = base.network(x, sigma, label=label)
            stepped = denoised + (x - denoised) * (lower / level)
            wanted = torch.where(lower > 0, target.denoise(stepped, below, label), stepped)
        yield ((module.denoise(x, sigma, label) - wanted).square() + HUBER ** 2).sqrt().mean() - HUBER
        blend(target, module, TARGET_DECAY)


KINDS = {"lightning": Kind("eps-26", 2.0, step_losses, 2000, 64, 5e-4),
         "lcm": Kind("vit-digits", 2.0, consistency_losses, 1200, 64, 7e-4)}


@torch.no_grad()
def blend(kept: nn.Module, now: nn.Module, decay: float) -> None:
    for old, new in zip(kept.network.parameters(), now.network.parameters()):
        old.lerp_(new, 1 - decay)


def base_of(name: str, folder: Path, cache: Path) -> tuple[Source, nn.Module]:
    """The undistilled model under its guidance, with the features of the digits, and its network."""
    kind, classifier = KINDS[name], load_classifier().features

    def features(images: Tensor) -> Tensor:
        return classifier(F.interpolate(images, (28, 28), mode="bilinear"))
    found = source(kind.base, folder, cache, cfg=kind.cfg)
    return (replace(found, features=features, feature_space="64 features of the digit classifier"),
            trained(kind.base, folder, cache))


def distilled(name: str, folder: Path, cache: Path) -> nn.Module:
    """The distilled network, from the cache or made now: minutes on one core."""
    kind, path = KINDS[name], Path(cache) / f"{name}.safetensors"
    base, module = base_of(name, folder, cache)
    if not path.is_file():
        save_file(_learned(kind, module, base, folder), path)
    module.network.load_state_dict(load_file(path), strict=False)
    return module.eval().requires_grad_(False)


def _learned(kind: Kind, module: nn.Module, base: Source, folder: Path) -> dict:
    torch.manual_seed(0)
    module.requires_grad_(True)
    kept, optimizer = deepcopy(module), torch.optim.AdamW(module.network.parameters(), kind.rate, betas=(0.9, 0.99))
    for batch, loss in zip(range(kind.batches), kind.losses(kind, module, base, folder)):
        optimizer.param_groups[0]["lr"] = kind.rate * 0.5 * (1 + math.cos(math.pi * batch / kind.batches))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.network.parameters(), 1.0)
        optimizer.step()
        blend(kept, module, min(DECAY, (1 + batch) / (10 + batch)))
        if batch % 250 == 0:
            print(f"distilling {kind.base}: batch {batch} of {kind.batches}, loss {float(loss.detach()):.5f}",
                  flush=True)
    return {name: weight.detach().contiguous() for name, weight in kept.network.named_parameters()}


def distilled_source(name: str, folder: Path, cache: Path) -> Source:
    """The distilled model at cfg 1."""
    base, _ = base_of(name, folder, cache)
    module = distilled(name, folder, cache)

    def network(x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        return module.denoise(x, sigma, label)
    return replace(base, name=name, model=replace(base.model, family=name), network=network, cfg=1.0, any_cfg=False,
                   model_calls=0)
