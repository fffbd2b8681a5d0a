"""The nodes that work for a while, to the session: the host's sampling, the node's face, its folders."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path

import comfy.utils
import folder_paths
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ....training.benchmark.host_race import Held, sheet_rows
from ....training.source import Source
from . import facts, folder, gradient, record
from .denoiser import Scene, inside
from .train_view import CELL, PREVIEW, as_pil, drawn_sheet, painter, sheet, unpacked

log = logging.getLogger("s4s")
EVERY = 4.0                 # seconds between live previews: each costs a few network calls


class Node:
    """A session's Host: the node that runs now, and the scene it was given.

    runs: in the host's output folder: large, wanted after a restart, and the user's to delete.
    """

    def __init__(self, scene: Scene):
        context = get_executing_context()
        self.scene, self.node_id = scene, None if context is None else context.node_id
        self.library, self.presets = folder.presets(), folder.home()
        self.runs = Path(folder_paths.get_output_directory()) / "s4s_runs"
        self.bar, self.paint = comfy.utils.ProgressBar(1), None
        self._shown = self._drawn = 0.0

    # --- sampling ---------------------------------------------------------------------------------------------------

    def inside(self, work: Callable, gradients: Callable) -> None:
        """In a sampling of the host's; for gradients, with a second copy of the weights where it can load one."""
        def shown(source: Source):
            self.paint = painter(source.network.guider.inner_model, source.device)
            return work(source)
        given, model, again = self.scene, facts.of_model(self.scene.patcher).model, object()
        if inside(given, model, lambda source: again if gradients(source) else shown(source)) is not again:
            return
        with gradient.training_mode():
            own = Scene(gradient.differentiable(given.patcher), gradient.cloned(given.positives),
                        gradient.cloned(given.negative), given.cfg, gradient.cloned(given.latent))
            copied = own.patcher.model is not given.patcher.model
            self.say("gradient mode: on " + ("a second copy of the model's weights" if copied else
                                             "the model's own weights, which stay as they are"))
            inside(own, model, shown, gradient.visible_weights)

    # --- the node's face --------------------------------------------------------------------------------------------

    def say(self, text: str, warning: bool = False) -> None:
        log.log(logging.WARNING if warning else logging.INFO, "S4S: %s", text)
        self._face(text.splitlines()[0])

    def show(self, done: int, total: int, line: str, preview: Callable | None = None) -> None:
        now, picture = time.monotonic(), None
        if preview is not None and now - self._drawn > EVERY:
            student, teacher = preview()
            drawn = sheet({"learned so far": self.paint(student), "teacher": self.paint(teacher)}, PREVIEW)
            picture, self._drawn = ("JPEG", drawn, 2 * CELL), time.monotonic()
        self.bar.update_absolute(done, max(total, 1), picture)
        if now - self._shown > 1:
            self._shown = now
            self._face(line)

    def draw(self, source: Source, held: Held) -> tuple[dict, dict]:
        """(name -> quick pictures (n, H, W, 3), name -> latents as a VAE takes them) of the same unseen seeds."""
        base = source.network.guider.inner_model
        rows = {f"{label}: {caption}" if caption else label: latents
                for label, caption, latents in sheet_rows(source, held)}
        return ({name: self.paint(latents) for name, latents in rows.items()},
                {name: unpacked(base, base.process_latent_out(latents.float())) for name, latents in rows.items()})

    def changed(self) -> None:
        """Prompts that wait already see the presets as they are now; the lists, when the browser asks for them."""
        record.presets_changed()

    def end(self, report: str, pictures: tuple, vae) -> Tensor:
        """The sheet as IMAGE; it and the report stay on the node's face, where the last live picture would."""
        drawn = drawn_sheet(*pictures, vae)
        self.bar.update_absolute(self.bar.total, self.bar.total, ("JPEG", as_pil(drawn[0].cpu()), 2 * CELL))
        self._face(report)
        return drawn

    def _face(self, text: str) -> None:
        server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
        if server is not None and self.node_id is not None:
            server.send_progress_text(text, self.node_id)


def settings_of(scene: Scene, teacher: tuple | None) -> list:
    """All of a scene and a (SAMPLER, SIGMAS) that a run depends on beside the model: another prompt is another run."""
    taught = None if teacher is None else (getattr(teacher[0], "sampler_function", None).__name__,
                                           teacher[0].extra_options, teacher[1])
    samples = scene.latent["samples"]
    return [list(scene.patcher.object_patches), taught, scene.positives, scene.negative, scene.cfg,
            0 if samples.is_nested else list(samples.shape[1:])]
