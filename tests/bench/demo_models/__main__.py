"""Trains the bundled models from MNIST and measures them.

    python -m tests.bench.demo_models --data FOLDER --model all --minutes 30
    python -m tests.bench.demo_models --data FOLDER --evaluate --sheets docs/images

FOLDER holds mnist_train.npz and mnist_test.npz, each with `x` uint8 (n, 28, 28) and `y` (n,).
"""

import math
import os
import time

import click
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm import tqdm

from s4s.training.demo_models.models import FEATURES, FOLDER, NAMES, NULL, Digits, read_weights
from s4s.training.demo_models.network import Classifier

from .data import read
from .evaluate import evaluate
from .initial import begun

DROP = 0.12  # share of labels replaced by the null class, for classifier-free guidance
RATE = 1e-3  # peak learning rate
WARM = 300  # iterations of learning-rate warm-up
KEEP = 0.999  # decay of the moving average of the weights
SAVE = 120.0  # seconds between two savings
LICENCE = "MNIST (Y. LeCun, C. Cortes, C. J. C. Burges), CC BY-SA 3.0"


def write(path, tensors, notes):
    """Save fp16 weights with string notes at `path`, whole or not at all."""
    halves = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    halves = {k: v.contiguous() for k, v in halves.items()}
    partial = path.with_name(path.name + ".partial")
    save_file(halves, partial, metadata={k: str(v) for k, v in notes.items()})
    partial.chmod(0o644)  # safetensors writes files that only their owner can read
    os.replace(partial, path)


class Batches:
    """Endless shuffled batches, image indices (B,) long; every image once per pass."""

    def __init__(self, count, size, generator):
        self.count, self.size, self.generator = count, size, generator
        self.order = torch.empty(0, dtype=torch.long)

    def next(self):
        if len(self.order) < self.size:
            self.order = torch.randperm(self.count, generator=self.generator)
        picked, self.order = self.order[: self.size], self.order[self.size :]
        return picked


def loss_eps(model, x0, label, generator):
    """Error of the eps network at a uniform integer timestep of the 1000.

    The squared error of F is that of eps times 1 + sigma^2, hence the same optimum: see denoise.
    """
    index = torch.randint(0, len(model.sigmas), x0.shape[:1], generator=generator)
    sigma = model.sigmas[index].float()[:, None, None, None]
    noise = torch.randn(x0.shape, generator=generator)
    c_in = (1 + sigma**2).rsqrt()
    with torch.autocast("cpu", torch.bfloat16):
        out = model.network(c_in * (x0 + sigma * noise), index / (len(model.sigmas) - 1), label)
    return F.mse_loss(out.float(), c_in * (noise - sigma * x0))


def loss_flow(model, x0, label, generator):
    """Error of the velocity v = noise - x0; time half uniform, half logit-normal (as SD3)."""
    uniform = torch.rand(len(x0), generator=generator)
    normal = torch.randn(len(x0), generator=generator).sigmoid()
    sigma = torch.where(torch.rand(len(x0), generator=generator) < 0.5, uniform, normal)
    s = sigma[:, None, None, None]
    noise = torch.randn(x0.shape, generator=generator)
    with torch.autocast("cpu", torch.bfloat16):
        out = model.network((1 - s) * x0 + s * noise, sigma, label)
    return F.mse_loss(out.float(), noise - x0)


def schedule(iteration, progress):
    """Learning rate: linear warm-up by iteration, cosine to zero by the share of time passed."""
    return RATE * min(1.0, (iteration + 1) / WARM) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def descend(module, loss_of, minutes, label, save):
    """Minimise loss_of() by AdamW for `minutes`; calls save(average, seconds, iterations).

    `average` is the moving average of the weights, a state dict in float32.
    """
    optimizer = torch.optim.AdamW(module.parameters(), RATE, betas=(0.9, 0.99), fused=True)
    weights = list(module.parameters())
    average = [w.detach().clone() for w in weights]
    names = [k for k, _ in module.named_parameters()]
    start = saved = time.monotonic()
    iteration, shown = 0, None
    with tqdm(desc=label, unit="it", mininterval=5) as bar:
        while (now := time.monotonic()) - start < 60 * minutes:
            optimizer.param_groups[0]["lr"] = schedule(iteration, (now - start) / (60 * minutes))
            loss = loss_of()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            optimizer.step()
            keep = min(KEEP, (1 + iteration) / (10 + iteration))
            torch._foreach_lerp_(average, [w.detach() for w in weights], 1 - keep)
            iteration += 1
            shown = loss.item() if shown is None else 0.99 * shown + 0.01 * loss.item()
            bar.update()
            bar.set_postfix(loss=f"{shown:.4f}", refresh=False)
            if now - saved > SAVE:
                save(dict(zip(names, average)), now - start, iteration)
                saved = now
    save(dict(zip(names, average)), time.monotonic() - start, iteration)


