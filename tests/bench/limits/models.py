"""The models of the study: small, class-conditional, trained by this script from MNIST, CIFAR-10 and emoji pictures.

They are kinds that the package does not ship: transformer flows that predict the image, a latent flow behind a small
autoencoder, and U-Nets that predict the noise on DDPM's linear betas, on the cosine schedule, and on shorter levels.
"""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from s4s.s4s_nodes.core import Model, schedules
from s4s.training.demo_models.source import bundled
from s4s.training.source import Source, guided

from .networks import Autoencoder, Transformer, UNet

CLASSES, BATCH, RATE, DROP = 10, 64, 1.5e-3, 0.12
COSINE_TOP = 80.0                       # levels of the cosine schedule above it are left out


@dataclass(frozen=True)
class Kind:
    """What is trained.

    predicts: image, velocity (both of a flow), noise or v; shift: of a flow; judged: kept apart from all tuning.
    """

    data: Callable
    shape: tuple
    predicts: str
    network: Callable
    levels: Callable
    cfg: float
    judged: bool
    batches: int = 900
    shift: float = 1.0

    @property
    def prediction(self) -> str:
        """As a preset names it."""
        return {"noise": "eps", "v": "v"}.get(self.predicts, "flow")

    @property
    def flow(self) -> bool:
        return self.prediction == "flow"


def ddpm_levels() -> np.ndarray:
    """Levels of DDPM's linear betas, up to sigma 157 (Ho et al. 2020)."""
    kept = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    return np.sqrt((1 - kept) / kept)


def cosine_levels() -> np.ndarray:
    """Levels of the cosine schedule below COSINE_TOP (Nichol and Dhariwal 2021)."""
    time = np.arange(1001) / 1000
    signal = np.cos((time + 0.008) / 1.008 * np.pi / 2) ** 2
    kept = np.cumprod(1 - np.minimum(1 - signal[1:] / signal[:-1], 0.999))
    levels = np.sqrt((1 - kept) / kept)
    return levels[levels < COSINE_TOP]


def digits(folder: Path) -> tuple[Tensor, Tensor]:
    with np.load(folder / "mnist_train.npz") as data:
        return torch.from_numpy(data["x"]).float()[:, None] / 127.5 - 1, torch.from_numpy(data["y"]).long()


def small_digits(folder: Path) -> tuple[Tensor, Tensor]:
    shown, label = digits(folder)
    return F.avg_pool2d(shown, 2), label


def latents(folder: Path) -> tuple[Tensor, Tensor]:
    """Digits behind an autoencoder that is trained for a minute, of deviation 1."""
    shown, label = digits(folder)
    torch.manual_seed(0)
    model = Autoencoder()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(900):
        batch = shown[torch.randint(0, len(shown), (BATCH,))]
        coded = model.encoder(batch)
        loss = F.mse_loss(model.decoder(coded + 0.05 * torch.randn_like(coded)), batch)
        loss = loss + 1e-3 * (coded.square().mean() - 1).square()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        coded = torch.cat([model.encoder(part) for part in shown[:20000].split(500)])
    mean, deviation = coded.mean((0, 2, 3), keepdim=True), coded.std((0, 2, 3), keepdim=True)
    return (coded - mean) / deviation, label[:20000]


def pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """CIFAR-10 at 16 x 16."""
    with np.load(folder / "cifar10_train_jpeg.npz") as data:
        buffer, ends, label = data["jpeg"].tobytes(), data["offs"].tolist()[:20001], data["y"][:20000]
    shown = np.stack([np.asarray(Image.open(io.BytesIO(buffer[a:b])).convert("RGB")) for a, b in zip(ends, ends[1:])])
    small = F.interpolate(torch.from_numpy(shown).permute(0, 3, 1, 2).float(), size=(16, 16), mode="bilinear",
                          antialias=True)
    return small / 127.5 - 1, torch.from_numpy(label.astype(np.int64))


