"""A setting of a training: its default, its help text, its checks."""

from dataclasses import Field, field


def setting(default, help_text: str, flag: str = ""):
    """A setting with its help text and the name of its flag, where that is not the field's."""
    return field(default=default, metadata={"help": help_text, "flag": flag})


def flag_of(one: Field) -> str:
    return one.metadata["flag"] or one.name


def check_distinct(several: tuple) -> None:
    if len(set(several)) < len(several):
        raise ValueError(f"{', '.join(map(str, several))}: give each value once, not twice")


class Group:
    """Settings that belong together: what their checks share."""

    __dataclass_fields__: dict[str, Field]

    def check_choices(self, **words) -> None:
        """Raises ValueError for a setting that is none of its words."""
        for name, allowed in words.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} {getattr(self, name)!r}: use one of {', '.join(allowed)}")

    def check_least(self, least: int, *names: str) -> None:
        """Raises ValueError for a setting below the least."""
        for name in names:
            if (value := getattr(self, name)) < least:
                flag = flag_of(self.__dataclass_fields__[name])
                raise ValueError(f"{flag} is {value}: use {least} or more")
