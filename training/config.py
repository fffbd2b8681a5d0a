"""The settings of a training, grouped by what they are about.

Each setting has a flat name as well, that of its flag: `Config.of(calls=(5,), teacher_calls=50, pairs=64)` fills the
groups, and config.json and the command line use the flat names.
"""

import json
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

from ..s4s_nodes.core import names
from ..s4s_nodes.core.lists import sizes
from ..s4s_nodes.select.cfg import cfg_nodes

LATER = {"more_sizes": "more_sizes", "teacher_checkpoint": "teacher_checkpoint", "teacher_cfg": "teacher_checkpoint"}
TEACHER_CFG = 5.0
MOST_CALLS = 50        # a learned table pays off below about 12 calls

PREDICTIONS, DTYPES = ("auto", "eps", "v", "v_zsnr"), ("auto", "fp32", "fp16", "bf16")
BUDGETS = {"quick": 3_000, "normal": 10_000, "thorough": 40_000}        # network calls per table, by name


def calls_of_budget(budget) -> int:
    """Network calls of a budget given by name or number. Raises ValueError for anything else."""
    try:
        return BUDGETS[budget] if budget in BUDGETS else int(budget)
    except (TypeError, ValueError):
        raise ValueError(f"budget {budget!r}: use {', '.join(BUDGETS)}, or a number of network calls") from None


def setting(default, help_text: str, flag: str = "", **limits):
    """A setting: its help text, the name of its flag where that is not the field's, and its limits (least, choices)."""
    return field(default=default, metadata={"help": help_text, "flag": flag, **limits})


def flag_of(one: Field) -> str:
    return one.metadata["flag"] or one.name


@dataclass(frozen=True)
class Group:
    """Settings that belong together. Raises ValueError for one beyond its limits."""

    def __post_init__(self):
        for one in fields(self):
            value, limits = getattr(self, one.name), one.metadata
            if "least" in limits and value < limits["least"]:
                raise ValueError(f"{flag_of(one)} is {value}: use {limits['least']} or more")
            if "choices" in limits and value not in limits["choices"]:
                raise ValueError(f"{one.name} {value!r}: use one of {', '.join(limits['choices'])}")


@dataclass(frozen=True)
class ModelSettings(Group):
    """What is distilled: a bundled model, or a checkpoint and how it is opened."""

    name: str = setting("digits-eps", "the bundled model to train for: digits-eps or digits-flow", "model")
    checkpoint: str = setting("", "use this checkpoint instead of a bundled model: a .safetensors file, or a "
                                  "folder in diffusers' layout")
    prompts: str = setting("", "for a checkpoint: a text file with one prompt per line; seeds take turns")
    negative: str = setting("", "for a checkpoint: the negative prompt, for a cfg above 1")
    width: int = setting(0, "for a checkpoint: image width in pixels; 0: the model's native size", least=0)
    height: int = setting(0, "for a checkpoint: image height in pixels; 0: the width", least=0)
    more_sizes: str = setting("", "for a checkpoint: other sizes to learn the same tables for, in pixels, e.g. "
                                  "768x512,1024x1024")
    dtype: str = setting("auto", "for a checkpoint: fp32, fp16 or bf16; auto: a half type on a GPU, fp32 on a CPU",
                         choices=DTYPES)
    config: str = setting("", "for a checkpoint: a folder in diffusers' layout that describes the model, with the "
                              "weights of what its file lacks; default: diffusers' cache on this machine")
    prediction: str = setting("auto", "for a checkpoint: eps, v or v_zsnr, if its file does not say",
                              choices=PREDICTIONS)
    shift: float = setting(0.0, "for a flow checkpoint: the shift of its levels; 0: its own", least=0)
    teacher_checkpoint: str = setting("", "for a distilled checkpoint: learn from this one, the undistilled model")
    teacher_cfg: float = setting(TEACHER_CFG, "the guidance scale of --teacher-checkpoint", least=0)
    guidance: float = setting(3.5, "for Flux dev: the distilled guidance; use --cfg 1 with it")

    def __post_init__(self):
        super().__post_init__()
        if sizes(self.more_sizes, "more_sizes") and not self.checkpoint:
            raise ValueError("--more-sizes is for checkpoints: the bundled models have one size")
        if self.teacher_checkpoint and not self.checkpoint:
            raise ValueError("--teacher-checkpoint is for a checkpoint: add --checkpoint and --prompts")
        if self.teacher_cfg != TEACHER_CFG and not self.teacher_checkpoint:
            raise ValueError(f"--teacher-cfg {self.teacher_cfg:g} is for --teacher-checkpoint, and none is given: add "
                             "it, or leave --teacher-cfg out")
        if bool(self.checkpoint) != bool(self.prompts):
            raise ValueError("--checkpoint and --prompts go together: the bundled models have no prompts")