def emoji(folder: Path) -> tuple[Tensor, Tensor]:
    """Emoji at 16 x 16; their classes are arbitrary."""
    with np.load(folder / "noto_emoji64.npz") as data:
        shown = torch.from_numpy(data["x"])
    shown = shown.permute(0, 3, 1, 2) if shown.shape[-1] == 3 else shown
    shown = F.interpolate(shown.float(), size=(16, 16), mode="bilinear", antialias=True) / 127.5 - 1
    return shown, torch.arange(len(shown)) % CLASSES


def flow_levels() -> np.ndarray:
    return schedules.flow_levels()


LABELS = CLASSES + 1
KINDS = {
    "latent-flow": Kind(latents, (4, 7, 7), "velocity", lambda: Transformer(4, 7, 1, LABELS), flow_levels, 2.0, False),
    "vit-digits": Kind(digits, (1, 28, 28), "image", lambda: Transformer(1, 28, 4, LABELS), flow_levels, 2.0, False),
    "eps-26": Kind(small_digits, (1, 14, 14), "noise", lambda: UNet(1, LABELS),
                   lambda: schedules.sd_levels(0.0012, 0.0143), 1.0, False),
    "vit-pictures": Kind(pictures, (3, 16, 16), "image", lambda: Transformer(3, 16, 4, LABELS), flow_levels, 2.0,
                         False),
    "eps-ddpm": Kind(pictures, (3, 16, 16), "noise", lambda: UNet(3, LABELS), ddpm_levels, 3.0, False),
    "eps-cosine": Kind(emoji, (3, 16, 16), "noise", lambda: UNet(3, LABELS), cosine_levels, 1.0, True),
    "v-zsnr": Kind(small_digits, (1, 14, 14), "v", lambda: UNet(1, LABELS),
                   lambda: schedules.zero_snr_levels(4518.0), 2.0, True),
    "flow-emoji": Kind(emoji, (3, 16, 16), "velocity", lambda: UNet(3, LABELS), lambda: schedules.flow_levels(3.0), 3.0,
                       True, shift=3.0),
    "latent-eps": Kind(latents, (4, 7, 7), "noise", lambda: Transformer(4, 7, 1, LABELS), schedules.sd_levels, 4.0,
                       True),
    "flow-digits": Kind(small_digits, (1, 14, 14), "velocity", lambda: Transformer(1, 14, 2, LABELS),
                        schedules.flow_levels, 1.0, True),
    "eps-emoji": Kind(emoji, (3, 16, 16), "noise", lambda: UNet(3, LABELS), schedules.sd_levels, 5.0, True),
    "flow-pictures": Kind(pictures, (3, 16, 16), "velocity", lambda: Transformer(3, 16, 2, LABELS),
                          lambda: schedules.flow_levels(6.0), 4.0, True, shift=6.0),
}
BUNDLED = {"digits-eps": 3.0, "digits-flow": 3.0}       # and their cfg
NAMES = (*KINDS, *BUNDLED)


def judged(name: str) -> bool:
    """Whether the model is kept apart from all tuning."""
    return name in KINDS and KINDS[name].judged


