"""Tables for two models that take turns (Wan 2.2): a high-noise one above a noise level, the boundary, then another.

Such a table is two tables in a row, which share the level of the boundary. No row of the second uses a prediction from
before it: hosts run the two in two samplers, and the second starts without history.
"""

from dataclasses import replace

import numpy as np
import torch

from .classical import Solver
from .model import PresetError, is_number
from .table import Table
from .trace import TensorTable

KEY = "experts"             # key in a preset's training record: {"boundary": sigma, "cfg": the low-noise model's}
LOW_NOISE = "low_noise"     # key in its model's hashes: those of the low-noise model
HIGH, LOW = 0, 1            # in the order of `experts_of`
NAMES = ("high-noise", "low-noise")
_JUST_ABOVE = 1e-4          # queries of the first table stay this share above the boundary, more than float32 rounds


def chained(first: TensorTable, second: TensorTable) -> TensorTable:
    """One table after the other; the first ends at the level at which the second starts."""
    joined = {part: torch.cat([getattr(first, part), getattr(second, part)]) for part in ("query", "scale", "carry")}
    return TensorTable(torch.cat([first.sigmas[:-1], second.sigmas]), weights=torch.block_diag(
        first.weights, second.weights), **joined)


def above(table: TensorTable, boundary: float) -> TensorTable:
    """The table with all queries above the boundary, so that the high-noise model answers them."""
    return table._replace(query=table.query.clamp(min=boundary * (1 + _JUST_ABOVE)))


def is_high(sigma, boundary: float):
    """Whether the high-noise model answers at these levels; the boundary itself is the low-noise model's."""
    return sigma > boundary * (1 + _JUST_ABOVE / 2)


def turn_of(levels, boundary: float) -> int:
    """The step at which the models change on levels (N+1,) that fall to 0: the first at the boundary or below."""
    return int(np.argmax(~is_high(np.asarray(levels), boundary)))


def restarted(solver: Solver, levels, boundary: float, flow: bool) -> Table:
    """A classical solver as two samplers run it: from the step at which the models change it starts without history.

    Raises ValueError as the solver does.
    """
    levels = np.array(levels, dtype=np.float64)
    turn = turn_of(levels, boundary)
    if turn >= len(levels) - 1:
        return solver(levels, flow=flow)
    return chained(solver.table(levels[:turn + 1], flow), solver.table(levels[turn:], flow)).frozen()


def pinned(levels, boundary: float) -> np.ndarray:
    """The levels (N+1,) with the one at which the models change moved to the boundary.

    Raises ValueError for fewer than two calls: each model makes at least one.
    """
    levels = np.array(levels, dtype=np.float64)
    if len(levels) < 3:
        raise ValueError("a table of 1 call is too short for two models: give at least 2 calls")
    levels[min(turn_of(levels, boundary), len(levels) - 2)] = boundary
    return levels


def halves(table: Table, boundary: float) -> tuple[Table, ...]:
    """(what the high-noise model runs, what the low-noise one runs). Raises ValueError for another kind of table."""
    turn = int(np.argmin(np.abs(table.sigmas - boundary)))
    inside = 0 < turn < table.calls and abs(table.sigmas[turn] - boundary) <= 1e-9
    if not inside or not is_high(table.query[:turn], boundary).all() or is_high(table.query[turn:], boundary).any():
        raise ValueError(f"does not change models at level {boundary:g}: its maker must train it again")
    if table.weights[turn:, :turn].any():
        raise ValueError(f"uses predictions from before level {boundary:g} after it: its maker must train it again")
    return tuple(Table(table.sigmas[rows.start:rows.stop + 1], table.query[rows], table.scale[rows], table.carry[rows],
                       table.weights[rows, rows], table.keeps_constants)
                 for rows in (slice(0, turn), slice(turn, table.calls)))


def experts_of(preset) -> tuple:
    """(the preset as the high-noise model sees it, as the low-noise one does): its half of each table, its hashes and
    cfg; () of a preset for one model. Raises PresetError for a record or a table that does not fit."""
    record = preset.training.get(KEY)
    if record is None:
        return ()
    boundary = record.get("boundary") if isinstance(record, dict) else None
    hashes = preset.model.hashes.get(LOW_NOISE, {})
    if not is_number(boundary) or not 0 < boundary < preset.model.sigma_max or not is_number(record.get("cfg")) \
            or not isinstance(hashes, dict):
        raise PresetError(f"its record of two models is {str(record)[:60]!r}: expected a boundary between the model's "
                          "levels and a cfg; download or train it again")
    cut = {}
    for name, table in preset.tables.items():
        try:
            cut[name] = halves(table, float(boundary))
        except ValueError as error:
            raise PresetError(f"table {name!r} {error}") from None
    training = {key: value for key, value in preset.training.items() if key != KEY}
    without_cfg = {table: {at: {key: value for key, value in score.items() if key != "cfg"}
                           for at, score in results.items()} for table, results in preset.scores.items()}
    high = replace(preset, tables={name: two[HIGH] for name, two in cut.items()}, training=training)
    low = replace(preset, tables={name: two[LOW] for name, two in cut.items()}, scores=without_cfg,
                  training={**training, "cfg": record["cfg"]}, model=replace(preset.model, hashes=hashes))
    return high, low
