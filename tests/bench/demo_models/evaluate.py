"""Measures the bundled models: Fréchet distance, class accuracy, speed, and sheets to look at."""

import time
from pathlib import Path

import click
import torch
from PIL import Image
from tqdm import tqdm

from s4s.s4s_nodes.core import classical, sample as carry, schedules
from s4s.training.benchmark import frechet
from s4s.training.demo_models.models import load, load_classifier
from s4s.training.source import guided

CHUNK = 250  # images sampled at once


@torch.inference_mode()
def sample(model, label, scale, steps, generator):
    """Images (B, 1, 28, 28) of the classes label (B,) by Heun's method, 2 steps - 1 calls."""
    flow = model.prediction == "flow"
    low, top = (0.001, 1.0) if flow else map(float, model.sigmas[[0, -1]])
    levels = schedules.linear_flow(steps) if flow else schedules.karras(steps, low, top)
    start = top * torch.randn(len(label), *model.shape, generator=generator)
    network = guided(model.denoise, scale, model.null)
    return carry(network, start, classical.heun(levels, flow), {"label": label}).clamp(-1, 1)


def draw(model, count, scale, steps, seed, label=""):
    """`count` samples of the ten classes in turn: images (count, 1, 28, 28), labels (count,)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % model.classes
    parts = tqdm(labels.split(CHUNK), desc=label, leave=False)
    # bf16 halves the time; it moves the images by 0.005 of their range, and no distance visibly.
    with torch.autocast("cpu", torch.bfloat16):
        return torch.cat([sample(model, part, scale, steps, generator) for part in parts]), labels


@torch.inference_mode()
def describe(net, images):
    """Features (N, 64) and predicted classes (N,) of images (N, 1, 28, 28)."""
    found = torch.cat([net.features(part) for part in images.split(1000)])
    return found, net.head(found).argmax(dim=1)


def speed(model, batch=16, repeats=30):
    """Milliseconds of one network evaluation of a batch of 16, the fastest of `repeats`."""
    x, sigma = torch.randn(batch, *model.shape), torch.full((batch,), 0.5)
    label = torch.arange(batch) % model.classes
    times = []
    with torch.no_grad():
        for _ in range(repeats):
            start = time.perf_counter()
            model.denoise(x, sigma, label)
            times.append(time.perf_counter() - start)
    return 1000 * min(times)


def sheet(model, path, seed, scale=3.0, steps=25):
    """A PNG of ten samples (a column each) of ten classes (a row each), enlarged twofold."""
    images, _ = draw(model, 100, scale, steps, seed)
    rows = images.view(10, 10, 28, 28).permute(1, 2, 0, 3).reshape(280, 280)  # class by class
    grey = ((rows + 1) * 127.5).round().to(torch.uint8).numpy()
    picture = Image.fromarray(grey).resize((560, 560), Image.Resampling.NEAREST)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, optimize=True)


def evaluate(names, train, test, count, seed, sheets):
    """Print the table of measurements; write one sheet per model into folder `sheets`, if any."""
    net = load_classifier()
    wanted, _ = describe(net, test)
    floor = frechet.distance(describe(net, train[:count])[0].numpy(), wanted.numpy())
    click.echo(f"floor, {count} train images: Fréchet {floor:.3f}")
    click.echo(f"{'model':<12} {'CFG':>4} {'Fréchet':>8} {'class right':>12} {'ms / 16':>8}")
    for name in names:
        model = load(name)
        if sheets:
            sheet(model, Path(sheets) / f"{name}.png", seed)
        for scale in (1.0, 3.0):
            images, labels = draw(model, count, scale, 25, seed, f"{name} CFG {scale:g}")
            described, guess = describe(net, images)
            right = (guess == labels).float().mean().item()
            distance = frechet.distance(described.numpy(), wanted.numpy())
            line = f"{name:<12} {scale:>4g} {distance:>8.3f} {right:>12.2%} {speed(model):>8.1f}"
            click.echo(line)
