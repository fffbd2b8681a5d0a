"""Trains the study's own models, one after the other, and draws a sheet of each; a stopped training goes on.

The numbers drawn depend on the seed alone; the state is saved every quarter of a minute.
"""

import io
import math
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from s4s.s4s_nodes.core import sample
from s4s.s4s_nodes.core.files import write_atomically
from s4s.training.teacher.solvers import AUTO, teacher_table
from tests.assets.emoji import pictures as emoji
from tests.bench.demo_models import data as mnist
from tests.bench.transfer.models import TRAINED, Kind, Small, source, weights_path

RATE, WARM, KEEP, BATCH, DROP = 1.5e-3, 200, 0.998, 64, 0.12
SAVE = 15.0                             # seconds between two savings


def images(kind: Kind, folder: Path) -> tuple[Tensor, Tensor]:
    """Pictures (n, C, H, W) in -1..1 and their classes (n,). Raises FileNotFoundError for a missing file."""
    if kind.data == "digits":
        return mnist.read(folder, "train")
    if kind.data == "emoji":
        shown, label = emoji.read(folder / "noto_emoji64.npz")
        return 2 * shown - 1, label
    with np.load(folder / "cifar10_train_jpeg.npz") as data:
        buffer, ends, label = data["jpeg"].tobytes(), data["offs"].tolist(), data["y"]
    shown = np.stack([np.asarray(Image.open(io.BytesIO(buffer[a:b])).convert("RGB")) for a, b in zip(ends, ends[1:])])
    return torch.from_numpy(shown).permute(0, 3, 1, 2), torch.from_numpy(label.astype(np.int64))


def batch(kind: Kind, shown: Tensor, label: Tensor, null: int, generator) -> tuple[Tensor, Tensor]:
    """Pictures (B, C, S, S) in -1..1 of one of the kind's sizes and their labels, some of them dropped."""
    picked = torch.randint(0, len(shown), (BATCH,), generator=generator)
    size = kind.sizes[int(torch.randint(0, len(kind.sizes), (1,), generator=generator))]
    x0 = shown[picked]
    x0 = x0.float() / 127.5 - 1 if x0.dtype == torch.uint8 else x0
    if kind.data == "cifar":
        flipped = torch.rand(BATCH, generator=generator) < 0.5
        x0 = torch.where(flipped[:, None, None, None], x0.flip(3), x0)
    if kind.data == "emoji":            # moved by up to two of 64 pixels: there are only a few hundred
        down, right = torch.randint(0, 5, (2,), generator=generator).tolist()
        x0 = F.pad(x0, (2, 2, 2, 2), value=1.0)[:, :, down:down + 64, right:right + 64]
    if x0.shape[-1] != size:
        x0 = F.interpolate(x0, size=(size, size), mode="bilinear", antialias=True)
    dropped = torch.rand(BATCH, generator=generator) < DROP
    return x0, label[picked].masked_fill(dropped, null)


def loss_of(model: Small, x0: Tensor, label: Tensor, generator) -> Tensor:
    """Squared error of what the network gives: a flow's velocity, else v = (noise - sigma x0) / sqrt(1 + sigma^2)."""
    noise = torch.randn(x0.shape, generator=generator)
    if model.flow:
        uniform, normal = torch.rand(len(x0), generator=generator), torch.randn(len(x0), generator=generator)
        sigma = torch.where(torch.rand(len(x0), generator=generator) < 0.5, uniform, normal.sigmoid())
        s = sigma[:, None, None, None]
        shown, wanted = (1 - s) * x0 + s * noise, noise - x0
    else:
        sigma = model.levels[torch.randint(0, len(model.levels), (len(x0),), generator=generator)]
        s = sigma.float()[:, None, None, None]
        c_in = (1 + s ** 2).rsqrt()
        shown, wanted = c_in * (x0 + s * noise), c_in * (noise - s * x0)
    with torch.autocast("cpu", torch.bfloat16):
        out = model(shown, sigma, label)
    return F.mse_loss(out.float(), wanted)


