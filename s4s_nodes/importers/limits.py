"""What reading a stranger's file may cost: its limits, and the budget that keeps count.

The numbers are far above real files (the largest published one has 0.4 MB and some 5,000 opcodes), and small enough
that no file costs a second or 100 MB: `python tests/library/read_under_limits.py` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

MAX_BYTES = 16 * 2 ** 20        # of a file
MAX_OPCODES = 100_000           # a tensor, a storage and a nested file count as several
MAX_SPENT = 32 * 2 ** 20        # bytes of text, of numbers, and of every copy of them
MAX_NUMBERS = 2 ** 20           # elements of one tensor
MAX_TEXT = 8 * 2 ** 20          # bytes of one opcode's argument
MAX_DIGITS = 100                # of a number written as text
MAX_BITS = 256                  # of an integer; torch's own magic number has 80
MAX_NESTED = 3                  # torch keeps a file within a file for each storage
MAX_ENTRIES = 4096              # of an archive
MAX_CALLS = 200                 # of an imported table


class UnreadableFile(ValueError):
    """A file that is not what it should be, or asks for more than tensors and numbers."""


@dataclass(eq=False)
class Stub:
    """A call or object the file asks for: what was to be called, with what, and the state it was to get."""

    what: str
    args: tuple
    state: Any = None


class Budget:
    """What is left to spend on one file, nested files included."""

    def __init__(self):
        self.opcodes, self.bytes, self.numbers, self.nested = MAX_OPCODES, MAX_SPENT, 4 * MAX_NUMBERS, 0

    def spend(self, **amounts: int) -> None:
        """Pay before the value is made. Raises UnreadableFile where too little is left."""
        for name, amount in amounts.items():
            left = getattr(self, name) - amount
            setattr(self, name, left)
            if left < 0:
                raise UnreadableFile(f"holds too many {name} for a table of coefficients")


class Paid:
    """A file whose bytes are paid for before they are read. longest: what a line may have."""

    def __init__(self, file, budget: Budget):
        self.file, self.budget, self.longest = file, budget, MAX_TEXT

    def read(self, count: int) -> bytes:
        if count > MAX_TEXT:
            raise UnreadableFile(f"holds one value of {count} bytes: {MAX_TEXT} are allowed")
        self.budget.bytes -= count
        if self.budget.bytes < 0:
            self.budget.spend(bytes=0)
        return self.file.read(count)

    def readline(self) -> bytes:
        line = self.file.readline(self.longest + 1)
        self.budget.spend(bytes=len(line))
        if len(line) > self.longest:
            raise UnreadableFile(f"holds one value of more than {self.longest} letters")
        return line


def shown(value, limit: int = 40) -> str:
    """A value of the file in a message: short, and cheap whatever it is; text and numbers as they are."""
    if isinstance(value, str):
        return value[:limit]
    return str(value)[:limit] if value is None or isinstance(value, (int, float)) else f"a {type(value).__name__}"
