"""A small MNIST classifier and the Fréchet distance between images in its feature space.

The distance is that of FID (Heusel et al. 2017), with this classifier in Inception's place: its
values compare samplers of the bundled models with one another and with nothing else.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .models import FOLDER, read_weights

FILE = FOLDER / "digits-features.safetensors"


class Classifier(nn.Module):
    """Four convolutions, then 64 features, then 10 logits; images (B, 1, 28, 28) in -1..1."""

    def __init__(self, width=64):
        super().__init__()
        sizes = [(1, 16, 1), (16, 32, 2), (32, 32, 1), (32, 64, 2)]  # channels in, out, stride
        layers = []
        for inner, outer, stride in sizes:
            convolution = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(outer), nn.SiLU()]
        self.body = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten())
        self.last = nn.Linear(64 * 9, width)
        self.head = nn.Linear(width, 10)

    def features(self, x):
        """(B, 1, 28, 28) -> (B, 64), the layer before the logits."""
        return F.silu(self.last(self.body(x)))

    def forward(self, x):
        """(B, 1, 28, 28) -> logits (B, 10)."""
        return self.head(self.features(x))


def load(device="cpu"):
    """The bundled classifier, in eval mode, weights frozen, float32."""
    model = Classifier()
    read_weights(model, FILE)
    model.float().to(memory_format=torch.channels_last)
    return model.to(device).eval().requires_grad_(False)


def frechet(features_a, features_b):
    """Fréchet distance of the Gaussians fitted to two feature sets, (N, F) and (M, F) -> float.

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2), in float64.
    """
    a, b = features_a.double(), features_b.double()
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features of shapes {tuple(a.shape)} and {tuple(b.shape)}; wanted (N, F), (M, F)")
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # The product is symmetric, so the trace of its root is the sum of its eigenvalues' roots.
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    mean = (a.mean(0) - b.mean(0)).square().sum()
    return float(mean + cov_a.trace() + cov_b.trace() - 2 * cross)
