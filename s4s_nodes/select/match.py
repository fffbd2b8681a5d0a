"""What a host knows of a model, whether a preset belongs to it, and the cfg and size it was learned for.

Pure: nothing is read or hashed here. Which preset runs is decided in selection.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

from ..core import experts, scores
from ..core.levels import same_top
from ..core.lists import range_text
from ..core.model import Model
from ..core.preset_file import Preset
from ..core.sketch import PATCHES, same_network
from .cfg import learned_at
from .families import base_of

HOOKS = "hooks"             # key in a training record: how hooks of its prompts changed the model, as a phrase
# The published schedules that run for a family automatically, by the hash of their numbers. Optimal Steps' for Flux and
# Wan are left out: on our models they had 1.2 to 4.5 times the error of the plain choice (solver_presets)
FAMILY_SCHEDULES = {"sd15": "94e0369df7", "sdxl": "5a94b10665"}
FAMILY_CALLS = {4.0: 7, 5.0: 9, 6.0: 10}    # cfg from which on they beat it up to so many calls, on a model of latents
TRAIN_ONE = "train one for this model"


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


def suits(preset: Preset, facts: ModelFacts) -> str | None:
    """None if the preset's tables are valid for this model, else the reason.

    A flow's shift and the family do not matter: a preset brings its own levels.
    """
    model = preset.model
    if facts.unfit:
        return facts.unfit
    if model.prediction != facts.prediction:
        return f"it is for {model.prediction} prediction, the model's is {facts.prediction}"
    if model.zero_terminal_snr != facts.zero_terminal_snr:
        return "it is for " + ("" if model.zero_terminal_snr else "no ") + "zero terminal SNR, the model " + (
            "has it" if facts.zero_terminal_snr else "has none")
    if not same_top(model.sigma_max, facts.sigma_max):
        return f"it is for levels up to {model.sigma_max:.4g}, the model's go up to {facts.sigma_max:.4g}"
    if None not in (model.channels, facts.channels) and model.channels != facts.channels:
        return f"it is for {model.channels} latent channels, the model has {facts.channels}"
    return None


def own_presets(presets, facts: ModelFacts, any_loras: bool = False) -> list[Preset]:
    """The presets learned or raced on exactly these weights, as one of two models too; or with whatever LoRAs."""
    return list({id(preset): preset for preset, _, same in _parts(presets, facts) if same or any_loras}.values())


def _parts(presets, facts: ModelFacts) -> list[tuple[Preset, Preset, bool]]:
    """(preset, the part of it for this network, whether with the same LoRAs and patches); of one model, the whole.

    The model's own hashes are computed only if a preset for such a model has some.
    """
    presets = [preset for preset in presets if preset.model.hashes and suits(preset, facts) is None]
    ours = facts.fingerprint() if presets and facts.fingerprint is not None else {}
    return [(preset, part, changed_by(part) == ours.get(PATCHES)) for preset in presets
            for part in preset.experts or (preset,) if same_network(part.model.hashes, ours)]


def as_seen(preset: Preset, facts: ModelFacts) -> Preset:
    """The part of a preset for two models that is for this model; any other preset unchanged."""
    return next((part for _, part, same in _parts([preset] if preset.experts else [], facts) if same), preset)


def changed_by(preset: Preset) -> str | None:
    """What changed the weights a preset was learned on; a command line's LoRAs are known by no host."""
    words = preset.training.get("loras")
    return preset.model.hashes.get(PATCHES) or (f"LoRAs {words}" if words else None)


def none_of_its_own(presets, facts: ModelFacts) -> tuple[str, str]:
    """(why the model has no preset of its own, what to do)."""
    others = [part for _, part, same in _parts(presets, facts) if not same]
    if not others:
        return "no preset was trained for this model", TRAIN_ONE
    how = "with other" if changed_by(others[0]) else "without"
    return f"{others[0].name} was learned on this model {how} LoRAs and patches", f"{TRAIN_ONE}, or choose it by name"


def family_schedule(presets, facts: ModelFacts, cfg: float | None, calls: int) -> Preset | None:
    """The published schedule that is selected automatically for the model's family, if there is one at this cfg."""
    wanted = FAMILY_SCHEDULES.get(facts.family)
    most = max((most for least, most in FAMILY_CALLS.items() if cfg is not None and cfg >= least - 1e-9), default=0)
    return next((preset for preset in presets if wanted and calls <= most and preset.model.family.lower() ==
                 facts.family and suits(preset, facts) is None and preset.short_hash == wanted), None)


def belongs(preset: Preset, facts: ModelFacts) -> bool:
    """Whether a preset belongs to the model: learned on its weights, or published for its family."""
    schedule = str(preset.training.get("imported", "")).startswith("schedule")
    if schedule and preset.model.family.lower() == base_of(facts.family):
        return True
    return is_solver(preset) or bool(own_presets([preset], facts))


def is_solver(preset: Preset) -> bool:
    """Whether it holds a classical solver's table, which an image carried: that was learned on no model."""
    origin = preset.training.get("from_image")
    return isinstance(origin, dict) and origin.get("kind") == "classical"


