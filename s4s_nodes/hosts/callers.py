"""Who asks for a schedule, where the host shows a scheduler too little: the functions that call it know more."""

import sys
from collections.abc import Iterator


def callers(most: int) -> Iterator[dict]:
    """The local names of the functions that called the one which asks, nearest first, of `most` at most."""
    frame = sys._getframe(2)
    for _ in range(most):
        if frame is None:
            return
        yield frame.f_locals
        frame = frame.f_back
