"""Work inside the host's own txt2img: prompts, LoRAs, guidance, memory and interrupt are the host's.

A txt2img of the prompts is started as any other; where the host would run our sampler, it does the work (a training, a
race) on the host's guided denoiser instead, and asks for no picture.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from functools import partial

import torch
from modules import call_queue, processing, scripts, sd_samplers_common, shared
from torch import Tensor

from ....training.sizes import of_sizes
from ....training.source import host_source
from ... import picture
from . import facts, labels, sampler, shelf

log = logging.getLogger("S4S")
AT_ONCE = 4                 # images in a network call at most
EVERY, SHARE = 4.0, 0.05    # live previews: least seconds between two, and their largest share of the time
CHEAP = 2                   # the hosts' number for linear colors instead of the whole autoencoder


@dataclass(frozen=True)
class Scene:
    """What is sampled: every image is made for one of the prompts, of one of the sizes in pixels, at one cfg."""

    prompts: tuple
    negative: str = ""
    cfg: float = 5.0
    width: int = 512
    height: int = 512
    more_sizes: tuple = ()

    def __post_init__(self):
        if not self.prompts:
            raise ValueError("no prompt is given: write at least one that is typical of what you make, one per line")

    @property
    def sizes(self) -> list[tuple]:
        """(width, height) of each, the largest first: the host makes room for that."""
        several = {(self.width, self.height), *map(tuple, self.more_sizes)}
        return sorted(several, key=lambda size: (-size[0] * size[1], size))


@dataclass
class Show:
    """What a person sees: messages that stay, and a line, a picture and the progress, which change.

    began: whether the host runs it now; stopped: whether the user wants it ended.
    """

    messages: list = field(default_factory=list)
    line: str = ""
    done: int = 0
    total: int = 0
    picture: object = None
    page: object = None         # the file of its report
    began: bool = False
    stopped: bool = False
    _due: float = 0.0

    def say(self, words: str, warning: bool = False) -> None:
        log.warning("S4S: %s", words)
        self.messages.append(shelf.without_places(words))

    def show(self, done: int, total: int, line: str, preview: Callable | None = None) -> None:
        """In the tab, and by the host's own progress bar and live preview, which is drawn if it is time."""
        self.done, self.total, self.line = int(done), max(int(total), 1), line
        shared.state.sampling_step, shared.state.sampling_steps = self.done, self.total
        began = time.monotonic()
        if preview is None or began < self._due:
            return
        student, teacher = preview()                  # asks the network: an interrupt passes
        try:
            decoder = sd_samplers_common.approximation_indexes.get(shared.opts.show_progress_type, 0) or CHEAP
            self.picture = sheet([("learned so far", "", student), ("teacher", "", teacher)], decoder)
            shared.state.assign_current_image(self.picture)
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:      # a latent without a quick decoder
            log.info("S4S cannot draw a preview: %s", error)
        end = time.monotonic()
        self._due = end + max(EVERY, (end - began) / SHARE)


class Finished(Exception):
    """Raised when the work is done, because no picture is wanted."""


def inside(scene: Scene, steps: int, show: Show, work: Callable) -> None:
    """Do work(source) where the host samples the scene in so many steps. The host's interrupt ends it."""
    prompts = [scene.prompts[i % len(scene.prompts)] for i in range(max(AT_ONCE, len(scene.prompts)))]
    with call_queue.queue_lock:
        shared.state.begin(job="s4s")               # clears an earlier interrupt
        show.began = True
        if show.stopped:
            shared.state.interrupt()
        try:
            p = processing.StableDiffusionProcessingTxt2Img(
                sd_model=shared.sd_model, prompt=prompts, negative_prompt=scene.negative, batch_size=len(prompts),
                width=scene.sizes[0][0], height=scene.sizes[0][1], cfg_scale=scene.cfg, steps=steps, seed=0,
                sampler_name=labels.SAMPLER, do_not_save_samples=True, do_not_save_grid=True, s_min_uncond=0.0,
                override_settings={name: 0.0 for name in facts.TURNS if name in shared.opts.data_labels})
            p.s4s_work = Stage(scene, work)
            p.setup_conds = partial(p.s4s_work.prepare, p, p.setup_conds)
            p.scripts, p.script_args = scripts.ScriptRunner(), ()   # no script's: reForge requires it
            with contextlib.closing(p), contextlib.suppress(Finished):
                processing.process_images(p)
        finally:
            show.began = False
            shared.state.end()


class Stage:
    """What our sampler's place in the host does instead of sampling."""

    def __init__(self, scene: Scene, work: Callable):
        self.scene, self.work, self.prepared = scene, work, {}

    def prepare(self, p, setup_conds: Callable) -> None:
        """Have the host read the prompts for every size, which some models are told with them; its own last."""
        for p.width, p.height in reversed(self.scene.sizes):
            setup_conds()
            self.prepared[p.width, p.height] = {"cond": p.c, "uncond": p.uc}

    def __call__(self, denoiser, x: Tensor, extra_args: dict, run: sampler.Run) -> None:
        (wide, high), *others = self.scene.sizes
        states, told = [x], [extra_args]
        for width, height in others:
            states.append(x.new_zeros(*x.shape[:-2], x.shape[-2] * height // high, x.shape[-1] * width // wide))
            image = run.p.txt2img_image_conditioning(states[-1], width, height)
            told.append({**extra_args, **self.prepared[width, height], "image_cond": image})
        guidance = facts.told_guidance(run.p)
        about = {"guidance": guidance[0]} if guidance else {}
        self.work(of_sizes([host_source(Network(denoiser, each), run.request.facts.model, denoiser.inner_model.sigmas,
                                        state, len(self.scene.prompts), self.scene.cfg, AT_ONCE, **about)
                            for each, state in zip(told, states, strict=True)], len(self.scene.prompts)))
        raise Finished


class Network:
    """(x, sigma, which, cfg) -> denoised by the host's guided denoiser, image i under prompt which[i].

    The host's interrupt is raised by its denoiser before each call. Every call is step 0 of the host's count, so that
    prompt editing and settings by step stay out of what is learned.
    """

    def __init__(self, denoiser, extra_args: dict):
        self.denoiser, self.extra_args = denoiser, extra_args
        self.inference = torch.is_inference_mode_enabled()          # as the host samples: its weights may demand it

    def __call__(self, x: Tensor, sigma: Tensor, which: Tensor, cfg: Tensor | None = None) -> Tensor:
        self.denoiser.step, arguments = 0, self._for(which.tolist())
        if cfg is not None:
            arguments["cond_scale"] = float(cfg[0])
        with torch.inference_mode() if self.inference else contextlib.nullcontext():
            answer = self.denoiser(x, sigma, **arguments)
        return answer.clone()                                       # outside inference mode: a normal tensor

    def _for(self, which: list) -> dict:
        cond, uncond, image = (self.extra_args[name] for name in ("cond", "uncond", "image_cond"))
        picked = copy(cond)
        picked.batch = [cond.batch[i] for i in which]
        return {**self.extra_args, "cond": picked, "uncond": None if uncond is None else [uncond[i] for i in which],
                "image_cond": image[which] if isinstance(image, Tensor) else image}


def sheet(rows: list, decoder: int, title: str = "", note: str = ""):
    """Rows (label, caption, latents (n, ...)) as one picture; decoder: the host's number, 0 for the autoencoder."""
    return picture.sheet([(label, caption, [sd_samplers_common.single_sample_to_image(one, decoder)
                                            for one in latents]) for label, caption, latents in rows], title, note)