def cfg_range(preset: Preset, table: str = "") -> tuple[float, float] | None:
    """(lowest, highest) cfg that the preset or this table was trained at; None if unknown."""
    several = learned_at(preset).get(table) or preset.trained_cfg
    return (min(several), max(several)) if several else None


def cfg_distance(preset: Preset, table: str, cfg: float | None) -> tuple[float, float]:
    """The distance of cfg (from the trained range, from the nearest trained cfg); 0 if unknown."""
    trained = cfg_range(preset, table)
    if cfg is None or trained is None:
        return 0.0, 0.0
    points = learned_at(preset).get(table)
    outside = max(trained[0] - cfg, cfg - trained[1], 0.0)
    return outside, min(abs(cfg - point) for point in points) if points else outside


def middle_cfg(preset: Preset) -> float:
    """The middle of the cfg range the preset was trained at; 1 if unknown."""
    return sum(cfg_range(preset) or (1.0, 1.0)) / 2


def differences(preset: Preset, table: str, cfg: float | None, size: tuple | None, guidance=(),
                around: str | None = None) -> tuple[tuple[bool, str, str], ...]:
    """((whether a sampling differs from the training in its size, what to say, what to do), ... its cfg, its distilled
    guidance, and what changes the model in it alone); what is unknown does not differ."""
    name, trained, sizes, told = preset.name, cfg_range(preset, table), preset.trained_sizes, preset.trained_guidance
    learned_with = preset.training.get(HOOKS, "")
    return (
        (size is not None and not scores.near_size(size, sizes),
         f"{name} was learned on latents of {scores.size_text([shape[-2:] for shape in sizes])}, this one is "
         f"{scores.size_text((size or ())[-2:])}", "train at this size"),
        (cfg is not None and trained is not None and not scores.near_cfg(cfg, *trained),
         f"{name} was learned at cfg {range_text(trained or 0)}, you use {cfg or 0:g}",
         f"train at cfg {cfg or 0:g}, or use the learned one"),
        (bool(told) and not all(scores.near_cfg(each, min(told), max(told)) for each in guidance),
         f"{name} was learned at distilled guidance {range_text(told or 0)}, you use {range_text(guidance or 0)}",
         "train with that guidance, or use the learned one"),
        (around not in (None, learned_with),
         f"{name} was learned with {learned_with or 'cfg alone'}, this sampling has {around or 'cfg alone'}",
         "choose it by name to run it"))


def frames_text(preset: Preset, size: tuple | None) -> str:
    """A clause if a video has another number of latent frames than the preset was trained on, else ""."""
    counts = {shape[-3] for shape in preset.trained_sizes if len(shape) > 2}
    if size is None or len(size) < 3 or not counts or size[-3] in counts:
        return ""
    return f" (learned on {counts_text(counts)} latent frames, you have {size[-3]})"


def remarks(preset: Preset, cfg: float | None, table: str = "") -> str:
    """Warnings about a preset or table, as clauses in brackets; usually empty."""
    lost = " (not recommended: a classical solver did better in its race)" \
        if table in preset.tables and not preset.recommends(table, cfg) else ""
    stopped = " (unfinished: its training was stopped)" if preset.unfinished else ""
    return cfg_text(preset, cfg) + unproven_text(preset) + lost + stopped


def unproven_text(preset: Preset | None) -> str:
    """A clause if a preset holds published numbers that were not raced on this model, else ""."""
    shown = preset is not None and "imported" in preset.training and not preset.scores
    return " (published numbers, not measured on this checkpoint)" if shown else ""


def name_text(preset: Preset) -> str:
    return f"{preset.name} ({preset.short_hash})"


def cfg_text(preset: Preset, cfg: float | None) -> str:
    """A clause if cfg is outside the trained range, else ""."""
    if cfg is None or (trained := cfg_range(preset)) is None or trained[0] <= cfg <= trained[1]:
        return ""
    return f" (trained at cfg {range_text(trained)}, not at {cfg:g})"


def unknown_text(preset: Preset, cfg: float | None, size: tuple | None) -> str:
    """Clauses on a cfg or size that is unknown although the preset was learned at one; usually empty."""
    trained, sizes = cfg_range(preset), [shape[-2:] for shape in preset.trained_sizes]
    clauses = [f"cfg is not known here, learned at {range_text(trained)}"] if trained and cfg is None else []
    if sizes and size is None:
        clauses.append(f"size is not known here, learned on latents of {scores.size_text(sizes)}")
    return "".join(f"; {clause}" for clause in clauses)


def turns_text(preset: Preset) -> str:
    """The step at which the models of a preset for two change, as text."""
    steps = " or ".join(f"step {half.calls} of {preset.tables[name].calls}"
                        for name, half in preset.experts[experts.HIGH].tables.items())
    return f"{steps} (level {preset.boundary:g})"


def counts_text(counts) -> str:
    """Numbers of steps in a sentence: "4 to 12", "4, 6 and 8"."""
    counts = sorted(counts)
    if len(counts) > 2 and counts[-1] - counts[0] == len(counts) - 1:
        return f"{counts[0]} to {counts[-1]}"
    return " and ".join(filter(None, [", ".join(map(str, counts[:-1])), str(counts[-1])]))
