"""The templates' pictures: what the emoji model of the tests makes, and tables that ship.

    python -m tests.hosts.comfyui.thumbnails --preset emoji.safetensors --taesd FOLDER

preset: one trained on the emoji model for 5 calls at cfg 2, as docs/comfyui.md shows. Every picture is really sampled
from the same noise. Rows that say S4S, and the inpainting, are the preset's table. The others are Euler's: the teacher
and each cfg with many calls, what the race names and image to image with few. FOLDER holds taesd3_decoder.safetensors.
Examples for models that are not here show their noise levels, with one of these pictures as noisy as each level is.
"""

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from s4s.s4s_nodes.core import classical, experts, sample, schedules
from s4s.s4s_nodes.core.preset_file import load
from s4s.s4s_nodes.select.families import flow_schedule
from tests.assets.emoji import network, taesd
from tests.assets.emoji.conditions import condition

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "example_workflows"
WIDTH, CELL, MARGIN, LABEL = 512, 112, 12, 26
PAPER, INK, MARK = "#ffffff", "#1f2933", "#0b7a4b"
MODELS, PALE = ("#2460b2", "#b2541c"), ("#e4edf9", "#fbeadf")           # high-noise, low-noise
BOUNDARY, SHIFT = 0.875, 8.0            # of Wan 2.2 text to video
WORDS = ("clock", "heart", "moon", "fruit")
OTHERS = ("cat", "zodiac", "fruit", "clock")
MORE = ("cat", "fruit", "clock", "zodiac", "flower", "heart", "animal", "moon")
SD3 = ("letter", "hand", "zodiac", "clock", "heart", "flower", "fruit", "cat")
CFG, TEACHER, SEED = 2.0, 64, 11


class Studio:
    """The emoji model and its decoder."""

    def __init__(self, preset, taesd_folder):
        self.network, self.decoder = network.load(), taesd.decoder(taesd_folder)
        [self.table] = preset.tables.values()

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
    top = MARGIN // 2 if len(rows) < 3 else 28          # the host writes over the top of a tall one
    height = sum(CELL + 6 + LABEL * bool(label) for label, _ in rows) + top
    sheet, font = Image.new("RGB", (WIDTH, height), PAPER), ImageFont.load_default(size=17)
    pen, y = ImageDraw.Draw(sheet), top
    for label, pictures in rows:
        if label:
            pen.text((MARGIN, y + 2), label, fill=MARK if label.startswith("S4S") else INK, font=font)
            y += LABEL
        gap = (WIDTH - 2 * MARGIN - len(pictures) * CELL) // max(len(pictures) - 1, 1)
        for i, each in enumerate(pictures):
            sheet.paste(each, (MARGIN + i * (CELL + gap), y))
        y += CELL + 6
    return sheet


def path(title: str, levels, shown: Image.Image, flow: bool = True, boundary: float | None = None, fine=(),
         film: bool = False) -> Image.Image:
    """A table's levels as a falling line over a picture as noisy as each of them; the calls of two models in two
    colours. fine: a teacher's levels, drawn small. film: the pictures are frames."""
    sheet, font, large = Image.new("RGB", (WIDTH, 300), PAPER), ImageFont.load_default(20), ImageFont.load_default(34)
    pen, count = ImageDraw.Draw(sheet), len(levels)
    pitch = (WIDTH - 2 * MARGIN) // count
    places = [MARGIN + (i + 0.5) * (WIDTH - 2 * MARGIN) / count for i in range(count)]
    floor = float(levels[-2]) / 2
    heights = levels if flow else np.log(np.maximum(levels, floor) / floor) / math.log(levels[0] / floor)

    def at(height: float) -> float:
        return 182 - 110 * height
    turn = count - 1 if boundary is None else experts.turn_of(levels, boundary)
    if boundary is not None:
        across = (places[turn - 1] + places[turn]) / 2
        pen.rectangle((0, 56, across, 194), fill=PALE[0])
        pen.rectangle((across, 56, WIDTH, 194), fill=PALE[1])
        pen.text((MARGIN, 166), "high-noise model", fill=MODELS[0], font=font)
        pen.text((WIDTH - MARGIN, 62), "low-noise model", fill=MODELS[1], font=font, anchor="ra")
    pen.text((MARGIN, 8), title, fill=INK, font=large)
    for x, level in zip(np.linspace(places[0], places[-1], len(fine)), fine):
        pen.ellipse((x - 3, at(level) - 3, x + 3, at(level) + 3), fill="#9aa5b1")
    pen.line([(x, at(height)) for x, height in zip(places, heights)], fill=INK, width=3)
    if film:
        pen.rectangle((0, 204, WIDTH, 300), fill="#20242c")
        for x in range(6, WIDTH, 20):
            for y in (208, 288):
                pen.rectangle((x, y, x + 9, y + 6), fill=PAPER)
    pixels = np.asarray(shown.resize((pitch - 6, pitch - 6), Image.LANCZOS), dtype=np.float64) / 127.5 - 1
    noise = np.random.default_rng(SEED).normal(size=pixels.shape)
    for i, (x, height) in enumerate(zip(places, heights)):
        level = float(levels[i]) if flow else float(levels[i] / math.hypot(levels[i], 1))
        noisy = (1 - level) * pixels + level * noise
        frame = Image.fromarray(((noisy.clip(-1, 1) + 1) * 127.5).round().astype(np.uint8))
        sheet.paste(frame, (round(x - frame.width / 2), 252 - frame.height // 2))
        colour = MODELS[i >= turn] if boundary is not None else MARK
        pen.ellipse((x - 8, at(height) - 8, x + 8, at(height) + 8), fill=colour if i < count - 1 else PAPER,
                    outline=colour, width=3)
    return sheet


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
        "s4s_custom_sampling": path(f"SAMPLER and SIGMAS, {calls} calls", learned.sigmas, many[0]),
        **of_others(many)}


def of_others(pictures: list) -> dict[str, Image.Image]:
    """Those of models that are not here: what S4S runs on them before a preset is trained."""
    wan = experts.pinned(schedules.linear_flow(6, SHIFT), BOUNDARY)
    return {"s4s_sdxl": path("SDXL in 6 calls", schedules.published("ays_sdxl", 6), pictures[4], flow=False),
            "s4s_flux": path("Flux in 6 calls", schedules.linear_flow(6, math.exp(1.15)), pictures[6]),
            "s4s_z_image": path("Z-Image in 6 calls", flow_schedule("zimage", 6, 3.0), pictures[5]),
            "s4s_wan": path("Wan 2.1 in 6 calls", flow_schedule("wan21", 6, SHIFT), pictures[1], film=True),
            "s4s_wan22": path("Wan 2.2: two models, 6 calls", wan, pictures[0], boundary=BOUNDARY, film=True),
            "s4s_wan22_train": path("Wan 2.2: train one preset", wan, pictures[0], boundary=BOUNDARY,
                                    fine=schedules.linear_flow(50, SHIFT), film=True)}


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
