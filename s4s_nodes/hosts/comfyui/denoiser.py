"""MODEL and conditionings -> a Source to learn from, alive inside one `guider.sample` of the host.

Everything between (x, sigma) and the denoised image is the host's: loading and offloading, LoRA patches, quantization,
ControlNets, areas, hooks, guidance. The trainer is run where the host would run a sampler, so all of it is in place.
"""

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ....training.sizes import of_sizes
from ....training.source import NOISE_SCALE, Source, host_source
from ....training.weights import digest
from ...core import experts
from ...core.levels import starts_at
from ...core.preset_file import Model
from . import facts, fingerprint

MOST_IMAGES = 16            # per network call: beyond it a GPU is full and a CPU gains nothing


@dataclass
class Scene:
    """What a node is given to sample with: the model, what is asked of it, and the size of a picture.

    positives: a list of the host's CONDITIONINGs, image i is asked for number i modulo their count; negative may
    be None if cfg is 1. latent: the host's LATENT, of which only the size counts; more_latents: those of other
    sizes. low_noise: of two models, what is sampled with the second from the level `boundary` on. teacher: what is
    sampled with another model, which makes the targets.
    """

    patcher: object
    positives: list
    negative: list | None
    cfg: float
    latent: dict
    low_noise: "Scene | None" = None
    boundary: float = 0.0
    more_latents: tuple = ()
    teacher: "Scene | None" = None

    def __post_init__(self):
        if self.teacher and (self.more_latents or self.low_noise):
            raise ValueError("teacher_model is for one model at one size: leave low_noise_model, latent_2 and latent_3 "
                             "unconnected")
        if self.more_latents and self.low_noise:
            raise ValueError("several sizes are for one model: leave latent_2 and latent_3 unconnected")
        if self.negative is None and self.cfg != 1.0:
            raise ValueError(f"cfg is {self.cfg:g} but no negative conditioning is connected: connect one, or set cfg "
                             "to 1 for a model that is sampled without guidance")


class Guider(comfy.samplers.CFGGuider):
    """The host's guider with several positives, each prepared by the host as if it were the only one, for every size.

    others: shapes (n, ...) of the states of other sizes. prepared: for each size, what is asked of each positive.
    """

    def __init__(self, scene: Scene, others: list):
        super().__init__(scene.patcher)
        named = {f"positive {i}": positive for i, positive in enumerate(scene.positives)}
        self.inner_set_conds(named if scene.negative is None else {**named, "negative": scene.negative})
        self.set_cfg(scene.cfg)
        self.others, self.prepared = others, []

    def inner_sample(self, noise, latent_image, device, sampler, *rest, **options):
        """Let the host prepare every pair of conditionings, then run the sampler."""
        every = self.conds
        try:
            self._prepare(every, noise, latent_image, device, *rest, **options)
            for zeros in map(noise.new_zeros, self.others):
                fitting = {name: [zeros.shape] for name in options if name == "latent_shapes"}     # of a newer host
                self._prepare(every, zeros, zeros, device, *rest, **{**options, **fitting})
            self._take(every, "positive 0")         # a fresh copy: nothing must be prepared twice
            return super().inner_sample(noise, latent_image, device, sampler, *rest, **options)
        finally:
            self.conds = every                      # the host cleans up the ControlNets it finds here

    def _prepare(self, every: dict, noise, latent_image, device, *rest, **options):
        """Remember what the host makes of every positive for states of this size."""
        self.prepared.append([])
        for name in (name for name in every if name.startswith("positive")):
            self._take(every, name)
            remember = Inside(lambda *_: self.prepared[-1].append(self.conds))
            super().inner_sample(noise, latent_image, device, remember, *rest, **options)

    def _take(self, every: dict, positive: str) -> None:
        """Make this positive, with the negative, all that the host knows of; it writes into what it is given."""
        self.conds = {"positive": list(every[positive])}
        if "negative" in every:
            self.conds["negative"] = list(every["negative"])


