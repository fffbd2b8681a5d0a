"""A training inside the host's own txt2img: prompts, LoRAs, guidance, memory and interrupt are the host's.

A txt2img of the prompts is started as any other; where the host would run our sampler, it runs the trainer on the
host's guided denoiser instead, and then the table that came of it, whose pictures the host decodes.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import logging
import shutil
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Callable

import torch
from modules import call_queue, paths, processing, shared
from torch import Tensor

from ...training import distil as trainer
from ...training.config import Config
from ...training.denoisers import Source
from ..core import preset as preset_file
from ..core import sample_table
from ..core.preset import Model, Preset
from ..library import file_name, save_new
from . import labels, rows, sampler, shelf

log = logging.getLogger("S4S")
AT_ONCE = 4                 # images in a network call at most


@dataclass(frozen=True)
class Wish:
    """What to train for: every image is made for one of the prompts, of one size, at one cfg."""

    name: str
    prompts: tuple
    negative: str = ""
    cfg: float = 5.0
    width: int = 512
    height: int = 512
    calls: tuple = (6,)
    windows: tuple = (1.0,)
    budget: int = trainer.HOST_BUDGET
    race_seeds: int = 8

    def __post_init__(self):
        if not self.prompts:
            raise ValueError("no prompt is given: write at least one, typical of what you make, a line each")

    @property
    def config(self) -> Config:
        """The trainer's page of it. Raises ValueError for what cannot work."""
        return Config(name=self.name, calls=self.calls, windows=self.windows, budget=self.budget, mode="forward")


@dataclass
class Outcome:
    """What came of it: the preset if it was finished, words, and pictures made with it."""

    preset: Preset | None = None
    words: list = field(default_factory=list)
    images: list = field(default_factory=list)


def train(wish: Wish, told: Callable[[str], None] = lambda words: None) -> Outcome:
    """Learn, race and save a preset for the loaded checkpoint; told(words) hears how it goes.

    The host's interrupt ends it: the run is kept, and the best tables so far are saved. The same wish again goes on.
    Raises ValueError in words for a wish that cannot work.
    """
    outcome, config = Outcome(), wish.config
    prompts = [wish.prompts[i % len(wish.prompts)] for i in range(max(AT_ONCE, len(wish.prompts)))]
    with call_queue.queue_lock:
        shared.state.begin(job="s4s_train")
        try:
            p = processing.StableDiffusionProcessingTxt2Img(
                sd_model=shared.sd_model, prompt=prompts, negative_prompt=wish.negative, batch_size=len(prompts),
                width=wish.width, height=wish.height, cfg_scale=wish.cfg, steps=max(config.calls), seed=0,
                sampler_name=labels.SAMPLER, do_not_save_samples=True, do_not_save_grid=True)
            p.s4s_work = Work(wish, outcome, told)
            with contextlib.closing(p):
                outcome.images = processing.process_images(p).images
        finally:
            shared.state.end()
    rows.register()                         # the new preset is a schedule type at once
    return outcome


class Work:
    """What our sampler's place in the host does while a preset is trained."""

    def __init__(self, wish: Wish, outcome: Outcome, told: Callable):
        self.wish, self.outcome, self.told = wish, outcome, told

    def __call__(self, denoiser, x: Tensor, extra_args: dict, run: sampler.Run) -> Tensor:
        """Train with the host's denoiser, then sample x with the table of the most calls."""
        model = model_of(run.facts)
        place, key = run_folder(self.wish, model)
        check_free(self.wish.name, model)
        source = self._source(denoiser, x, extra_args, model)
        try:
            made = self._learned(source, place, key)
        except BaseException:               # the host's interrupt too: it passes on
            self._say(keep_partial(self.wish.name, place, key))
            raise
        self.outcome.preset = self._judged(source, made)
        denoiser.step = 0
        return sample_table(denoiser, x, torch.tensor([0.0, 0.0]), extra_args, disable=True,
                            solver=lambda _: made.table(max(made.counts)))

    def _source(self, denoiser, x: Tensor, extra_args: dict, model: Model) -> Source:
        count = len(self.wish.prompts)

        def conditions(seeds):
            return {"which": torch.tensor([int(seed) % count for seed in seeds], device=x.device)}
        levels = denoiser.inner_model.sigmas.detach().double().cpu().numpy().copy()
        return Source(model.family, model, levels, tuple(x.shape[1:]), Network(denoiser, extra_args), conditions,
                      self.wish.cfg, x.device, chunk=AT_ONCE)

    def _learned(self, source: Source, place: Path, key: str) -> Preset:
        """As a finished run of the same wish left it, else learned now."""
        file = place / f"{self.wish.name}.safetensors"
        if (place / "finished").exists():
            self._say(f"this was trained before: taken from {place}; delete that folder to train again")
            return preset_file.load(file)
        config = self.wish.config
        self._say(trainer.estimate(source, config).words)
        made = trainer.distil(source, config, place, resume=True, on_progress=self._progress, say=self._say)
        made = replace(made, training={
            **made.training, "run": key, "conditionings": len(self.wish.prompts), "latent": list(source.shape),
            "created": datetime.date.today().isoformat()})
        preset_file.save(made, file)
        (place / "finished").touch()
        shutil.rmtree(place / "pairs", ignore_errors=True)      # hundreds of megabytes that nobody needs any more
        return made

    def _judged(self, source: Source, made: Preset) -> Preset:
        """The preset with its race on unseen seeds, saved where the host finds it."""
        scores = {}
        for name, table in made.tables.items():
            pairs = trainer.unseen_pairs(source, self.wish.race_seeds, table)
            raced = trainer.race(source, made, name, pairs, on_progress=self._counted)
            scores[name] = raced.scores
            self._say(f"{name}: {raced.verdict}")
        made = trainer.with_scores(made, scores)
        self._say(f"saved as {save_new(made, shelf.folder(), overwrite=True)}")
        return made

    def _progress(self, now: trainer.Progress) -> None:
        self._counted(now.done, now.total)
        left = f", about {now.seconds_left / 60:.0f} min left" if now.seconds_left == now.seconds_left else ""
        self.told(f"{now.phase} {now.table}: {now.done:,} of {now.total:,} network calls{left}; RMSE to the teacher "
                  f"{now.held_out:.4g}, best classical {now.classical:.4g}")

    @staticmethod
    def _counted(done: int, total: int) -> None:
        """For the host's own progress bar."""
        shared.state.sampling_step, shared.state.sampling_steps = int(done), max(int(total), 1)

    def _say(self, words: str) -> None:
        log.warning("S4S: %s", words)
        self.outcome.words.append(words)
        self.told(words)


