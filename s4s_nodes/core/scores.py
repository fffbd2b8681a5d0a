"""What races measured of a preset's tables: {table: {condition: score}}, so that no race replaces another's.

A condition is cfg, size, program with device, and seeds. Files of version 0.4 and before have one score for each table.
"""

from collections.abc import Sequence

from .model import is_number

CFG_TOLERANCE = 0.1         # a table learned or raced at cfg 7 is for 6.3 to 7.7: docs/constants.md
SIZE_TOLERANCE = 2.0        # and on half to twice the area; so does a table


def condition(score: dict) -> str:
    """The condition of a score as text, its key."""
    cfg = score.get("cfg")
    parts = [f"cfg {cfg:g}" if is_number(cfg) else "", size_text(score.get("size")),
             str(score.get("where", "")), f"{score['seeds']} seeds" if "seeds" in score else ""]
    return ", ".join(part for part in parts if part) or "unknown"


def size_record(shapes) -> list:
    """Shapes as a record has them, and `shapes_of` reads them: one as it is, several as a list of them."""
    several = [list(shape) for shape in shapes]
    return several[0] if len(several) == 1 else several


def shapes_of(recorded) -> list[tuple]:
    """The shapes in a record of a size, such as (height, width), or of several sizes; [] for anything else."""
    if not isinstance(recorded, (list, tuple)):
        return []
    several = recorded if all(isinstance(each, (list, tuple)) for each in recorded) else [recorded]
    return [tuple(shape) for shape in several if shape and all(is_number(count) and count >= 1 for count in shape)]


def size_text(recorded) -> str:
    """A size or several in a sentence: "64 x 64 and 64 x 96"."""
    return " and ".join(" x ".join(map(str, shape)) for shape in shapes_of(recorded))


def by_condition(scores: dict) -> dict:
    """{table: {condition: score}} of scores as a file has them, those of one score for each table too."""
    return {table: results if all(isinstance(score, dict) for score in results.values()) else
            {condition(results): results} for table, results in scores.items()}


def added(scores: dict, new: dict) -> dict:
    """The scores with new ones, {table: score} or by condition; one of the same condition is replaced."""
    return {**scores, **{table: {**scores.get(table, {}), **results} for table, results in by_condition(new).items()}}


def near(results: dict, low: float, high: float | None = None) -> list[dict]:
    """The scores of this cfg, or of a range of cfg; those that do not say theirs among them."""
    return [score for score in results.values() if not is_number(score.get("cfg"))
            or near_cfg(score["cfg"], low, low if high is None else high)]


def near_cfg(cfg: float, low: float, high: float) -> bool:
    """Whether a guidance scale lies in the range, up to `CFG_TOLERANCE`."""
    return low * (1 - CFG_TOLERANCE) <= cfg + 1e-9 and cfg - 1e-9 <= high * (1 + CFG_TOLERANCE)


def near_size(size: Sequence, shapes: Sequence) -> bool:
    """Whether a (..., height, width) has half to twice the area of some of these; true for none."""
    ratios = [size[-2] * size[-1] / (shape[-2] * shape[-1]) for shape in shapes if len(shape) > 1]
    return not ratios or any(1 / SIZE_TOLERANCE <= ratio <= SIZE_TOLERANCE for ratio in ratios)


def chosen(results: dict, cfg: float | None, trained: Sequence, sizes: Sequence = ()) -> dict:
    """The score of this cfg, else one of those the table was trained at, near one of the sizes; {} for none.

    Of several the one of just this size, of the nearest cfg, of the most seeds.
    """
    results = {key: score for key, score in results.items() if not sizes or any(
        near_size(size, shapes_of(score.get("size"))) for size in sizes)}
    here = near(results, cfg) if cfg is not None else []
    pool = here or (near(results, min(trained), max(trained)) if trained else list(results.values()))

    def rank(score):
        far = abs(score["cfg"] - cfg) if here and is_number(score.get("cfg")) else 0.0
        seeds = score["seeds"] if is_number(score.get("seeds")) else 0
        same = {tuple(shape[-2:]) for shape in shapes_of(score.get("size"))} & {tuple(size[-2:]) for size in sizes}
        return bool(sizes) and not same, far, -seeds
    return min(pool, key=rank, default={})


def compared(ratio: float, bounds: Sequence = ()) -> tuple[str, str]:
    """The best baseline's error over a table's in words: ("1.25 [1.10, 1.40]", "closer to") the teacher, or, below 1,
    ("1.72 [1.61, 1.85]", "further from") it. bounds: the ratio's interval, if it is to be said."""
    further = 0 < ratio < 1
    numbers = [1 / max(value, 1e-9) for value in (ratio, *reversed(bounds))] if further else (ratio, *bounds)
    times, *sure = (f"{number:.2f}" for number in numbers)
    return times + (f" [{', '.join(sure)}]" if sure else ""), "further from" if further else "closer to"


def lost(score: dict) -> bool | None:
    """Whether a race says that a baseline is closer; None if it says nothing."""
    verdict = score.get("lost")
    if isinstance(verdict, bool):
        return verdict
    before = score.get("recommended")               # in older files it was one or the other
    return not before if isinstance(before, bool) else None
