"""What a host knows of a model."""

from collections.abc import Callable
from dataclasses import dataclass, fields

from ..core.model import Model


@dataclass(frozen=True)
class ModelFacts(Model):
    """A Model as a host sees it, its hashes looked up late; family "unknown" if the host names none.

    Args:
        fingerprint: () -> {"weights_1d": hex, ...}; called only if a preset has hashes to compare with.
        unfit: why no table can be learned for it, as a clause; normally "".
    """

    fingerprint: Callable[[], dict] | None = None
    unfit: str = ""

    @classmethod
    def of(cls, model: Model) -> "ModelFacts":
        """The facts of the model that a preset records."""
        return cls(**{**vars(model), "family": model.family.lower(), "hashes": {}})

    @property
    def model(self) -> Model:
        """The Model that a preset records, so that it is found again."""
        known = {field.name: getattr(self, field.name) for field in fields(Model)}
        return Model(**{**known, "hashes": dict(self.fingerprint()) if self.fingerprint is not None else {}})