class Network:
    """(x, sigma, which) -> denoised by the host's guided denoiser, image i under prompt which[i].

    The host's interrupt is raised by its denoiser before each call. Every call is step 0 of the host's count, so that
    prompt editing and settings by step stay out of what is learned.
    """

    def __init__(self, denoiser, extra_args: dict):
        self.denoiser, self.extra_args = denoiser, extra_args
        self.inference = torch.is_inference_mode_enabled()          # as the host samples: its weights may demand it

    def __call__(self, x: Tensor, sigma: Tensor, which: Tensor) -> Tensor:
        self.denoiser.step = 0
        with torch.inference_mode() if self.inference else contextlib.nullcontext():
            answer = self.denoiser(x, sigma, **self._for(which.tolist()))
        return answer.clone()                                       # outside: a tensor that may be worked with

    def _for(self, which: list) -> dict:
        """The host's arguments for a batch of these prompts."""
        cond, uncond, image = (self.extra_args[name] for name in ("cond", "uncond", "image_cond"))
        picked = copy(cond)
        picked.batch = [cond.batch[i] for i in which]
        return {**self.extra_args, "cond": picked, "uncond": None if uncond is None else [uncond[i] for i in which],
                "image_cond": image[which] if isinstance(image, Tensor) else image}


def model_of(seen) -> Model:
    """What a preset records of the model, from the facts a sampler sees: so they are found again."""
    return Model(seen.family or "unknown", seen.prediction, seen.sigma_min, seen.sigma_max, seen.zero_terminal_snr,
                 seen.shift, seen.channels, seen.fingerprint())


def run_folder(wish: Wish, model: Model) -> tuple[Path, str]:
    """(folder, key) of a run: another prompt, size, setting or checkpoint is another run."""
    key = hashlib.sha256(repr((asdict(replace(wish, race_seeds=0)), asdict(model))).encode()).hexdigest()[:10]
    return Path(paths.data_path) / "s4s_runs" / f"{file_name(wish.name)}-{key}", key


def check_free(name: str, model: Model) -> None:
    """Raise ValueError if the presets folder has this name for another model: it would be overwritten."""
    there = shelf.folder() / f"{file_name(name)}.safetensors"
    if there.exists() and preset_file.load(there).model.hashes != model.hashes:
        raise ValueError(f"{there} is a preset for another model: give this one another name")


def keep_partial(name: str, place: Path, key: str) -> str:
    """Copy a stopped run's best tables into the presets folder, if that has no other of the name; says what it did."""
    made, there = place / f"{name}.safetensors", shelf.folder() / f"{file_name(name)}.safetensors"
    if not made.exists():
        return "stopped before there was a table; the same again goes on"
    if there.exists() and preset_file.load(there).training.get("run") != key:
        return f"stopped; the best tables so far are in {made}, the same again goes on"
    preset = preset_file.load(made)
    save_new(replace(preset, training={**preset.training, "run": key}), shelf.folder(), overwrite=True)
    return f"stopped; the best tables so far are saved as {there}, the same again goes on"
