"""The page of the bench that learns at half the side."""

import numpy as np

from tests.bench.half_size import FULL, HALF, page


def test_the_page_compares_both_tables_with_the_same_baseline():
    row = {"model": "m", "calls": 4, "best": "euler, a", "baseline": np.full(4, 0.3), HALF: np.full(4, 0.2),
           FULL: np.full(4, 0.1)}
    assert "| m | 4 | 0.3000 (euler, a) | 0.2000 | 0.1000 | 1.50 [1.50, 1.50], 3.00 [3.00, 3.00] |" in page([row])
