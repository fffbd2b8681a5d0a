"""Two small diffusion models of MNIST digits, trained and bundled with the project."""

from .models import NAMES, Digits, load

__all__ = ["NAMES", "Digits", "load"]
