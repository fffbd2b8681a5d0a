"""What every part of the proof is made of: seeded attacks, repeated while their time lasts."""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Attack:
    """tries(chance) yields after each try: None where the program survived, else what went wrong in words.

    promise: what surviving means. share: of its part's time; 0: its tries end by themselves.
    figures(): what it measured, in words, after the tries.
    """

    part: str
    name: str
    promise: str
    tries: Callable[[random.Random], Iterator[str | None]]
    share: float = 1.0
    figures: Callable[[], str] | None = None


@dataclass
class Result:
    """How often an attack was tried, and what went wrong. figures: what the attack measured beside it, in words."""

    attack: Attack
    tries: int = 0
    failures: list = field(default_factory=list)
    seconds: float = 0.0
    figures: str = ""

    @property
    def survived(self) -> int:
        return self.tries - len(self.failures)


def carry_out(attack: Attack, seed: int, seconds: float = float("inf"), most: int | None = None) -> Result:
    """Try it until its time or its tries are over, at least once; the same seed gives the same tries."""
    result, began = Result(attack), time.monotonic()
    for failure in attack.tries(random.Random(f"{seed} {attack.part} {attack.name}")):
        result.tries += 1
        if failure is not None:
            result.failures.append(failure)
        result.seconds = time.monotonic() - began
        if attack.share and result.seconds >= seconds or result.tries == most:
            break
    result.figures = attack.figures() if attack.figures else ""
    return result
