"""What a preset's records of its training and its races hold where they are read as numbers; all else is shown as text,
or counts as not recorded where it does not fit."""

from .model import PresetError, is_number


def _pair(value) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_number, value))


_NUMBER = (lambda value: is_number(value)), "a number"
_COUNT = (lambda value: is_number(value) and value >= 0), "a number of at least 0"
_TRAINING = {               # entry: (whether a value fits, what is expected)
    "model_calls": _COUNT, "seconds": _COUNT,
    "guidance": (lambda value: is_number(value) or isinstance(value, list) and value and all(map(is_number, value)),
                 "a number, or one for each prompt"),
    "size": (lambda value: _pair(value) and min(value) >= 1, "a width and a height"),
    "held_out_rmse": (lambda value: isinstance(value, dict) and all(map(_pair, value.values())),
                      "two numbers for each table")}
_SCORE = {**dict.fromkeys(("rmse", "best_rmse", "median", "best_median", "ratio", "ratio_median"), _NUMBER),
          **dict.fromkeys(("rmse_95", "median_95", "ratio_95", "ratio_median_95"), (_pair, "two numbers")),
          "classical_calls_to_match": (lambda value: value is None or is_number(value), "null or a number")}


def check_records(training: dict, scores: dict) -> None:
    """Raise PresetError for an entry of another type than what reads it takes. scores: by condition."""
    _check("training", training, _TRAINING)
    for table, results in scores.items():
        for score in results.values():
            _check(f"scores of {str(table)[:60]}:", score, _SCORE)


def _check(what: str, record: dict, wanted: dict) -> None:
    for name, (fits, expected) in wanted.items():
        if name in record and not fits(record[name]):
            raise PresetError(f"{what} {name} is {str(record[name])[:60]!r}: expected {expected}")
