"""What long-running nodes give to a session: the host's sampling, the node's display, its folders."""

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import comfy.utils
import folder_paths
import latent_preview
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ....training.benchmark import html_report
from ....training.benchmark.host_race import SHEET_NOTE, RaceResult, sheet_rows
from ....training.source import Source
from ... import picture
from ...core import Model, experts, write_atomically
from ...library import file_name
from ..session import Outcome
from . import facts, fingerprint, folder, parts, record
from .denoiser import Scene, inside

log = logging.getLogger("s4s")
EVERY = 4.0                 # seconds between live previews: each costs a few network calls


def runs() -> Path:
    return Path(folder_paths.get_output_directory()) / "s4s_runs"


class Node:
    """A session's Host: the node that runs now, and the scene it was given.

    runs: in the host's output folder: large, wanted after a restart, and the user's to delete.
    """

    kind = "ComfyUI"

    def __init__(self, scene: Scene):
        self.scene, (_, self.node_id) = scene, record.running()
        self.library, self.presets, self.changed = folder.presets(), folder.home(), record.presets_changed
        self.runs, self.said, self.held = runs(), [], None
        self.bar, self.paint = comfy.utils.ProgressBar(1), None
        self._shown = self._drawn = 0.0

    def inside(self, work: Callable) -> None:
        """In a sampling of the host's. Raises ValueError as `model_of`."""
        def work_with_preview(source: Source):
            self.paint = painter(self.scene.patcher.model, source.device)
            return work(source)
        inside(self.scene, model_of(self.scene), work_with_preview)

    def say(self, text: str, warning: bool = False) -> None:
        log.log(logging.WARNING if warning else logging.INFO, "S4S: %s", text)
        self.said.append(text)
        record.face(text.splitlines()[0], self.node_id)

    def show(self, done: int, total: int, line: str, preview: Callable | None = None) -> None:
        now, drawn = time.monotonic(), None
        if preview is not None and now - self._drawn > EVERY:
            student, teacher = preview()
            page = picture.sheet([("learned so far", "", as_pil(self.paint(student))),
                                  ("teacher", "", as_pil(self.paint(teacher)))])
            drawn, self._drawn = ("JPEG", page, picture.WIDTH), time.monotonic()
        if done < self.bar.current:                 # the race after the training: newer hosts show no step back
            self.bar = comfy.utils.ProgressBar(1)
        self.bar.update_absolute(done, max(total, 1), drawn)
        if now - self._shown > 1:
            self._shown = now
            record.face(line, self.node_id)

    def draw(self, source: Source, held: RaceResult) -> list[tuple]:
        """[(label, caption, quick pictures (n, H, W, 3), latents as a VAE takes them)] of the same unseen seeds."""
        base, self.held = self.scene.patcher.model, held
        return [(label, caption, self.paint(latents), base.process_latent_out(latents.float()))
                for label, caption, latents in sheet_rows(source, held)]

    def end(self, node, outcome: Outcome, vae) -> tuple[Tensor, dict]:
        """(the sheet as IMAGE, what appears on the node): decoded, or of the quick pictures without a VAE."""
        self.rows = [(label, caption, quick if vae is None else as_pictures(vae, latents))
                     for label, caption, quick, latents in outcome.pictures]
        sheet = picture.sheet([(label, caption, as_pil(shown)) for label, caption, shown in self.rows],
                              self.held.preset.name, SHEET_NOTE)
        record.face(outcome.report.splitlines()[0], self.node_id)
        images = parts.image(sheet)
        return images, {**parts.node_ui(node, outcome.report, images), **self._page(outcome, sheet)}

    def before_after(self) -> Tensor:
        """IMAGE (2 n, H, W, 3) of n unseen seeds: each by the best classical sampler, then by the first table."""
        return torch.stack([shown for *_, shown in self.rows[:3]][-2:], 1).flatten(0, 1)

    def _page(self, outcome: Outcome, sheet: Image.Image) -> dict:
        """{"s4s_report": where} of the report as a page in the output folder, which the host's /view serves."""
        place = Path(folder_paths.get_output_directory()) / "s4s_reports"
        path = place / f"{file_name(outcome.preset.name)}-{outcome.preset.short_hash}.html"
        try:
            with tempfile.TemporaryDirectory() as folder:
                sheet.save(Path(folder) / "sheet.png")
                for name in outcome.preset.tables:
                    picture.table(outcome.preset, name).save(Path(folder) / f"solver-{name}.png")
                write_atomically(path, html_report.page(outcome.preset, self.held.raced, Path(folder)).encode())
        except OSError as error:
            log.warning("S4S: the report's page could not be written (%s)", error)
            return {}
        return {"s4s_report": [{"filename": path.name, "subfolder": place.name, "type": "output"}]}


