"""The drawing of the packages in the docs is that of today's imports."""

from tests.bench.packages import FILE, drawing


def test_the_drawing_is_current_and_no_arrow_points_up():
    assert drawing() == FILE.read_text(encoding="utf-8"), "run: python -m tests.bench.packages"
