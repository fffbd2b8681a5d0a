"""The templates' pictures: what the emoji model of the tests makes, and tables that ship.

    python -m tests.hosts.comfyui.thumbnails --preset emoji.safetensors --taesd FOLDER

preset: one trained on the emoji model for 5 calls at cfg 2, as docs/comfyui.md shows. Every picture is really sampled
from the same noise. Rows that say S4S, and the inpainting, are the preset's table. The others are Euler's: the teacher
and each cfg with many calls, what the race names and image to image with few. FOLDER holds taesd3_decoder.safetensors.
Examples for models that are not here keep the drawing of their graph.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from s4s.s4s_nodes import picture
from s4s.s4s_nodes.core import classical, sample, schedules
from s4s.s4s_nodes.core.preset_file import load
from tests.assets.emoji import network, taesd
from tests.assets.emoji.conditions import condition

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "example_workflows"
WIDTH, CELL, MARGIN, LABEL = 512, 112, 12, 26
PAPER, INK, MARK = "#ffffff", "#1f2933", "#0b7a4b"
WORDS = ("clock", "heart", "moon", "fruit")
OTHERS = ("cat", "zodiac", "fruit", "clock")
MORE = ("cat", "fruit", "clock", "zodiac", "flower", "heart", "animal", "moon")
SD3 = ("letter", "hand", "zodiac", "clock", "heart", "flower", "fruit", "cat")
CFG, TEACHER, SEED = 2.0, 64, 11


class Studio:
    """The emoji model and its decoder."""

    def __init__(self, preset, taesd_folder):
        self.preset, self.network, self.decoder = preset, network.load(), taesd.decoder(taesd_folder)
        [self.name] = preset.tables
        self.table = preset.tables[self.name]

    def plain(self, calls: int):
        """Euler on the model's even schedule."""
        levels = schedules.simple(calls, schedules.flow_levels(3.0))
        return classical.SOLVERS["euler"](levels, flow=True)

    def denoiser(self, words, cfg: float):
        pairs = [condition(word) for word in words]
        context, pooled = (torch.cat(each) for each in zip(*pairs))

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            with_prompt = self.network.denoise(x, sigma, context, pooled)
            without = self.network.denoise(x, sigma, torch.zeros_like(context), torch.zeros_like(pooled))
            return without + cfg * (with_prompt - without)
        return denoise

    def noise(self, count: int) -> Tensor:
        return torch.randn(count, 16, 8, 8, generator=torch.Generator().manual_seed(SEED))

    def made(self, table, words, cfg: float = CFG, start: Tensor | None = None) -> Tensor:
        """Latents of these words, from noise or from a noised latent."""
        x = float(table.sigmas[0]) * self.noise(len(words)) if start is None else start
        with torch.no_grad():
            return sample(self.denoiser(words, cfg), x, table)

    def pictures(self, latents: Tensor) -> list:
        with torch.no_grad():
            pixels = (self.decoder(latents).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(each).resize((CELL, CELL), Image.LANCZOS) for each in pixels]


def page(rows: list[tuple[str, list]]) -> Image.Image:
    """Labelled rows of pictures; what S4S made is labelled in another colour."""
    height = sum(CELL + (LABEL if label else 6) for label, _ in rows) + MARGIN
    sheet, font = Image.new("RGB", (WIDTH, height), PAPER), ImageFont.load_default(size=17)
    pen, y = ImageDraw.Draw(sheet), MARGIN // 2
    for label, pictures in rows:
        if label:
            pen.text((MARGIN, y + 2), label, fill=MARK if label.startswith("S4S") else INK, font=font)
            y += LABEL
        gap = (WIDTH - 2 * MARGIN - len(pictures) * CELL) // max(len(pictures) - 1, 1)
        for i, each in enumerate(pictures):
            sheet.paste(each, (MARGIN + i * (CELL + gap), y))
        y += CELL + 6
    return sheet


def charted(preset, name: str) -> Image.Image:
    drawn = picture.table(preset, name).convert("RGB")
    return drawn.resize((2 * WIDTH, drawn.height * 2 * WIDTH // drawn.width), Image.LANCZOS)


def shipped(name: str, calls: int) -> Image.Image:
    preset = load(ROOT / "solver_presets" / f"{name}.safetensors")
    return charted(preset, next(key for key, table in preset.tables.items() if table.calls == calls))


def drawings(studio: Studio) -> dict[str, Image.Image]:
    """name of a template -> its picture."""
    calls, learned = studio.table.calls, studio.table
    fine = studio.made(studio.plain(TEACHER), WORDS)
    teacher, ours = studio.pictures(fine), studio.pictures(studio.made(learned, WORDS))
    plain = studio.pictures(studio.made(studio.plain(calls), WORDS))
    many = studio.pictures(studio.made(learned, MORE))
    half = classical.SOLVERS["euler"]([level for level in studio.plain(10).sigmas if level <= 0.9], flow=True)
    top = float(half.sigmas[0])
    turned = studio.pictures(studio.made(half, OTHERS, start=(1 - top) * fine + top * studio.noise(len(WORDS))))
    at = {cfg: studio.pictures(studio.made(studio.plain(TEACHER), WORDS, cfg=cfg)) for cfg in (1.0, 2.0, 4.0)}
    other = studio.pictures(studio.made(learned, SD3))
    return {
        "s4s_text_to_image": page([(f"S4S, {calls} calls", many[:4]), ("", many[4:])]),
        "s4s_sd3": page([(f"S4S on an SD3 network, {calls} calls", other[:4]), ("", other[4:])]),
        "s4s_train": page([(f"teacher, {TEACHER} calls", teacher), (f"S4S learns from it: {calls} calls", ours)]),
        "s4s_race": page([(f"teacher, {TEACHER} calls", teacher), (f"euler, simple, {calls} calls", plain),
                          (f"S4S, {calls} calls", ours)]),
        "s4s_image_to_image": page([("images", teacher), ("image to image", turned)]),
        "s4s_several_cfg": page([(f"cfg {cfg:g}", row) for cfg, row in at.items()]),
        "s4s_inpaint": page([("masked", [holed(each) for each in teacher]),
                             ("inpainted", studio.pictures(inpainted(studio, fine)))]),
        "s4s_custom_sampling": charted(replace(studio.preset, scores={}), studio.name),
        "s4s_sdxl": shipped("ays-sdxl", 6), "s4s_flux": shipped("oss-flux", 10), "s4s_wan": shipped("oss-wan", 20)}


def holed(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.paste("#9aa5b1", (CELL // 4, CELL // 2, CELL * 3 // 4, CELL))
    return image


def inpainted(studio: Studio, whole: Tensor) -> Tensor:
    """The lower middle sampled anew, the rest kept as hosts keep it: blended into every prediction."""
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:, 2:6] = 1
    noise, denoise = studio.noise(len(WORDS)).flip(0), studio.denoiser(WORDS, CFG)

    def within(x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[:, None, None, None]
        x = mask * x + (1 - mask) * ((1 - level) * whole + level * noise)
        return mask * denoise(x, sigma) + (1 - mask) * whole
    with torch.no_grad():
        return sample(within, float(studio.table.sigmas[0]) * noise, studio.table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", required=True)
    parser.add_argument("--taesd", required=True)
    options = parser.parse_args()
    for name, image in drawings(Studio(load(options.preset), options.taesd)).items():
        image.save(FOLDER / f"{name}.jpg", quality=80)


if __name__ == "__main__":
    main()