def model_of(scene: Scene) -> Model:
    """What a preset records of the scene's model, or of both. Raises ValueError for one that no table can be learned
    for, and for two that do not belong together."""
    seen = facts.of_model(scene.patcher)
    if seen.unfit:
        raise ValueError(f"{seen.unfit}: connect another MODEL")
    if scene.low_noise is None:
        return seen.model
    first, second = seen.model, facts.of_model(scene.low_noise.patcher).model
    if replace(first, hashes={}, shift=None) != replace(second, hashes={}, shift=None):
        raise ValueError(f"low_noise_model is {second.family} for levels up to {second.sigma_max:g}, model is "
                         f"{first.family} up to {first.sigma_max:g}: connect the two experts of one model")
    if first.hashes and first.hashes == second.hashes:
        raise ValueError("model and low_noise_model are the same: connect the low-noise expert, or leave it "
                         "unconnected")
    return replace(first, hashes={**first.hashes, experts.LOW_NOISE: second.hashes})


def settings_of(scene: Scene, teacher: tuple | None) -> list:
    """All of a scene and a (SAMPLER, SIGMAS) that a run depends on beside the model: another prompt is another run."""
    taught = None if teacher is None else (getattr(teacher[0], "sampler_function", None).__name__,
                                           teacher[0].extra_options, teacher[1])
    second = scene.low_noise
    both = [] if second is None else [list(second.patcher.object_patches), second.cfg, scene.boundary]
    if (model := scene.teacher) is not None:
        both += [list(model.patcher.object_patches), model.cfg]
    sizes = [list(latent["samples"].shape[1:]) for latent in (scene.latent, *scene.more_latents)]
    hooks = fingerprint.of_hooks({"positive": [each for positive in scene.positives for each in
                                               facts.conditions(positive)],
                                  "negative": facts.conditions(scene.negative or [])})
    return [list(scene.patcher.object_patches), taught, scene.positives, scene.negative, scene.cfg, sizes, both, hooks]


def painter(base_model, device) -> Callable:
    """latents (n, ...) as the model sees them -> pictures (n, H, W, 3) in 0..1, quickly: through the previewer the user
    has switched on, else the format's linear colors, else gray."""
    latent_format = base_model.latent_format
    previewer = latent_preview.get_previewer(device, latent_format)
    if previewer is None and latent_format.latent_rgb_factors is not None:
        names = (f"latent_rgb_factors{what}" for what in ("", "_bias", "_reshape"))     # the last of a newer host
        colours = [getattr(latent_format, name) for name in names if hasattr(latent_format, name)]
        previewer = latent_preview.Latent2RGBPreviewer(*colours)

    def paint(latents: Tensor) -> Tensor:
        if previewer is None:
            return grey(latents)
        return parts.image(*(previewer.decode_latent_to_preview(latents[i:i + 1]) for i in range(len(latents))))
    return paint


def grey(latents: Tensor) -> Tensor:
    """Gray pictures (n, H, W, 3) of a latent's first frame, if its colors are unknown."""
    flat = latents.float().cpu()
    flat = flat[:, :, 0] if flat.ndim == 5 else flat[:, :, None] if flat.ndim == 3 else flat
    mean = flat.mean(1)
    mean = (mean - mean.mean()) / (4 * mean.std().clamp(min=1e-6)) + 0.5
    return mean.clamp(0, 1)[..., None].expand(-1, -1, -1, 3)


def as_pictures(vae, latents: Tensor) -> Tensor:
    """Pictures (n, H, W, 3) of latents as a VAE takes them; of a video the first frame."""
    pictures = vae.decode(latents).float().cpu()
    return (pictures[:, 0] if pictures.ndim == 5 else pictures).clamp(0, 1)


def as_pil(pictures: Tensor) -> list[Image.Image]:
    return [Image.fromarray(each) for each in (pictures.numpy() * 255).round().astype(np.uint8)]
