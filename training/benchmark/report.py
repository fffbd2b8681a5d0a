"""Pictures and tables for people: what was learned, how the race went, what the images look like."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from ...s4s_nodes import picture
from ..baselines.measure import Entry, pooled
from . import frechet
from .race import TableResult
from .verdict import interval, within_text


def draw_race(race: TableResult, path, title: str) -> Path:
    """Errors of the learned table and the best baselines, with 95 % intervals over seeds."""
    rows = [("S4S" if entry is race.learned else entry.name, entry.rmse, *interval(entry.errors), entry is race.learned)
            for entry in [race.learned, *race.finalists][:14] if np.isfinite(entry.errors).all()]
    note = f"RMSE to the teacher, {len(race.learned.errors)} unseen seeds (95 % interval)"
    return picture.save(picture.bars(title, note, rows), path)


def sheet(rows: list[tuple[str, str, Tensor]], path) -> Path:
    """Images side by side, one row per (label, caption, (n, 1 or 3, H, W) in -1..1), the same seeds in a column."""
    drawn = [(label, caption, [_picture(image) for image in images]) for label, caption, images in rows]
    return picture.save(picture.sheet(drawn), path)


def _picture(values: Tensor) -> Image.Image:
    pixels = ((values.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().byte().expand(3, -1, -1)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


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
    learned = race.learned
    far = None if entry.features is None or race.teacher is None else frechet.distance(entry.features, race.teacher)
    times = entry.rmse / float(pooled(learned.errors[:len(entry.errors)]))
    ours, doubt = entry is learned, within_text(learned, entry).removeprefix(", ")
    return Row(ours, "S4S (learned)" if ours else entry.name, entry.rmse, entry.median, far, len(entry.errors), times,
               doubt)


def race_table(race: TableResult, shown: int = 12) -> str:
    """The race as text, best first, those that ran fewer seeds below a line; the page has them all.

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