class Small(nn.Module):
    """A network as the denoiser (x, sigma (B,), label (B,)) -> the clean picture."""

    def __init__(self, kind: Kind):
        super().__init__()
        self.kind, self.network = kind, kind.network()

    def answer(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        """What the network gives for the state x at sigma, computed in its own dtype."""
        dtype = next(self.network.parameters()).dtype
        if self.kind.flow:
            return self.network(x.to(dtype), sigma, label).to(x.dtype)
        level = sigma.to(x.dtype)[:, None, None, None]
        return self.network((x * (1 + level ** 2).rsqrt()).to(dtype), sigma.log() / 4, label).to(x.dtype)

    def denoise(self, x: Tensor, sigma: Tensor, label: Tensor) -> Tensor:
        answer, level = self.answer(x, sigma, label), sigma.to(x.dtype)[:, None, None, None]
        if self.kind.predicts == "v":
            return (x / (1 + level ** 2).sqrt() - level * answer) / (1 + level ** 2).sqrt()
        return answer if self.kind.predicts == "image" else x - level * answer


def loss_of(model: Small, x0: Tensor, label: Tensor, levels: Tensor) -> Tensor:
    """Squared error of the noise, or of a flow's velocity."""
    noise = torch.randn_like(x0)
    if model.kind.flow:
        sigma = torch.where(torch.rand(len(x0)) < 0.5, torch.rand(len(x0)), torch.randn(len(x0)).sigmoid())
        level = sigma[:, None, None, None]
        denoised = model.denoise((1 - level) * x0 + level * noise, sigma, label)
        return ((denoised - x0) / level.clamp(min=0.05)).square().mean()
    sigma = levels[torch.randint(0, len(levels), (len(x0),))].float()
    level = sigma[:, None, None, None]
    wanted = (noise - level * x0) / (1 + level ** 2).sqrt() if model.kind.predicts == "v" else noise
    return F.mse_loss(model.answer(x0 + level * noise, sigma, label), wanted)


def trained(name: str, folder: Path, cache: Path) -> Small:
    """The model, from the cache or trained now (a minute or two on one core)."""
    kind, path = KINDS[name], Path(cache) / f"{name}.safetensors"
    torch.manual_seed(sum(map(ord, name)))
    model = Small(kind)
    if not path.is_file():
        shown, label = kind.data(Path(folder))
        save_file(_averaged(model, shown, label), path)
    model.network.load_state_dict(load_file(path), strict=False)
    return model.eval().requires_grad_(False)


def _averaged(model: Small, shown: Tensor, label: Tensor) -> dict:
    average = {name: weight.detach().clone() for name, weight in model.network.named_parameters()}
    optimizer = torch.optim.AdamW(model.network.parameters(), RATE, betas=(0.9, 0.99))
    levels = torch.from_numpy(np.asarray(model.kind.levels()))
    for step in range(model.kind.batches):
        rate = min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / model.kind.batches))
        optimizer.param_groups[0]["lr"] = RATE * rate
        picked = torch.randint(0, len(shown), (BATCH,))
        labels = label[picked].masked_fill(torch.rand(BATCH) < DROP, CLASSES)
        optimizer.zero_grad()
        loss_of(model, shown[picked], labels, levels).backward()
        torch.nn.utils.clip_grad_norm_(model.network.parameters(), 1.0)
        optimizer.step()
        keep = min(0.998, (1 + step) / (10 + step))
        for name, weight in model.network.named_parameters():
            average[name].lerp_(weight.detach(), 1 - keep)
    return {name: weight.contiguous() for name, weight in average.items()}


def source(name: str, folder: Path, cache: Path, dtype: torch.dtype = torch.float32,
           cfg: float | None = None) -> Source:
    """The model under its guidance, at its kind's own cfg by default. dtype: of the network; those of the package keep
    their own."""
    if name in BUNDLED:
        return bundled(name, BUNDLED[name] if cfg is None else cfg)
    kind, model = KINDS[name], trained(name, folder, cache)
    model.network.to(dtype)
    cfg = kind.cfg if cfg is None else cfg
    network = guided(model.denoise, cfg, CLASSES)
    levels = np.asarray(kind.levels(), dtype=np.float64)
    facts = Model(name, kind.prediction, float(levels[0]), float(levels[-1]), shift=kind.shift if kind.flow else None,
                  channels=kind.shape[0])

    def conditions(seeds):
        return {"label": torch.as_tensor([int(seed) % CLASSES for seed in seeds])}
    return Source(name, facts, levels, kind.shape, network, conditions, cfg, torch.device("cpu"), chunk=128,
                  any_cfg=True)
