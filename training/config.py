"""The settings of a training, grouped by what they are about.

Each setting has a flat name as well, that of its flag: `Config.of(calls=(5,), teacher_calls=50, pairs=64)` fills the
groups, and config.json and the command line use the flat names.
"""

import json
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

from ..s4s_nodes.core import names
from ..s4s_nodes.select.cfg import cfg_nodes
from .checkpoints.settings import ModelSettings
from .settings import Group, check_distinct, flag_of, setting

MOST_CALLS = 50        # a learned table pays off below about 12 calls

BUDGETS = {"quick": 3_000, "normal": 10_000, "thorough": 40_000}        # network calls per table, by name


def calls_of_budget(budget) -> int:
    """Network calls of a budget given by name or number. Raises ValueError for anything else."""
    try:
        return BUDGETS[budget] if budget in BUDGETS else int(budget)
    except (TypeError, ValueError):
        raise ValueError(f"budget {budget!r}: use {', '.join(BUDGETS)}, or a number of network calls") from None


@dataclass(frozen=True)
class TeacherSettings(Group):
    solver: str = setting("auto", "what makes the targets: a classical solver; auto: unipc_bh2_3; or solver and "
                                  "schedule, such as \"euler, sgm_uniform\", for a distilled model", "teacher")
    calls: int = setting(32, "the teacher's calls: at first, doubled, up to 128, while its measured error is above a "
                             "fifth of the student's; with solver and schedule exactly that many", "teacher_calls")

    def __post_init__(self):
        self.check_least(1, "calls")


@dataclass(frozen=True)
class DataSettings(Group):
    pairs: int = setting(256, "cached teacher pairs to learn from")
    validation: int = setting(64, "held-out pairs that choose the best state")
    seed: int = setting(0, "first seed: the seeds of training, validation and test follow from it")

    def __post_init__(self):
        self.check_least(1, "pairs", "validation")


C = TypeVar("C", bound="Config")


@dataclass(frozen=True)
class Config(Group):
    """Every setting of `s4s train`. Raises ValueError for a value that cannot work."""

    name: str = setting("my-preset", "name of the preset")
    calls: tuple = setting((6,), "numbers of network calls to learn a table for, e.g. 4,5,6,8")
    windows: tuple = setting((1.0,), "denoise strengths to learn tables for; below 1 for img2img, e.g. 1,0.75,0.5,0.35")
    cfg: tuple = setting((3.0,), "guidance scale of teacher and student; a range, e.g. 3:7: tables at a few of "
                                 "them, interpolated between; or a list of these, e.g. 3,5,7")
    budget: int = setting(10_000, "most network calls per table, its share of the teacher's included: quick (3,000), "
                                  "normal (10,000), thorough (40,000), or a number; 0: no limit")
    schedule: str = setting("auto", "start on this schedule of the race; auto: on the best of all")
    iterations: int = setting(0, "optimizer steps per table; 0: as many as the budget allows")
    device: str = setting("auto", "cpu, cuda, mps, or auto")
    model: ModelSettings = field(default_factory=ModelSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    data: DataSettings = field(default_factory=DataSettings)

    def __post_init__(self):
        for name, value in (("budget", calls_of_budget(self.budget)), ("calls", tuple(int(c) for c in self.calls)),
                            ("windows", tuple(float(w) for w in self.windows)), ("cfg", cfg_nodes(self.cfg))):
            object.__setattr__(self, name, value)
        names.preset_name(self.name)                    # the name of a file, too: before anything is learned
        self.check_least(0, "budget", "iterations")
        self._check_tables()

    def _check_tables(self) -> None:
        if not self.calls:
            raise ValueError("calls is empty: name at least one number of network calls, e.g. --calls 6")
        for calls in self.calls:
            if not 1 <= calls <= MOST_CALLS:
                raise ValueError(f"{calls} calls asked for: a learned table has 1 to {MOST_CALLS} (they pay off "
                                 "below about 12; above that use a classical solver)")
        for several in (self.calls, self.windows):
            check_distinct(several)
        if 1.0 not in self.windows or not all(0 < window <= 1 for window in self.windows):
            raise ValueError(f"windows {self.windows}: use denoise strengths above 0 and up to 1, including 1 "
                             "(the others start on the levels it learns)")

    @classmethod
    def of(cls, **settings) -> "Config":
        """A configuration from the flat names of settings. Raises ValueError for an unknown name or a bad value."""
        if unknown := sorted(set(settings) - set(SETTINGS)):
            raise ValueError(f"unknown settings {', '.join(unknown)}: check the spelling, or use the version that "
                             "wrote them")
        groups = _grouped(settings)
        return cls(**groups.pop("", {}), **{group: GROUPS[group](**values) for group, values in groups.items()})

    def replace(self: C, **settings) -> C:
        """A copy with these settings, by their flat names (or fields of this class)."""
        groups = _grouped(settings)
        return replace(self, **groups.pop("", {}), **{group: replace(getattr(self, group), **values)
                                                      for group, values in groups.items()})

    def flat(self) -> dict[str, Any]:
        """Every setting by its flat name; more_sizes only where there are some: older runs keep their identity."""
        return {flag: getattr(getattr(self, known.group) if known.group else self, known.name)
                for flag, known in SETTINGS.items() if flag != "more_sizes" or self.model.more_sizes}

    def to_json(self) -> str:
        return json.dumps(self.flat(), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """Raises ValueError for unknown settings."""
        return cls.of(**json.loads(text))


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
