"""figure(what, value): a measured number of a test, listed at the end of a run that passed.

A plugin of pytest, for the tests in this Python and for those in a host's own.
"""

import pytest


@pytest.fixture
def figure(record_property):
    """figure(what, value) notes the value and returns it."""
    def note(what: str, value):
        record_property(what, value)
        return value
    return note


def pytest_terminal_summary(terminalreporter, exitstatus):
    measured = [report for report in terminalreporter.getreports("passed") if report.user_properties]
    if measured and exitstatus == 0:                # they would push a failure out of sight
        terminalreporter.section("measured")
        for report in measured:
            told = ", ".join(f"{what} {f'{value:.3g}' if isinstance(value, float) else value}"
                             for what, value in report.user_properties)
            terminalreporter.write_line(f"{report.nodeid.partition('::')[2]}: {told}")
