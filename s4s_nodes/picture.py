"""Pictures of presets and races, drawn with Pillow alone: every host has it.

Everything is drawn at twice its size and scaled down once, which smooths Pillow's hard-edged lines.
"""

import io
import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .core.files import write_atomically
from .core.scores import compared

WIDTH = 1024
TITLE = 800                 # the widest title: WebUI puts its buttons over the right corner
INK, QUIET, FAINT = (32, 36, 44), (112, 118, 130), (226, 229, 235)
BLUE, RED = (36, 96, 178), (200, 62, 46)
_SCALE = 2
host_font = None            # size -> font, set by a host whose Pillow is older than 10.1: that has one tiny font only


class Canvas:
    """A white page in final pixels; scaled only when it is finished."""

    def __init__(self, width: int, height: int):
        self._image = Image.new("RGB", (width * _SCALE, height * _SCALE), "white")
        self._draw = ImageDraw.Draw(self._image)

    def text(self, x: float, y: float, text: str, size: int = 15, colour=INK, anchor: str = "la", most: float = 0):
        """Words at a point; shortened with an ellipsis where `most` pixels are given and they are longer."""
        font = (host_font or ImageFont.load_default)(size * _SCALE)
        while most and len(text) > 1 and self._draw.textlength(text, font=font) > most * _SCALE:
            text = text[:-2].rstrip() + "…"
        self._draw.text((x * _SCALE, y * _SCALE), text, font=font, fill=colour, anchor=anchor)

    def line(self, points, colour=INK, width: float = 1.5):
        self._draw.line([(x * _SCALE, y * _SCALE) for x, y in points], fill=colour,
                        width=max(round(width * _SCALE), 1), joint="curve")

    def dot(self, x: float, y: float, radius: float, colour=INK, hollow: bool = False):
        box = [(x - radius) * _SCALE, (y - radius) * _SCALE, (x + radius) * _SCALE, (y + radius) * _SCALE]
        self._draw.ellipse(box, fill="white" if hollow else colour, outline=colour, width=2 * _SCALE)

    def box(self, x: float, y: float, width: float, height: float, fill=None):
        self._draw.rectangle([x * _SCALE, y * _SCALE, (x + width) * _SCALE, (y + height) * _SCALE], fill=fill)

    def paste(self, image: Image.Image, x: float, y: float, size: tuple[int, int]):
        """Another picture, its pixels kept square: small ones are enlarged without smoothing."""
        size = (size[0] * _SCALE, size[1] * _SCALE)
        how = Image.NEAREST if image.width * 3 <= size[0] else Image.LANCZOS
        self._image.paste(image.convert("RGB").resize(size, how), (round(x * _SCALE), round(y * _SCALE)))

    def finish(self, twice: bool = False) -> Image.Image:
        """The page at its final size, or at twice that."""
        if twice:
            return self._image
        return self._image.resize((self._image.width // _SCALE, self._image.height // _SCALE), Image.LANCZOS)


def table(preset, name: str) -> Image.Image:
    """One table of a preset: its levels and queries at the left, its coefficients at the right, its scores below."""
    shown = preset.tables[name]
    text = (f"{preset.short_hash}  ·  {name}: {shown.calls} network call{'s' if shown.calls > 1 else ''}, "
            f"sigma {shown.sigmas[0]:.4g} to {shown.sigmas[-1]:.4g}  ·  "
            f"for {preset.model.family}, {preset.model.prediction} prediction")
    return table_page(shown, preset.name, text, preset.model.flow, score_lines(preset.score(name)))


def table_page(table, title: str, text: str, flow: bool, lines) -> Image.Image:
    """Any table under a title: words below it, lines at the foot."""
    page = Canvas(WIDTH, 560 + 24 * len(lines))
    page.text(32, 24, title, 28, most=TITLE)
    page.text(32, 66, text, 16, QUIET, most=WIDTH - 64)
    _levels(page, table, flow, (78, 132, 390, 350))
    _coefficients(page, table, (560, 132, 432, 350))
    for i, line in enumerate(lines):
        page.text(32, 536 + 24 * i, line, 16, most=WIDTH - 64)
    return page.finish()


def score_lines(scores: dict) -> list[str]:
    """A table's race in words, a line each; none for a table that has not run one, or for results unknown here."""
    numbers = {key: value for key, value in scores.items() if isinstance(value, (int, float))}
    if not {"rmse", "best_rmse", "ratio"} <= set(numbers):
        return []
    times, side = compared(numbers["ratio"], scores.get("ratio_95", ()))
    times = f"{times} times {side} the teacher"
    verdict = str(scores.get("verdict"))        # within the teacher's error no ratio is shown: it may be reversed
    times = {"within the teacher's error": verdict, "unsure": f"{times}, too few seeds to decide",
             "even": "nothing was gained"}.get(verdict, times)
    errors = (f"RMSE to the teacher {numbers['rmse']:.4g}; the best baseline at equal calls, "
              f"{scores.get('best_classical', 'unnamed')}, {numbers['best_rmse']:.4g}")
    more = [f"measured on {numbers['seeds']:g} unseen seeds"] if "seeds" in numbers else []
    more += [f"at cfg {numbers['cfg']:g}"] if "cfg" in numbers else []
    more += [f"a baseline needs {numbers['classical_calls_to_match']:g} calls to get as close"] \
        if "classical_calls_to_match" in numbers else []
    return [errors, "; ".join([times, ", ".join(more)]) if more else times]


def _levels(page: Canvas, table, flow: bool, where: tuple):
    """The schedule over the calls; rings where the network is told another level than the state's."""
    x, y, width, height = where
    page.text(x - 46, y - 30, "noise level before each call" + ("" if flow else " (logarithmic)"), 16)
    levels, calls = table.sigmas, table.calls
    low, high = (0.0, levels[0]) if flow else (math.log(max(levels[-2], 1e-9)), math.log(levels[0]))
    def at(i, level):
        value = level if flow else math.log(max(level, math.exp(low)))
        return x + width * i / calls, y + height - (height - 12) * (value - low) / max(high - low, 1e-9)
    for value in _ticks(low, high, flow):
        _, line = at(0, value)
        page.line([(x, line), (x + width, line)], FAINT, 1)
        page.text(x - 8, line, f"{value:.3g}", 13, QUIET, "rm")
    points = [at(i, level) for i, level in enumerate(levels)]
    page.line(points[:-1], BLUE, 2.5)
    for dash in np.linspace(points[-2], (x + width, y + height), 10).reshape(5, 2, 2):      # to 0, which no log shows
        page.line(dash, BLUE, 2)
    every = max(1, math.ceil(calls / 12))
    for i, (px, py) in enumerate(points):
        end = i == calls
        if calls <= 60 or end:
            page.dot(px, y + height if end else py, 5, BLUE)
        if i % every == 0 or end:
            page.text(px, y + height + 12, str(i) if not end else "end", 13, QUIET, "ma")
        if calls <= 12 and not end:
            page.text(px + 9, py - 7, f"{levels[i]:.3g}", 13, INK, "ls")
    moved = np.abs(table.query / levels[:-1] - 1) > 0.002
    for i in np.flatnonzero(moved):
        px, py = at(i, table.query[i])
        page.dot(px, py, 5, RED, hollow=True)
    if moved.any():
        page.dot(x + width - 168, y + 8, 5, RED, hollow=True)
        page.text(x + width - 156, y + 8, "what the network is told", 13, QUIET, "lm")


def _coefficients(page: Canvas, table, where: tuple):
    """Every weight as a coloured cell: red above 0, blue below; the first column is the state's own."""
    x, y, width, height = where
    page.text(x - 28, y - 30, "next state = carry · state + weights · predictions", 16)
    rows = np.concatenate([table.carry[:, None], table.weights], axis=1)
    size = min(width / rows.shape[1], height / len(rows), 64)
    strongest = max(np.abs(rows).max(), 1e-9)
    edge = 1 if size >= 8 else 0            # of many cells there is no room for lines between them, nor for numbers
    for i, row in enumerate(rows):
        if edge:
            page.text(x - 8, y + size * (i + 0.5), str(i), 13, QUIET, "rm")
        for j, value in enumerate(row[:i + 2]):
            left, top, inner = x + size * j + 6 * (j > 0), y + size * i, size - 2 * edge
            page.box(left + edge, top + edge, inner, inner, fill=_shade(value / strongest))
            if size >= 38:
                page.text(left + size / 2, top + size / 2, _short(value), 13 if size > 46 else 11,
                          "white" if abs(value / strongest) > 0.6 else INK, "mm")
    if not edge:
        return
    every = 1 if size >= 26 else math.ceil(26 / size)
    for j in range(0, table.calls, every):
        page.text(x + size * (j + 1.5) + 6, y + size * len(rows) + 8, str(j), 13, QUIET, "ma")
    page.text(x + size / 2, y + size * len(rows) + 8, "carry" if size >= 34 else "c", 13, QUIET, "ma")


def sheet(rows, title: str = "", note: str = "") -> Image.Image:
    """Rows of pictures under their labels: rows is [(label, caption, [Image, ...]), ...], columns the same start.

    The words are large: a host shows the page at half its size. Pictures larger than their cells make it twice as wide.
    """
    columns, gap, line = max((len(pictures) for _, _, pictures in rows), default=1), 8, 52
    size = int(min(240, (WIDTH - 64 - gap * (columns - 1)) / columns))
    shape = rows[0][2][0].size if rows and rows[0][2] else (1, 1)
    high = int(size * shape[1] / shape[0])
    top = 110 if note else 74 if title else 24
    page = Canvas(WIDTH, top + (line + high + gap) * len(rows) + 24)
    page.text(32, 20, title, 34, most=TITLE)
    page.text(32, 72, note, 24, QUIET, most=WIDTH - 64)
    for i, (label, caption, pictures) in enumerate(rows):
        y = top + (line + high + gap) * i
        page.text(32, y + line / 2, label, 28, anchor="lm", most=440)
        page.text(490, y + line / 2, caption, 24, QUIET, "lm", most=WIDTH - 522)
        for j, picture in enumerate(pictures):
            page.paste(picture, 32 + (size + gap) * j, y + line, (size, high))
    return page.finish(shape[0] > size)


def bars(title: str, note: str, rows: list[tuple]) -> Image.Image:
    """Values as bars with their intervals: rows is [(label, value, low, high, whether it stands out), ...]."""
    left, line = 330, 32
    scale = (WIDTH - left - 110) / max((high for _, _, _, high, _ in rows), default=1.0)
    page = Canvas(WIDTH, 112 + line * len(rows))
    page.text(32, 20, title, 28, most=WIDTH - 64)
    page.text(32, 62, note, 16, QUIET, most=WIDTH - 64)
    for i, (label, value, low, high, stands_out) in enumerate(rows):
        y = 100 + line * i
        page.text(left - 12, y + 11, label, 15, anchor="rm", most=left - 44)
        page.box(left, y, scale * value, 22, RED if stands_out else _shade(-0.3))
        page.line([(left + scale * low, y + 11), (left + scale * high, y + 11)], INK, 2)
        page.text(left + scale * high + 10, y + 11, f"{value:.4f}", 14, QUIET, "lm")
    return page.finish()


def save(image: Image.Image, path) -> Path:
    """Write a picture as a small PNG, atomically, and return its path."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return write_atomically(path, buffer.getvalue())


def _ticks(low: float, high: float, linear: bool) -> list[float]:
    """Round values between low and high; with linear False, both are logarithms and so is the spacing."""
    if linear:
        step = 10 ** math.floor(math.log10(max(high - low, 1e-9))) / 5
        while (high - low) / step > 7:
            step *= 2
        return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    for marks in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9),
                  tuple(1 + 0.1 * i for i in range(90)), tuple(1 + 0.01 * i for i in range(900))):
        ticks = [mark * 10.0 ** power for power in range(-12, 7) for mark in marks
                 if low <= math.log(mark * 10.0 ** power) <= high]
        if len(ticks) >= 4:
            return ticks[::math.ceil(len(ticks) / 8)]
    return ticks


def _shade(value: float) -> tuple:
    """White at 0, red at 1, blue at -1."""
    strength, target = min(abs(value), 1.0) ** 0.7, RED if value > 0 else BLUE
    return tuple(round(250 + (channel - 250) * strength) for channel in target)


def _short(value: float) -> str:
    """Two decimals without the leading zero: .86, -.35, 1.25."""
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"
    return "0" if text in ("0.00", "-0.00") else text.replace("-0.", "-.").removeprefix("0")