class Inside(comfy.samplers.Sampler):
    """Where the host would run a sampler, run `work(guider, extra_args, noise)` and keep its result."""

    def __init__(self, work: Callable):
        self.work, self.result = work, None

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None,
               disable_pbar=False):
        self.result = self.work(model_wrap, extra_args, noise)
        return torch.zeros_like(noise)


def inside(scene: Scene, model: Model, work: Callable):
    """work(source)'s result, computed with everything loaded and patched as the host does it to sample.

    Of two models one is sampled inside a sampling of the other, and the source asks both, or learns from the other.
    """
    if other := scene.teacher or scene.low_noise:
        joined = taught if scene.teacher else partial(of_both, boundary=scene.boundary)
        alone = replace(scene, teacher=None, low_noise=None)
        return inside(alone, model, lambda first: inside(other, model, lambda second: work(joined(first, second))))
    sizes = [scene.latent, *scene.more_latents]
    images = min(images_at_once(scene.patcher, latent) for latent in sizes)
    latent, *others = sorted((empty_latent(scene.patcher, latent, images) for latent in sizes),
                             key=lambda each: -each.numel())       # the host loads the model for the first one's size

    def in_place(guider, extra_args, noise):
        sampling, states = guider.inner_model.model_sampling, [noise, *map(noise.new_zeros, guider.others)]
        scale = getattr(sampling, "noise_scale", 1.0)               # of HiDream O1
        about = {**({} if scale == 1.0 else {NOISE_SCALE: scale}), **facts.recorded(guider)}
        weights = digest(fingerprint.weights(guider.inner_model, scene.patcher).values())
        return work(of_sizes([
            host_source(Network(guider, extra_args, prepared), model, sampling.sigmas, state, len(scene.positives),
                        scene.cfg, images, weights, **about)
            for prepared, state in zip(guider.prepared, states, strict=True)], len(scene.positives)))
    sampler = Inside(in_place)
    sigmas = torch.tensor([model.sigma_max, 0.0])
    guider = Guider(scene, [other.shape for other in others])
    guider.sample(comfy.sample.prepare_noise(latent, 0), latent, sampler, sigmas, seed=0, disable_pbar=True)
    return sampler.result


def empty_latent(patcher, latent: dict, images: int) -> Tensor:
    """Zeros of the size of the first picture in the LATENT, in the model's own layout, `images` times."""
    samples = latent["samples"]
    fit = comfy.sample.fix_empty_latent_channels  # newer hosts also adjust the size of another model's empty latent
    options = {name: latent.get(name) for name in ("downscale_ratio_spacial", "downscale_ratio_temporal")
               if name in inspect.signature(fit).parameters}
    samples = fit(patcher, torch.zeros_like(samples[:1]), **options)
    return samples.repeat(images, *[1] * (samples.ndim - 1))


