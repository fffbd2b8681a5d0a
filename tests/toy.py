"""A source without a network: the exact denoiser of a mixture, for tests of the trainer."""

from dataclasses import replace

import torch

from s4s.s4s_nodes.core import Model, mixture, schedules
from s4s.training.config import Config
from s4s.training.source import Source

SMALL = dict(calls=(4,), budget=0, teacher_calls=20, pairs=32, validation=16, iterations=2, schedule="karras")


def toy_source(flow=False, network=None):
    """Source over the mixture denoiser; its images are points of the plane."""
    levels = schedules.flow_levels() if flow else schedules.sd_levels()
    model = Model("toy", "flow" if flow else "eps", float(levels[0]), float(levels[-1]))

    def answer(x, sigma, label):
        return mixture(x, sigma, flow)

    def conditions(seeds):
        return {"label": torch.tensor([int(seed) % 3 for seed in seeds])}
    return Source("toy", model, levels, (2,), network or answer, conditions, 1.0, torch.device("cpu"))


def small(**changes):
    """A Config whose run takes a second."""
    return Config.of(**{**SMALL, **changes})


def noisy(source, size: float):
    """The source with noise in its network's answers, of this size relative to them."""
    generator, plain = torch.Generator().manual_seed(0), source.network

    def network(x, sigma, **extra):
        answer = plain(x, sigma, **extra)
        scale = size * answer.square().mean().sqrt()
        return answer + scale * torch.randn(answer.shape, generator=generator)
    return replace(source, network=network)


class OnApple(torch.Tensor):
    """A tensor as on Apple's GPUs, which know no float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        result = super().__torch_function__(func, types, args, kwargs or {})
        if func is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        if isinstance(result, cls) and result.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64")
        return result
