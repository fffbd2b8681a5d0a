"""What a preset records: the model that it is for, its training and its races; validated before use."""

from dataclasses import dataclass, field, fields
from typing import TypeGuard

PREDICTIONS = ("eps", "v", "flow", "x0")


class PresetError(ValueError):
    """A preset cannot be used; the message says why and what to do."""


def is_name(value) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()


def is_number(value) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def check_entries(what: str, record: dict, wanted: dict) -> None:
    """Raise PresetError for an entry that does not fit. wanted: {name: (whether a value fits, what is expected)}."""
    for name, (fits, expected) in wanted.items():
        if name in record and not fits(record[name]):
            raise PresetError(f"{what}{name} is {str(record[name])[:60]!r}: expected {expected}")


_NUMBER = (lambda v: is_number(v), "a number")
_COUNT = (lambda v: is_number(v) and v >= 0, "a number of at least 0")
_MODEL_FIELDS = {
    "family": (is_name, "a name of 1 to 100 printable characters"), "sigma_min": _COUNT, "sigma_max": _COUNT,
    "shift": (lambda v: v is None or is_number(v) and v > 0, "null or a number above 0"),
    "channels": (lambda v: v is None or is_number(v) and isinstance(v, int) and v > 0, "null or a count"),
    "zero_terminal_snr": (lambda v: isinstance(v, bool), "true or false"),
    "hashes": (lambda v: isinstance(v, dict), "an object"),
}


def _pair(value) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_number, value))


_TRAINING = {
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
    """Raise PresetError for an entry of another type than what reads it as a number takes; all else is shown as text,
    or counts as not recorded where it does not fit. scores: by condition."""
    check_entries("training ", training, _TRAINING)
    for table, results in scores.items():
        for score in results.values():
            check_entries(f"scores of {str(table)[:60]}: ", score, _SCORE)


@dataclass(frozen=True)
class Model:
    """What a preset's tables are for.

    Args:
        family: such as "sd15", "sdxl" or "flux", or your own name.
        prediction: eps, v, flow or x0.
        sigma_min: the lowest noise level, in sigma (a flow: s).
        sigma_max: the highest noise level.
        zero_terminal_snr: whether the highest level is pure noise.
        shift: the shift of a flow's levels.
        channels: of the latent or the pixels.
        hashes: {"weights_1d": ..., "sha256_10": ..., "file": ...}, hints to recognize the model by.
    """

    family: str
    prediction: str
    sigma_min: float
    sigma_max: float
    zero_terminal_snr: bool = False
    shift: float | None = None
    channels: int | None = None
    hashes: dict = field(default_factory=dict)

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise PresetError(f"model.prediction is {self.prediction!r}: use one of {', '.join(PREDICTIONS)}")
        check_entries("model.", vars(self), _MODEL_FIELDS)
        if not self.sigma_min < self.sigma_max:
            raise PresetError(f"model.sigma_min {self.sigma_min:g} is not below sigma_max {self.sigma_max:g}")

    @property
    def flow(self) -> bool:
        """Whether states are (1 - s) x0 + s noise instead of x0 + sigma noise."""
        return self.prediction == "flow"


def model_of(content: dict) -> Model:
    """The Model from its JSON object. Raises PresetError for a missing, unknown or unfit entry."""
    known = {f.name for f in fields(Model)}
    wanted = known - {"zero_terminal_snr", "shift", "channels", "hashes"}
    if not wanted <= set(content) <= known:
        raise PresetError(f"model has the entries {sorted(map(str, content))[:12]}: expected {sorted(known)}")
    return Model(**content)
