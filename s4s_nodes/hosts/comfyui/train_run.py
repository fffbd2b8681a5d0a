"""A training as a node starts it: where it is kept, which way it learns, what it proves at the end."""

from __future__ import annotations

import datetime
import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import folder_paths
from torch import Tensor

from ....training import distil as trainer
from ....training.benchmark.host_race import Terms, hold, table_lines
from ....training.benchmark.race import Raced
from ....training.config import Config
from ....training.modes import tries_gradients
from ....training.source import Source
from ...core import preset_file
from ...core.preset_file import Model, Preset
from ...library import file_name, save_version
from . import facts, folder, gradient
from .denoiser import Scene, inside, teacher_of
from .race_run import seen_rows, told
from .train_view import Show, painter

log = logging.getLogger("s4s")


@dataclass(frozen=True)
class Order:
    """What a training is asked for; teacher: (SAMPLER, SIGMAS) of the host, or None for the default."""

    scene: Scene
    config: Config
    teacher: tuple | None = None
    race_seeds: int = 8
    resume: bool = True


@dataclass(frozen=True)
class Trained:
    """The preset, where it was saved, its report, and rows of latents (name -> (n, ...)) to look at.

    shown: the rows as quick pictures (n, H, W, 3); latents: the same as a VAE takes them.
    """

    preset: Preset
    path: Path
    report: str
    shown: dict
    latents: dict


def train(order: Order, show: Show) -> Trained:
    """Learn, race and save a preset.

    Whatever stops it passes on (an interruption too), with the run saved, and the best tables so far in the presets
    folder. Raises ValueError for settings that cannot work, with what would.
    """
    model = model_of(facts.of_model(order.scene.patcher))
    key = run_key(order, model)
    place = run_folder(order.config.name, key)
    check_free(order.config.name, model)
    if not order.resume and (place / "config.json").exists():
        log.info("S4S: resume is off, starting over in %s", place)
        shutil.rmtree(place)

    def say(text: str) -> None:
        log.info("S4S: %s", text)
        show.say(text.splitlines()[0])

    def work(source: Source) -> Trained:
        if order.teacher is not None:
            source.teacher = teacher_of(source, *order.teacher)
        show.paint = painter(source.network.guider.inner_model, source.device)
        made = learned(source, order, place, show, say)
        return judged(source, _recorded(made, order, key), order, show)
    try:
        return in_the_right_mode(order, model, work, say)
    except BaseException:
        keep_partial(order.config.name, place, key)
        raise


def in_the_right_mode(order: Order, model: Model, work: Callable, say: Callable):
    """work(source) with a network that carries gradients where they are asked for or worth it, else as it is."""
    scene, mode = order.scene, order.config.mode
    if mode == "auto":
        tried = inside(scene, model, lambda source: tries_gradients(order.config))
        mode = "gradient" if tried else "forward"
    if mode == "forward":
        return inside(scene, model, work)
    with gradient.training_mode():
        own = Scene(gradient.differentiable(scene.patcher), gradient.cloned(scene.positives),
                    gradient.cloned(scene.negative), scene.cfg, gradient.cloned(scene.latent))
        say("gradient mode: " + ("on a second copy of the model's weights" if own.patcher.model is not
                                 scene.patcher.model else "on the model's own weights, which stay as they are"))
        return inside(own, model, work, gradient.visible_weights)


def learned(source: Source, order: Order, place: Path, show: Show, say: Callable) -> Preset:
    """The preset: as a finished run of the same settings left it, else learned now."""
    finished = place / "finished"
    if finished.exists():
        say(f"these settings were trained before: taken from {place}; turn resume off to train again")
        return preset_file.load(place / f"{order.config.name}.safetensors")
    found = trainer.estimate(source, order.config)
    say(found.words)
    made = trainer.distil(source, order.config, place, resume=True, on_progress=show, say=say, estimated=found)
    finished.touch()
    shutil.rmtree(place / "pairs", ignore_errors=True)      # hundreds of megabytes that nobody needs any more
    return made


def judged(source: Source, made: Preset, order: Order, show: Show) -> Trained:
    """Race every table on unseen seeds, write the scores into the preset and save it."""
    held = hold(source, made, Terms(tuple(made.tables), range(order.race_seeds),
                                    teacher_calls=order.config.teacher_calls), told(show))
    saved, path = save_version(held.preset, folder.home())
    words = report(saved, held.raced, path, f"race: {held.words}", held.preset.name)
    return Trained(saved, path, words, *seen_rows(source, held, show))


