"""What a training learns on: a guided network as a k-diffusion denoiser, with its conditions."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..s4s_nodes.core import Model, experts
from ..s4s_nodes.core.scores import size_record
from .weights import digest_of

MOST_AT_ONCE = 64           # images per network call, unless the source says less
SIZE = "size"               # key in `extra` of a source of several sizes: the number of each image's size
NOISE_SCALE = "noise_scale" # key in `about` of a model with stronger than unit noise: how many times


class NaNFromModel(ValueError):
    """The network answered NaN or infinity, so nothing can be learned from it. diverged: so was its input."""

    def __init__(self, words: str, diverged: bool = False):
        super().__init__(words)
        self.diverged = diverged


@dataclass
class Source:
    """A denoiser and everything needed to sample it by seed.

    Args:
        name: of the model.
        model: what its presets are for.
        levels: the model's own noise levels (sigma; a flow: s), rising.
        shape: of one state, such as (4, 64, 64).
        network: (x (B, *shape), sigma (B,), **extra) -> denoised (B, *shape), k-diffusion's convention with guidance.
        conditions: seeds -> extra for these seeds: tensors whose first dimension is the batch. A host with several
            conditions gives {"which": LongTensor} and groups by it.
        cfg: the guidance scale; for two models, the first one's.
        device: of the states.
        model_calls: counts network evaluations, one per image (under guidance, with and without the prompt, once).
        on_model_calls: on_model_calls(images) runs before every batch.
        teacher: (k-diffusion sampler function, its sigmas); None: the configuration's classical solver.
        teacher_source: another model that makes the targets from the same noise and conditions, at its own cfg.
        chunk: images per network call, halved when memory runs out.
        say: say(text) is told of memory that ran out.
        decode: latents (n, *shape) -> images (n, 1 or 3, H, W) in -1..1; None: the states are images.
        any_cfg: whether the network is also told the cfg (B,) and can be sampled at any.
        features: images (n, 1 or 3, H, W) -> (n, F), the space in which a race measures the Fréchet distance, or None.
        feature_space: the name of that space.
        about: what else a preset records; a resumed run must find the same. For two models that take turns
            (core/experts.py): {"experts": {"boundary": sigma, "cfg": the second one's}}.
        conditioning: identifies its conditions if neither the settings nor `about` do.
        weights: identifies the network's weights; None: a digest of the modules that `network` reaches.
        calls_before: the model_calls of a run's earlier sessions.
    """

    name: str
    model: Model
    levels: np.ndarray
    shape: tuple
    network: Callable
    conditions: Callable
    cfg: float
    device: torch.device
    model_calls: int = 0
    on_model_calls: Callable | None = None
    teacher: tuple | None = None
    teacher_source: "Source | None" = None
    chunk: int = MOST_AT_ONCE
    say: Callable | None = None
    decode: Callable | None = None
    any_cfg: bool = False
    features: Callable | None = None
    feature_space: str = ""
    about: dict = field(default_factory=dict)
    conditioning: str = ""
    weights: str | None = None
    calls_before: int = 0

    @property
    def all_calls(self) -> int:
        """Network calls of the run so far, all sessions together."""
        return self.calls_before + self.model_calls

    @property
    def shapes(self) -> list[tuple]:
        """The shapes of its images: of several sizes (sizes.py) largest first."""
        return [tuple(self.shape)]

    @property
    def size(self) -> list:
        """The size of its images as a record has it: [height, width], or a list of these."""
        return size_record(shape[1:] for shape in self.shapes)

    @property
    def flow(self) -> bool:
        return self.model.flow

    @property
    def sigma_max(self) -> float:
        return float(self.levels[-1])

    @property
    def boundary(self) -> float | None:
        """The level at which two models change; None for one model."""
        return self.about[experts.KEY]["boundary"] if experts.KEY in self.about else None

    def extra(self, seeds) -> dict:
        """What the network is told of these seeds beside state and level."""
        conditions = self.conditions(seeds)
        scale = {"cfg": torch.full((len(seeds),), self.cfg, device=self.device)} if self.any_cfg else {}
        return {**conditions, **scale}

    def denoiser(self, x: Tensor, sigma: Tensor, **extra) -> Tensor:
        """The guided denoiser, counted, in parts of at most `chunk` images. Raises NaNFromModel on its first NaN.

        If memory runs out, the parts are halved; at one image the error passes through.
        """
        done: list[Tensor] = []
        while (start := sum([len(part) for part in done])) < len(x):
            part = slice(start, start + self.chunk)
            shown, level = x[part], sigma[part]
            if self.on_model_calls is not None:
                self.on_model_calls(len(shown))
            try:
                answer = self.network(shown, level, **{name: value[part] for name, value in extra.items()})
            except (RuntimeError, MemoryError) as error:
                self.chunk = halved(len(shown), error)
                if self.say is not None:
                    self.say(f"memory ran out with {len(shown)} images in one call: continuing with {self.chunk}")
                continue
            self.model_calls += len(shown)
            done.append(self._checked(answer, shown, level))
        return done[0] if len(done) == 1 else torch.cat(done)

    def _checked(self, denoised: Tensor, x: Tensor, sigma: Tensor) -> Tensor:
        bad = ~torch.isfinite(denoised.flatten(1)).all(1)
        if bool(bad.any()):
            diverged = not bool(torch.isfinite(x).all())
            state = "already not finite" if diverged else "finite"
            level = float(sigma.detach()[bad][0])
            raise NaNFromModel(
                f"{self.name} answered NaN or infinity at sigma {level:.4g} for {int(bad.sum())} of {len(x)} images "
                f"(the state shown was {state}): try full precision, another VAE or checkpoint, or a lower cfg",
                diverged)
        return denoised

    def noise(self, seeds, fresh: int = 0) -> Tensor:
        """The model's noise (len(seeds), *shape), one generator per seed: an image does not depend on its batch.

        fresh: added to each seed, for other noise of the same image.
        """
        drawn = [torch.randn(self.shape, generator=torch.Generator().manual_seed(int(seed) + fresh)) for seed in seeds]
        return torch.stack(drawn).to(self.device) * self.about.get(NOISE_SCALE, 1.0)

    def images(self, states: Tensor, extra: dict) -> Tensor:
        return states


def by_turns(prompts: int, device: torch.device) -> Callable:
    """Source.conditions where seed i has prompt number i modulo `prompts`: {"which": the numbers}."""
    return lambda seeds: {"which": torch.tensor([int(seed) % prompts for seed in seeds], device=device)}


def host_source(network: Callable, model: Model, levels: Tensor, x: Tensor, prompts: int, cfg: float,
                chunk: int, weights: str = "", **about) -> Source:
    """The Source of a host's guided network for states like x (n, ...).

    network(x, sigma (B,), which (B,), cfg (B,)): one cfg for a whole call; which: the number of each image's prompt.
    weights: digest of what the model's hashes leave out.
    """
    return Source(model.family, model, levels.detach().cpu().double().numpy().copy(), tuple(x.shape[1:]), network,
                  by_turns(prompts, x.device), cfg, x.device, chunk=chunk, any_cfg=True, about=about, weights=weights)


def identity_of(source: Source) -> str:
    """A text that identifies the targets of a source: its models with their weights, guidance, size and prompts."""
    about = sorted(map(str, source.about.items()))
    first, *others = source.shapes
    facts = (source.name, source.model, (first, *others) if others else first, source.cfg, about, source.conditioning,
             digest_of(source.network) if source.weights is None else source.weights,
             *([identity_of(source.teacher_source)] if source.teacher_source else []))
    levels = np.ascontiguousarray(source.levels, dtype="<f8").tobytes()
    return hashlib.sha256(repr(facts).encode() + levels).hexdigest()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means out of memory, on any device and in any version of PyTorch."""
    named = isinstance(error, (MemoryError, getattr(torch, "OutOfMemoryError", MemoryError)))
    text = str(error).lower()
    return named or isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)


def halved(images: int, error: Exception) -> int:
    """How many images to try after memory ran out with these; raises any other error, and that of a single image."""
    if images < 2 or not out_of_memory(error):
        raise error
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return images // 2


def guided(denoise: Callable, scale: float, null: int) -> Callable:
    """Classifier-free guidance (Ho and Salimans 2022) around denoise(x, sigma, label): D0 + cfg (D - D0).

    cfg is `scale`, unless the call brings its own (B,).
    """
    def network(x: Tensor, sigma: Tensor, label: Tensor, cfg: Tensor | None = None) -> Tensor:
        if scale == 1.0 if cfg is None else bool((cfg == 1.0).all()):
            return denoise(x, sigma, label)
        both = denoise(torch.cat([x, x]), torch.cat([sigma, sigma]),
                       torch.cat([label, torch.full_like(label, null)]))
        with_label, without = both.chunk(2)
        weight = scale if cfg is None else cfg.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))
        return without + weight * (with_label - without)
    return network


def pick_device(name: str) -> torch.device:
    """auto: CUDA, else Apple's MPS, else CPU. Raises ValueError for a device this machine lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"no device {name!r} here ({str(error).splitlines()[0][:80]}): try --device cpu") from None
    return torch.device(name)
