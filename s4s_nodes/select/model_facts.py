"""What a host knows of a model."""

from collections.abc import Callable
from dataclasses import dataclass

from ..core.model import PREDICTIONS, Model


@dataclass(frozen=True)
class ModelFacts:
    """What a host knows of a model; None if unknown.

    Args:
        prediction: eps, v, flow or x0.
        sigma_min: the lowest noise level, in sigma (a flow: s).
        sigma_max: the highest noise level.
        family: in lower case, such as "sd15", "sdxl", "sd3", "flux", "wan21".
        channels: of the latent.
        zero_terminal_snr: whether the highest level is pure noise.
        shift: the shift of a flow's levels.
        fingerprint: () -> {"weights_1d": hex, ...}; called only if a preset has hashes to compare with.
        unfit: why no table can be learned for it, as a clause; normally "".
    """

    prediction: str
    sigma_min: float
    sigma_max: float
    family: str | None = None
    channels: int | None = None
    zero_terminal_snr: bool = False
    shift: float | None = None
    fingerprint: Callable[[], dict] | None = None
    unfit: str = ""

    def __post_init__(self):
        if self.prediction not in PREDICTIONS:
            raise ValueError(f"prediction is {self.prediction!r}: use one of {', '.join(PREDICTIONS)}")
        if not 0 <= self.sigma_min < self.sigma_max:
            raise ValueError(f"levels from {self.sigma_min:g} to {self.sigma_max:g}: a model's highest level must be "
                             "above its lowest, and none below 0")

    @classmethod
    def of(cls, model: Model) -> "ModelFacts":
        """The facts of the model that a preset records."""
        return cls(model.prediction, model.sigma_min, model.sigma_max, model.family.lower(), model.channels,
                   model.zero_terminal_snr, model.shift)

    @property
    def model(self) -> Model:
        """The Model that a preset records, so that it is found again."""
        return Model(self.family or "unknown", self.prediction, self.sigma_min, self.sigma_max, self.zero_terminal_snr,
                     self.shift, self.channels, dict(self.fingerprint()) if self.fingerprint is not None else {})

    @property
    def flow(self) -> bool:
        """Whether states are (1 - s) x0 + s noise instead of x0 + sigma noise."""
        return self.prediction == "flow"