@dataclass(frozen=True)
class TeacherSettings(Group):
    solver: str = setting("auto", "the classical solver that makes the targets; auto: unipc_bh2_3; for a distilled "
                                  "model a solver and a schedule, such as \"euler, sgm_uniform\"", "teacher")
    calls: int = setting(32, "the teacher's calls at first; doubled, up to 128, while its measured error is above a "
                             "fifth of the student's; with a solver and a schedule, exactly this many", "teacher_calls",
                         least=1)


@dataclass(frozen=True)
class DataSettings(Group):
    pairs: int = setting(256, "cached teacher pairs to learn from", least=1)
    validation: int = setting(64, "held-out pairs that choose the best state", least=1)
    seed: int = setting(0, "first seed: the seeds of training, validation and test follow from it")


C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Config(Group):
    """Every setting of `s4s train`. Raises ValueError for a value that cannot work."""

    name: str = setting("my-preset", "name of the preset")
    calls: tuple = setting((6,), "numbers of network calls to learn a table for, e.g. 4,5,6,8")
    windows: tuple = setting((1.0,), "denoise strengths to learn tables for; below 1 for img2img, e.g. 1,0.75,0.5,0.35")
    cfg: tuple = setting((3.0,), "guidance scale of teacher and student; for a range, e.g. 3:7, tables are learned "
                                 "at a few cfg and interpolated; a list, e.g. 3,5,7, names these cfg")
    budget: int = setting(10_000, "most network calls per table, including its share of the teacher's: quick (3,000), "
                                  "normal (10,000), thorough (40,000), or a number; 0: no limit", least=0)
    schedule: str = setting("auto", "start on this schedule; auto: on the best of all, found by a short race")
    iterations: int = setting(0, "optimizer steps per table; 0: as many as the budget allows", least=0)
    device: str = setting("auto", "cpu, cuda, mps, or auto")
    model: ModelSettings = field(default_factory=ModelSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self):
        for name, value in (("budget", calls_of_budget(self.budget)), ("calls", tuple(int(c) for c in self.calls)),
                            ("windows", tuple(float(w) for w in self.windows)), ("cfg", cfg_nodes(self.cfg))):
            object.__setattr__(self, name, value)
        names.preset_name(self.name)                    # the name of a file, too: before anything is learned
        super().__post_init__()
        self._check_tables()

    def _check_tables(self) -> None:
        if not self.calls:
            raise ValueError("calls is empty: name at least one number of network calls, e.g. --calls 6")
        for calls in self.calls:
            if not 1 <= calls <= MOST_CALLS:
                raise ValueError(f"{calls} calls asked for: a learned table has 1 to {MOST_CALLS} (they pay off "
                                 "below about 12; above that use a classical solver)")
        for several in (self.calls, self.windows):
            if len(set(several)) < len(several):
                raise ValueError(f"{', '.join(map(str, several))}: give each value once, not twice")
        if 1.0 not in self.windows or not all(0 < window <= 1 for window in self.windows):
            raise ValueError(f"windows {self.windows}: use denoise strengths above 0 and up to 1, including 1 "
                             "(the others start on the levels it learns)")

    @classmethod
    def of(cls, **settings) -> "Config":
        """A configuration from the flat names of settings. Raises ValueError for an unknown name or a bad value."""
        if unknown := sorted(set(settings) - set(SETTINGS)):
            raise ValueError(f"unknown settings {', '.join(unknown)}: check the spelling and this program's version")
        return cls().replace(**settings)

    def replace(self: C, **settings) -> C:
        """A copy with these settings, by their flat names (or fields of this class)."""
        groups = _grouped(settings)
        return replace(self, **groups.pop("", {}), **{group: replace(getattr(self, group), **values)
                                                      for group, values in groups.items()})

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name; later ones only where they are set: older runs keep their identity."""
        return {flag: getattr(getattr(self, known.group) if known.group else self, known.name)
                for flag, known in SETTINGS.items() if flag not in LATER or getattr(self.model, LATER[flag])}

    def to_json(self) -> str:
        return json.dumps(self.flat(), indent=1)


class Setting(NamedTuple):
    """Where a setting lives: its field in a group of Config ("": in Config itself), its default and help text."""

    group: str
    name: str
    default: Any
    help: str


GROUPS: dict[str, type] = {"model": ModelSettings, "teacher": TeacherSettings, "data": DataSettings}
SETTINGS = {flag_of(one): Setting(group, one.name, one.default, one.metadata["help"])         # by flat name
            for group, kind in {"": Config, **GROUPS}.items() for one in fields(kind) if one.metadata}
CHECKPOINT_SETTINGS = tuple(flag for flag, known in SETTINGS.items() if known.group == "model" and flag != "model")


def _grouped(settings: dict) -> dict[str, dict]:
    """{group: {field: value}} of settings by flat name; those that are not settings belong to Config itself, ""."""
    groups: dict[str, dict] = {}
    for flag, value in settings.items():
        group, name, *_ = SETTINGS.get(flag, ("", flag))
        groups.setdefault(group, {})[name] = value
    return groups
