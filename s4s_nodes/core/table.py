"""The table of a solver: five small arrays that describe N network calls from noise to an image."""

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

MAX_CALLS = 1000            # a (1000, 1000) table is 8 MB; nothing real comes near it
PARTS = ("sigmas", "query", "scale", "carry", "weights")       # the arrays of a table
LAW_TOLERANCE = 1e-8        # rounding of 1000 float64 rows stays far below it


class Row(NamedTuple):
    """One network call for the loop: Python numbers, or 0-dim tensors that carry a gradient."""

    sigma: Any              # nominal noise level of the state before the call
    query: Any              # noise level the denoiser is told
    scale: Any              # factor on the state the denoiser is shown; the float 1.0 means "as it is"
    carry: Any              # factor on the state in the next state; the float 0.0 means "none of it"
    terms: tuple            # ((call, weight), ...): the predictions in the next state
    done: tuple             # calls whose prediction no later row needs


@dataclass(frozen=True, eq=False)
class Table:
    """N network calls as a checked, frozen float64 table.

    Row i = 0..N-1:   D[i]   = denoiser(scale[i] * x[i], query[i])
                      x[i+1] = carry[i] * x[i] + sum_{j <= i} weights[i, j] * D[j]

    Args:
        sigmas (N+1,): nominal noise level of x[i] (a flow: s), never rising; the last is normally 0.
        query (N,): noise level that the denoiser is told, above 0.
        scale (N,): factor on the state that the denoiser is shown, above 0.
        carry (N,): factor on the state in the next state.
        weights (N, N): weights of the predictions in the next state, lower-triangular.
        keeps_constants: whether the table obeys the constant law; a table that breaks it is refused unless False.

    The constant law: if every D[j] is the same z and x[0] = z + sigmas[0] * n (rectified flow: (1 - s) z + s n),
    then x[N] is z at the level sigmas[N]. It keeps inpainting exact and brightness true.

    Raises ValueError for an invalid table.
    """

    sigmas: np.ndarray
    query: np.ndarray
    scale: np.ndarray
    carry: np.ndarray
    weights: np.ndarray
    keeps_constants: bool = True

    def __post_init__(self):
        for name in PARTS:
            object.__setattr__(self, name, _frozen(name, getattr(self, name)))
        _check_shapes(self)
        _check_levels(self)
        # "not <=" because NaN is broken too
        if self.keeps_constants and not (broken := constant_law_error(self)) <= LAW_TOLERANCE:
            raise ValueError(
                f"the table breaks the constant law by {broken:.3g} (allowed: {LAW_TOLERANCE:g}): a denoiser "
                "that always predicts the same image must return that image. Let the last row have carry 0 "
                "and weights that undo the rest, or mark the table keeps_constants=False")

    @property
    def calls(self) -> int:
        """The number of network calls (NFE)."""
        return len(self.query)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The table as Python floats without zero weights, and after which call each prediction can be freed."""
        used = [np.flatnonzero(self.weights[i, :i + 1]) for i in range(self.calls)]
        last = {**{i: i for i in range(self.calls)}, **{int(j): i for i in range(self.calls) for j in used[i]}}
        done: list[list[int]] = [[] for _ in used]
        for j, i in last.items():
            done[i].append(j)
        return tuple(
            Row(float(self.sigmas[i]), float(self.query[i]), float(self.scale[i]), float(self.carry[i]),
                tuple((int(j), float(self.weights[i, j])) for j in reversed(used[i])),
                tuple(done[i])) for i in range(self.calls))

    def same_as(self, other: "Table") -> bool:
        """Whether both tables hold exactly the same numbers."""
        return all(np.array_equal(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))


def end_response(table) -> tuple:
    """A constant denoiser's last state: (weight of x[0], total weight of the predictions); tensors of a TensorTable."""
    start, total = 1.0, 0.0
    with np.errstate(over="ignore", invalid="ignore"):     # a hostile table overflows, quietly
        for i in range(len(table.carry)):
            start, total = table.carry[i] * start, table.carry[i] * total + table.weights[i].sum()
    return start, total


def lawful_total(first, end, flow: bool):
    """The total weight of the predictions in x[N] that the constant law demands from level `first` to `end`."""
    kept = end / first                                       # the weight of x[0]
    return (1 - end) - (1 - first) * kept if flow else 1 - kept