class Training:
    """Network, moving average of its weights, optimiser and generator: what a stopped training needs to go on."""

    def __init__(self, kind: Kind):
        torch.manual_seed(kind.seed)
        self.kind, self.model = kind, Small(kind)
        self.model.network.to(memory_format=torch.channels_last)
        self.weights = dict(self.model.network.named_parameters())
        self.average = {name: weight.detach().clone() for name, weight in self.weights.items()}
        self.optimiser = torch.optim.AdamW(self.weights.values(), RATE, betas=(0.9, 0.99), fused=True)
        self.generator = torch.Generator().manual_seed(kind.seed)
        self.iteration, self.seconds, self.shown = 0, 0.0, math.nan

    def step(self, shown: Tensor, label: Tensor) -> None:
        """One batch: AdamW at a rate that rises, then falls as a cosine, and a step of the average."""
        done = self.iteration / self.kind.iterations
        self.optimiser.param_groups[0]["lr"] = (
            RATE * min(1.0, (self.iteration + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * done)))
        loss = loss_of(self.model, *batch(self.kind, shown, label, self.model.null, self.generator), self.generator)
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), 1.0)
        self.optimiser.step()
        keep = min(KEEP, (1 + self.iteration) / (10 + self.iteration))
        torch._foreach_lerp_(list(self.average.values()), [w.detach() for w in self.weights.values()], 1 - keep)
        self.iteration += 1
        self.shown = loss.item() if math.isnan(self.shown) else 0.99 * self.shown + 0.01 * loss.item()

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        content = io.BytesIO()
        torch.save({"weights": self.weights, "average": self.average, "optimiser": self.optimiser.state_dict(),
                    "generator": self.generator.get_state(), "iteration": self.iteration, "seconds": self.seconds,
                    "shown": self.shown}, content)
        write_atomically(path, content.getvalue())

    def resume(self, path: Path) -> None:
        """Take up the state of the file."""
        kept = torch.load(path)
        self.model.network.load_state_dict(kept["weights"])
        self.average = kept["average"]
        self.optimiser.load_state_dict(kept["optimiser"])
        self.generator.set_state(kept["generator"])
        self.iteration, self.seconds, self.shown = kept["iteration"], kept["seconds"], kept["shown"]


def train(name: str, folder: Path, cache: Path) -> None:
    """Train the model if the cache lacks it, and write its weights in fp16 and a sheet of samples."""
    path, state = weights_path(name, cache), Path(cache) / "models" / f"{name}.state"
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    training = Training(TRAINED[name])
    if state.is_file():
        training.resume(state)
    shown, label = images(training.kind, Path(folder))
    started = saved = time.monotonic()
    before = training.seconds
    while training.iteration < training.kind.iterations:
        training.step(shown, label)
        training.seconds = before + time.monotonic() - started
        if training.iteration % 200 == 0:
            print(f"{name}: {training.iteration} of {training.kind.iterations} batches, loss {training.shown:.4f}, "
                  f"{training.seconds:.0f} s", flush=True)
        if time.monotonic() - saved > SAVE:
            training.save(state)
            saved = time.monotonic()
    halves = {key: value.half().contiguous() for key, value in training.average.items()}
    notes = {"iterations": str(training.iteration), "seconds": f"{training.seconds:.0f}",
             "loss": f"{training.shown:.4f}"}
    write_atomically(path, save(halves, notes))
    state.unlink(missing_ok=True)
    sheet(name, cache)


@torch.inference_mode()
def sheet(name: str, cache: Path, cfg: float = 3.0, calls: int = 40, columns: int = 10) -> Path:
    """A PNG of samples, a row for each class, by a fine classical solver."""
    made = source(name, cfg, cache)
    classes = 12 if name.startswith("emoji") else 10
    seeds = [classes * column + row for row in range(classes) for column in range(columns)]
    table = teacher_table(made, AUTO, calls)
    rows = [sample(made.denoiser, made.noise(part) * made.sigma_max, table, made.conditions(part))
            for part in (seeds[i:i + 40] for i in range(0, len(seeds), 40))]
    shown = ((torch.cat(rows).clamp(-1, 1) + 1) * 127.5).round().byte()
    if shown.shape[1] == 1:
        shown = shown.expand(-1, 3, -1, -1)
    side = shown.shape[-1]
    page = shown.unflatten(0, (classes, columns)).permute(0, 3, 1, 4, 2).reshape(classes * side, columns * side, 3)
    path = weights_path(name, cache).with_suffix(".png")
    picture = Image.fromarray(page.numpy())
    picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.NEAREST).save(path, optimize=True)
    return path


def train_all(folder: Path, cache: Path, names=tuple(TRAINED)) -> None:
    """Train what the cache lacks."""
    torch.set_num_threads(1)            # the order of sums, and so the last bits, depend on the number of threads
    torch.set_flush_denormal(True)
    for name in names:
        train(name, folder, cache)