def resumed(network, path):
    """Fill `network` with the weights at `path`; the seconds and iterations spent on them."""
    read_weights(network, path)
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    return int(notes["training seconds"]), int(notes["iterations"])


def train_digits(name, images, labels, minutes, seed, batch, resume):
    """Train one diffusion model, anew or on from its file, and save its weights' moving average."""
    torch.manual_seed(seed)
    model = Digits(name.removeprefix("digits-"))
    begun(model.network)
    path = FOLDER / f"{name}.safetensors"
    spent, done = resumed(model.network, path) if resume else (0, 0)
    generator = torch.Generator().manual_seed(seed + done)  # resumed: other batches than before
    model.network.to(memory_format=torch.channels_last)
    loss = {"eps": loss_eps, "flow": loss_flow}[model.prediction]
    batches = Batches(len(images), batch, generator)

    def loss_of():
        picked = batches.next()
        dropped = torch.rand(len(picked), generator=generator) < DROP
        return loss(model, images[picked], labels[picked].masked_fill(dropped, NULL), generator)

    def save(average, seconds, iterations):
        notes = {"prediction": model.prediction, "data set": "MNIST train, 60000 images"}
        notes |= {"training seconds": spent + round(seconds), "iterations": done + iterations}
        write(path, average, notes | {"batch": batch, "seed": seed, "data licence": LICENCE})

    descend(model.network, loss_of, minutes, name, save)


def train_features(images, labels, minutes, seed, batch):
    """Train the classifier whose features the Fréchet distance is measured in."""
    torch.manual_seed(seed)
    model = Classifier().to(memory_format=torch.channels_last)
    batches = Batches(len(images), batch, torch.Generator().manual_seed(seed))

    def loss_of():
        picked = batches.next()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(images[picked])
        return F.cross_entropy(logits.float(), labels[picked], label_smoothing=0.05)

    def save(average, seconds, iterations):
        notes = {"prediction": "digit class", "data set": "MNIST train, 60000 images"}
        notes |= {"training seconds": round(seconds), "iterations": iterations, "batch": batch}
        buffers = dict(model.named_buffers())  # the running mean and variance of the norms
        write(FEATURES, average | buffers, notes | {"seed": seed, "data licence": LICENCE})

    descend(model, loss_of, minutes, "features", save)


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False), help="MNIST folder.")
@click.option("--model", type=click.Choice([*NAMES, "features", "all"]), default="all")
@click.option("--minutes", default=30.0, show_default=True, help="Training time of each model.")
@click.option("--batch", default=64, show_default=True, help="Images per iteration.")
@click.option("--seed", default=0, show_default=True)
@click.option("--resume", is_flag=True, help="Train on from the bundled diffusion weights.")
@click.option("--threads", default=0, help="CPU threads; 0 leaves the choice to torch.")
@click.option("--evaluate", "measure", is_flag=True, help="Measure the bundled weights, train nothing.")
@click.option("--count", default=5000, show_default=True, help="Samples per measurement.")
@click.option("--sheets", type=click.Path(file_okay=False), help="Folder for PNG sheets of samples.")
def main(data, model, minutes, batch, seed, resume, threads, measure, count, sheets):
    """Train the bundled digit models and their feature network, or measure them."""
    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    images, labels = read(data, "train")
    if measure:
        names = [n for n in NAMES if model in (n, "all")]
        evaluate(names, images, read(data, "test")[0], count, seed, sheets)
        return
    if model in ("features", "all"):
        train_features(images, labels, min(minutes, 3.0), seed, batch)
    for name in NAMES:
        if model in (name, "all"):
            train_digits(name, images, labels, minutes, seed, batch, resume)


if __name__ == "__main__":
    main()
