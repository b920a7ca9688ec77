"""With ``--durations``: the seconds that each folder of tests took, beside pytest's list of the slowest tests."""

from __future__ import annotations

from collections import Counter

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.getoption("durations") is None:
        return
    seconds: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds["/".join(report.nodeid.split("/")[:2])] += report.duration
    terminalreporter.section("seconds by folder")
    for folder, sum_of in seconds.most_common():
        terminalreporter.write_line(f"{sum_of:8.1f} s  {folder}")
    terminalreporter.write_line(f"{seconds.total():8.1f} s  in all; workers share them")