def images_at_once(patcher, latent: dict) -> int:
    """How many images the device should take in one network call, by the host's own estimate."""
    room = comfy.model_management.get_total_memory(patcher.load_device) - patcher.model_size()
    one = patcher.memory_required([2, *empty_latent(patcher, latent, 1).shape[1:]])     # 2: with and without prompt
    return int(max(1, min(MOST_IMAGES, 0.8 * room // max(one, 1))))


class Network:
    """(x, sigma, which, cfg) -> denoised through the guider, one conditioning at a time, prepared for states of a size.

    Raises the host's interruption before each call of the model. turn: the one that is loaded, in a list it shares with
    those it takes turns with: the host may have given its room to another.
    """

    def __init__(self, guider: Guider, extra_args: dict, prepared: list):
        self.guider, self.extra_args, self.prepared, self.turn = guider, extra_args, prepared, [self]

    def __call__(self, x: Tensor, sigma: Tensor, which: Tensor, cfg: Tensor | None = None) -> Tensor:
        if self.turn[0] is not self:
            self._load(x)
        if cfg is not None:
            self.guider.set_cfg(float(cfg[0]))

        def answer(here: Tensor) -> Tensor:
            comfy.model_management.throw_exception_if_processing_interrupted()
            self.guider.conds = self.prepared[int(which[here[0]])]
            with torch.inference_mode():
                return self.guider(x[here], sigma[here], **self.extra_args)
        return by_prompt(which, answer)

    def _load(self, x: Tensor) -> None:
        patcher, others = self.guider.model_patcher, list(self.guider.loaded_models)
        room = patcher.memory_required([2 * len(x), *x.shape[1:]])
        comfy.model_management.load_models_gpu([patcher, *others], memory_required=room)
        self.turn[0] = self


def of_both(high: Source, low: Source, boundary: float) -> Source:
    """The Source that asks the first model above the boundary, and the second from there on, each at its cfg."""
    high.network.turn = low.network.turn

    def network(x: Tensor, sigma: Tensor, which: Tensor, cfg: Tensor | None = None) -> Tensor:
        above, done = experts.is_high(sigma, boundary), torch.empty_like(x)
        for asked, here, scales in ((high.network, above, cfg), (low.network, ~above, None)):   # cfg is the first's
            if here.any():
                done[here] = asked(x[here], sigma[here], which[here], scales)
        return done
    return replace(high, network=network, chunk=min(high.chunk, low.chunk), weights=f"{high.weights}{low.weights}",
                   about={**high.about, experts.KEY: {"boundary": boundary, "cfg": low.cfg}})


def taught(student: Source, teacher: Source) -> Source:
    """The student's Source, with the teacher's to make its targets."""
    student.network.turn = teacher.network.turn
    return replace(student, chunk=min(student.chunk, teacher.chunk),
                   teacher_source=replace(teacher, name="teacher_model"))


def by_prompt(which: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """answer(places of its images) of one prompt after another, in the order of the images."""
    places = [torch.nonzero(which == index).flatten() for index in which.unique()]
    return torch.cat([answer(here) for here in places])[torch.cat(places).argsort()]


def teacher_of(source: Source, sampler, sigmas: Tensor) -> tuple[Callable, Tensor]:
    """A SAMPLER and its SIGMAS as Source.teacher. Raises ValueError if they cannot make whole pictures."""
    if not hasattr(sampler, "sampler_function"):
        raise ValueError(f"the teacher is a {type(sampler).__name__}, which runs its own loop: connect a SAMPLER "
                         "from KSamplerSelect or another of the host's sampler nodes")
    if len(sigmas) < 2 or not starts_at(float(sigmas[0]), source.sigma_max):
        first = f"start at {float(sigmas[0]):g}" if len(sigmas) else "are empty"
        raise ValueError(f"the teacher's SIGMAS {first}, the model's pictures begin at {source.sigma_max:g}: make them "
                         "with denoise 1")
    network, seeds = source.network, itertools.count()      # another seed each time, so that drawn noise shows

    def run(denoiser, x, levels, extra, disable):
        def model(x, sigma, model_options=None, seed=None, denoise_mask=None, **extra):
            before = network.extra_args             # some samplers hang functions into the model's options
            network.extra_args = before if model_options is None else {**before, "model_options": model_options}
            try:
                return denoiser(x, sigma, **extra)
            finally:
                network.extra_args = before
        model.inner_model = network.guider          # which some samplers read
        arguments = {**extra, "model_options": network.extra_args["model_options"], "seed": next(seeds)}
        return sampler.sampler_function(model, x, levels.clone(), extra_args=arguments, callback=None, disable=disable,
                                        **sampler.extra_options)

    def teach(denoiser, x, levels, extra_args, disable=True):
        # one prompt and one call's images at a time: some samplers read the model's whole last answer
        def ends(here: Tensor) -> Tensor:
            chunk = denoiser.__self__.chunk                 # of the Source, which halves it when memory runs out
            if len(here) > chunk:
                return torch.cat([ends(some) for some in here.split(chunk)])
            try:
                return run(denoiser, x[here], levels, {name: each[here] for name, each in extra_args.items()}, disable)
            except RuntimeError:
                if denoiser.__self__.chunk == chunk:
                    raise
                return ends(here)
        return by_prompt(extra_args["which"], ends)
    teach.__name__ = getattr(sampler.sampler_function, "__name__", "sampler").removeprefix("sample_")
    return teach, sigmas
