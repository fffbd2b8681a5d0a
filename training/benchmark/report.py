"""Pictures and tables for people: what was learned, how the race went, what the images look like."""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ...s4s_nodes import picture
from ...s4s_nodes.core import Preset, write_atomically
from ..baselines.measure import Entry
from . import frechet
from .race import TableResult
from .verdict import interval, within_text

INK, LEARNED, OTHER = "#222222", "#d1495b", "#8d99ae"


def _figure(width: float, height: float):
    import matplotlib  # slow to import, and only reports need it
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    figure, axis = plt.subplots(figsize=(width, height), layout="constrained")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure, axis


def _save(figure, path) -> Path:
    import matplotlib.pyplot as plt
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return write_atomically(path, buffer.getvalue())


def draw_table(preset: Preset, name: str, path) -> Path:
    """A table of the preset as a picture file."""
    return _save_image(picture.table(preset, name), path)


def plot_race(race: TableResult, path, title: str) -> Path:
    """Errors of the learned table and the best baselines, with 95 % intervals over seeds."""
    learned, rows = race.learned, [race.learned, *race.finalists][:14][::-1]
    figure, axis = _figure(8.5, 0.34 * len(rows) + 1.3)
    values = np.array([entry.rmse for entry in rows])
    ends = np.abs(np.array([interval(entry.errors) for entry in rows]) - values[:, None]).T
    names = ["S4S" if entry is learned else entry.name for entry in rows]
    axis.barh(names, values, xerr=ends, color=[LEARNED if entry is learned else OTHER for entry in rows],
              error_kw={"ecolor": INK, "capsize": 2})
    axis.set(xlabel=f"RMSE to the teacher, {len(learned.errors)} unseen seeds (95 % interval)", title=title)
    return _save(figure, path)


def plot_curve(curve: list, path, title: str, classical: float | None = None) -> Path:
    """Training loss and held-out error by network calls spent."""
    figure, axis = _figure(7.5, 4)
    calls = [row[3] for row in curve]
    axis.plot(calls[1:], [row[1] for row in curve[1:]], color=OTHER, label="training loss")
    axis.plot(calls, [row[2] for row in curve], color=LEARNED, marker=".", label="held-out RMSE")
    if classical is not None:
        axis.axhline(classical, color=INK, linestyle="--", label="best baseline")
    axis.set(xlabel="network calls spent", ylabel="RMSE", title=title, yscale="log")
    axis.legend(frameon=False)
    return _save(figure, path)


def sheet(rows: list[tuple[str, str, Tensor]], path) -> Path:
    """Images side by side, one row per (label, caption, (n, 1 or 3, H, W) in -1..1), the same seeds in a column."""
    drawn = [(label, caption, [_picture(image) for image in images]) for label, caption, images in rows]
    return _save_image(picture.sheet(drawn), path)


def _save_image(image: Image.Image, path) -> Path:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return write_atomically(path, buffer.getvalue())


def _picture(values: Tensor) -> Image.Image:
    pixels = ((values.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.squeeze(-1) if pixels.shape[2] == 1 else pixels).convert("RGB")


class Row(NamedTuple):
    """An entry's line; frechet: distance to the teacher's results, if known; times: of S4S' RMSE on the seeds it ran;
    doubt: a clause where the teacher's error leaves open which is closer."""

    ours: bool
    name: str
    rmse: float
    median: float
    frechet: float | None
    seeds: int
    times: float
    doubt: str


def row_of(entry: Entry, race: TableResult) -> Row:
    """The line of an entry."""
    learned = race.learned
    far = None if entry.features is None or race.teacher is None else frechet.distance(entry.features, race.teacher)
    times = entry.rmse / float(np.sqrt(np.mean(learned.errors[:len(entry.errors)] ** 2)))
    ours, doubt = entry is learned, within_text(learned, entry).removeprefix(", ")
    return Row(ours, "S4S (learned)" if ours else entry.name, entry.rmse, entry.median, far, len(entry.errors), times,
               doubt)


def race_table(race: TableResult, shown: int = 12) -> str:
    """The race as text, best first, those that ran fewer seeds below a line; what is not shown is in the race file.

    Finalists get their Fréchet distance where the source has a feature space.
    """
    def line(entry):
        row = row_of(entry, race)
        far = "" if race.teacher is None else f"{'-':>9}" if row.frechet is None else f"{row.frechet:9.4f}"
        times = "" if row.ours else row.doubt or f"{row.times:6.2f}x"
        return f"{row.name:36} {row.rmse:8.4f} {row.median:8.4f} {far} {row.seeds:6d}  {times}".rstrip()
    lines = [f"{'solver, schedule':36} {'RMSE':>8} {'median':>8} {'  Fréchet' if race.teacher is not None else ''} "
             f"{'seeds':>6}  times S4S", line(race.learned)]
    for number, entry in enumerate(race.ranked[:shown]):
        lines += ["dropped earlier, on fewer seeds:"] if number == len(race.finalists) else []
        lines.append(line(entry))
    return "\n".join([*lines, f"... and {max(0, len(race.ranked) - shown)} more"])


def race_files(race: TableResult, name: str, folder: Path, title: str) -> None:
    """race-NAME.png of the best, and race-NAME.txt of everyone."""
    plot_race(race, folder / f"race-{name}.png", title)
    everyone = race_table(race, len(race.ranked))
    write_atomically(folder / f"race-{name}.txt", f"{everyone}\n".encode())
