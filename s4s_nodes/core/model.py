"""The model that a preset is for, as recorded in the file; validated when it is constructed."""

from dataclasses import dataclass, field, fields
from typing import TypeGuard

PREDICTIONS = ("eps", "v", "flow", "x0")


class PresetError(ValueError):
    """A preset cannot be used; the message says why and what to do."""


def is_name(value) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 100 and value.isprintable()


def is_number(value) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


_LEVEL = (lambda v: is_number(v) and v >= 0, "a finite number of at least 0")
_MODEL_FIELDS = {                   # field: (whether a value fits, what is expected)
    "family": (is_name, "a name of 1 to 100 printable characters"), "sigma_min": _LEVEL, "sigma_max": _LEVEL,
    "shift": (lambda v: v is None or is_number(v) and v > 0, "null or a number above 0"),
    "channels": (lambda v: v is None or is_number(v) and isinstance(v, int) and v > 0, "null or a count"),
    "zero_terminal_snr": (lambda v: isinstance(v, bool), "true or false"),
    "hashes": (lambda v: isinstance(v, dict), "an object"),
}


@dataclass(frozen=True)
class Model:
    """What a preset's tables are for. Hashes are hints to find it by, never the only key."""

    family: str                             # e.g. "sd15", "sdxl", "flux", or a name of one's own
    prediction: str                         # one of PREDICTIONS
    sigma_min: float
    sigma_max: float
    zero_terminal_snr: bool = False
    shift: float | None = None              # a rectified flow's shift
    channels: int | None = None             # of the latent (or pixel) state
    hashes: dict = field(default_factory=dict)      # {"weights_1d": ..., "sha256_10": ..., "file": ...}

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise PresetError(f"model.prediction is {self.prediction!r}: use one of {', '.join(PREDICTIONS)}")
        for name, (fits, wanted) in _MODEL_FIELDS.items():
            if not fits(getattr(self, name)):
                raise PresetError(f"model.{name} is {str(getattr(self, name))[:60]!r}: expected {wanted}")
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
