"""MNIST as the training of the bundled models reads it."""

from pathlib import Path

import click
import numpy as np
import torch


def read(folder, part):
    """Images (n, 1, 28, 28) float32 in -1..1 and labels (n,) long of "train" or "test"."""
    path = Path(folder) / f"mnist_{part}.npz"
    if not path.is_file():
        raise click.ClickException(f"no file {path}; --data must hold mnist_train.npz, mnist_test.npz")
    with np.load(path) as data:
        images, labels = data["x"], data["y"]
    images = torch.from_numpy(images).float().div(127.5).sub(1)[:, None]
    return images, torch.from_numpy(labels.astype(np.int64))
