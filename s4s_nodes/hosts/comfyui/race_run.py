"""Races on the host's own model: tables of a preset against the classical samplers, equal calls, unseen seeds."""

from __future__ import annotations

from dataclasses import dataclass

from ....training.benchmark.host_race import Held, Terms, Told, hold, sheet_rows, table_lines
from ....training.source import Source
from ...core.preset_file import Preset
from ...library import suits
from . import facts
from .denoiser import Scene, inside
from .train_view import Show, painter, unpacked


@dataclass(frozen=True)
class Race:
    """What is to be raced, where, and on which terms."""

    scene: Scene
    preset: Preset
    terms: Terms


@dataclass(frozen=True)
class Outcome:
    """The preset with its scores, the report, and rows of pictures: quick ones, and latents for a VAE."""

    preset: Preset
    report: str
    shown: dict
    latents: dict


def run_race(wish: Race, show: Show) -> Outcome:
    """Race on the scene's model. Raises ValueError for a preset of another kind of model, or too small a budget."""
    seen = facts.of_model(wish.scene.patcher)
    if reason := suits(wish.preset, seen):
        raise ValueError(f"preset {wish.preset.name!r} cannot be raced on this model: {reason}")

    def work(source: Source) -> Outcome:
        show.paint = painter(source.network.guider.inner_model, source.device)
        held = hold(source, wish.preset, wish.terms, told(show))
        scored = held.preset
        lines = [f"{scored.name} ({scored.short_hash}) on this model ({seen.family}), {held.words}"]
        for name, result in held.raced.items():
            lines += ["", f"{name}: {result.verdict}", *table_lines(result, 12)]
        return Outcome(scored, "\n".join(lines), *seen_rows(source, held, show))
    return inside(wish.scene, wish.preset.model, work)


def told(show: Show) -> Told:
    """A race's news on the node's face."""
    return Told(show.say, show.counted)


def seen_rows(source: Source, held: Held, show: Show) -> tuple[dict, dict]:
    """(name -> quick pictures (n, H, W, 3), name -> latents as a VAE takes them) of the same unseen seeds."""
    base = source.network.guider.inner_model
    rows = {f"{label}: {caption}" if caption else label: latents
            for label, caption, latents in sheet_rows(source, held)}
    return ({name: show.paint(latents) for name, latents in rows.items()},
            {name: unpacked(base, base.process_latent_out(latents.float())) for name, latents in rows.items()})