def constant_law_error(table) -> float:
    """How far the table is from the constant law; 0 if it reproduces a constant denoiser.

    The two laws (variance exploding: x = z + sigma n; rectified flow: x = (1-s) z + s n) agree when the end
    level is 0. Otherwise a table has to obey only one of them.
    """
    first, end = float(table.sigmas[0]), float(table.sigmas[-1])
    start, total = end_response(table)
    off = min(abs(total - lawful_total(first, end, flow)) for flow in (False, True))
    return float(np.maximum(abs(start - end / first), off))         # Python's max would lose a NaN


def check_float32(key: str, table: Table) -> None:
    """Refuse a table that no host can sample, because hosts keep numbers as float32. Raises ValueError.

    Levels that differ here would no longer differ there, or numbers would be infinite.
    """
    sigmas, limit = table.sigmas, float(np.finfo(np.float32).max)
    if sigmas.max() > limit:
        raise ValueError(f"table {key!r} has a level of {sigmas.max():g}, more than float32 can hold: train it again")
    if max(float(np.abs(getattr(table, part)).max()) for part in PARTS) > limit:
        raise ValueError(f"table {key!r} has a number beyond {limit:.2g}, the most float32 can hold: train it again")
    with np.errstate(under="ignore"):
        rounded = sigmas.astype(np.float32)
    merged = np.flatnonzero((np.diff(rounded) == 0) & (np.diff(sigmas) != 0))
    if len(merged):
        i = int(merged[0])
        raise ValueError(f"levels {i} and {i + 1} of table {key!r} are both {sigmas[i]:.7g} after rounding to "
                         "float32, so no host can sample between them: train it with levels further apart")


def _frozen(name: str, values) -> np.ndarray:
    try:
        if np.asarray(values).dtype.kind not in "fiu":
            raise TypeError(f"they are of type {np.asarray(values).dtype}")
        array = np.array(values, dtype=np.float64)           # a copy: the caller's array stays writable
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor that carries a gradient
        raise ValueError(f"{name} must be an array of real numbers: {error}") from None
    if not np.isfinite(array).all():
        raise ValueError(f"{name} holds NaN or infinity: every number of a table must be finite")
    array.setflags(write=False)
    return array


def _check_shapes(table: Table) -> None:
    calls = table.sigmas.size - 1
    if table.sigmas.ndim != 1 or calls < 1:
        raise ValueError(f"sigmas has shape {table.sigmas.shape}: N >= 1 calls need N + 1 levels in one dimension")
    if calls > MAX_CALLS:
        raise ValueError(f"{calls} calls asked for: a table holds at most {MAX_CALLS}")
    wanted = {"query": (calls,), "scale": (calls,), "carry": (calls,), "weights": (calls, calls)}
    for name, shape in wanted.items():
        if getattr(table, name).shape != shape:
            raise ValueError(f"{name} has shape {getattr(table, name).shape}, but {calls + 1} sigmas mean "
                             f"{calls} calls and shape {shape}")
    above = np.argwhere(np.triu(table.weights, 1))
    if len(above):
        i, j = above[0]
        raise ValueError(f"weights[{i}, {j}] is not zero: row {i} has {i + 1} prediction{'s' if i else ''}, "
                         "and none from later calls")


def _check_levels(table: Table) -> None:
    rises = np.flatnonzero(np.diff(table.sigmas) > 0)
    if len(rises):
        i = rises[0]
        raise ValueError(f"sigmas rise from {table.sigmas[i]:g} to {table.sigmas[i + 1]:g} at index {i + 1}: "
                         "noise levels must fall")
    if table.sigmas[-1] < 0 or table.sigmas[-2] <= 0:
        raise ValueError(f"sigmas end in {table.sigmas[-2]:g}, {table.sigmas[-1]:g}: only the last level may "
                         "be 0, and none below")
    for name in ("query", "scale"):
        if (getattr(table, name) <= 0).any():
            i = int(np.argmax(getattr(table, name) <= 0))
            raise ValueError(f"{name}[{i}] is {getattr(table, name)[i]:g}: it must be above 0")