def report(preset: Preset, raced: dict[str, Raced], path: Path, spent: str, wanted: str) -> str:
    """What was made, from what, at which price, and how it did, in plain text."""
    made = preset.training
    beside = f": another preset is called {wanted}, and stays" if wanted != preset.name else ""
    lines = [f"{preset.name} ({preset.short_hash}) for {preset.model.family}, {preset.model.prediction} prediction",
             f"saved as {path}{beside}",
             f"training: {made['model_calls']:,} network calls, {made['seconds']:.0f} s, {made['mode']} mode, teacher "
             f"{made['teacher']}, {made['conditionings']} conditioning{'s' * (made['conditionings'] > 1)}, cfg "
             f"{made['cfg'][0]:g}, latent {' x '.join(map(str, made['latent']))}", spent]
    for name, result in raced.items():
        lines += ["", f"{name}: {result.verdict}", *table_lines(result)]
    return "\n".join(lines)


# --- where things are kept ------------------------------------------------------------------------------------------

def model_of(seen) -> Model:
    """What a preset records of the model, from the facts a sampler would see: so they are found again."""
    hashes = seen.fingerprint() if seen.fingerprint is not None else {}
    return Model(seen.family or "unknown", seen.prediction, seen.sigma_min, seen.sigma_max, seen.zero_terminal_snr,
                 seen.shift, seen.channels, hashes)


def run_folder(name: str, key: str) -> Path:
    """The run's folder, in the host's output: large, wanted after a restart, and the user's to delete."""
    return Path(folder_paths.get_output_directory()) / "s4s_runs" / f"{file_name(name)}-{key}"


def run_key(order: Order, model: Model) -> str:
    """10 digits that name everything a run depends on: another prompt, size, LoRA or setting is another run."""
    patcher = order.scene.patcher
    patches = {key: [(patch[0], type(patch[1]).__name__) for patch in found] for key, found in patcher.patches.items()}
    teacher = None if order.teacher is None else (getattr(order.teacher[0], "sampler_function", None).__name__,
                                                  order.teacher[0].extra_options, order.teacher[1])
    seed = hashlib.sha256()
    _digest(seed, [asdict(order.config), asdict(model), patches, list(patcher.object_patches), teacher,
                   order.scene.positives, order.scene.negative, order.scene.cfg,
                   list(order.scene.latent["samples"].shape[1:]) if not order.scene.latent["samples"].is_nested else 0])
    return seed.hexdigest()[:10]


def _digest(into, content) -> None:
    """Feed tensors, numbers, texts and their containers to a hash; other objects by their kind."""
    if isinstance(content, Tensor):
        into.update(content.detach().float().cpu().contiguous().numpy().tobytes())
    elif isinstance(content, dict):
        for key in content:
            _digest(into, (str(key), content[key]))
    elif isinstance(content, (list, tuple)):
        into.update(b"[")
        for item in content:
            _digest(into, item)
    else:
        plain = content is None or isinstance(content, (str, int, float, bool))
        into.update((repr(content) if plain else type(content).__name__).encode() + b";")


def check_free(name: str, model: Model) -> None:
    """Raise ValueError if the presets folder has this name for another model: it would be overwritten."""
    there = folder.home() / f"{file_name(name)}.safetensors"
    if not there.exists():
        return
    try:
        other = preset_file.load(there).model
    except preset_file.PresetError:
        return                                              # a file nobody can use may go
    if other.family != model.family or other.hashes != model.hashes:
        raise ValueError(f"{there} is a preset for another model ({other.family}): give this one another name")


def keep_partial(name: str, place: Path, key: str) -> None:
    """Copy the best tables of a run that was stopped into the presets folder, beside any other preset of the name."""
    made = place / f"{name}.safetensors"
    if not made.exists() or (place / "finished").exists():
        return
    try:
        preset = preset_file.load(made)
        there = save_version(replace(preset, training={**preset.training, "run": key}), folder.home())[1]
        log.warning("S4S: stopped; the best tables so far are saved as %s; run the node again to go on", there)
    except (OSError, ValueError) as error:
        log.warning("S4S: stopped, and the best tables so far could not be copied from %s: %s", made, error)


def _recorded(made: Preset, order: Order, key: str) -> Preset:
    samples = order.scene.latent["samples"]
    size = [] if samples.is_nested else list(samples.shape[1:])
    return replace(made, training={**made.training, "run": key, "conditionings": len(order.scene.positives),
                                   "latent": size, "created": datetime.date.today().isoformat()})
