"""``--no-skips``: a test run fails if it skips a test, and lists the skipped suites with the reasons.

``--may-skip`` names a suite (by a part of its name) that may be skipped; the list contains the suite all the same.
"""

from __future__ import annotations

from collections import Counter

import pytest


class NoSkips:
    """Collects the skipped tests, and fails the test run if one of them must not be skipped."""

    def __init__(self, allowed: list[str]) -> None:
        self._allowed = allowed
        self._skipped: Counter[tuple[str, str]] = Counter()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Fail before any test runs if the condition of a skipif mark would skip a test."""
        for item in session.items:
            for reason in _unmet(item):
                self._note(item.nodeid, reason)
        if self._missing():
            msg = "--no-skips: nothing was run, since some of it would be skipped; what is missing stands above"
            raise pytest.UsageError(msg)
        self._skipped.clear()

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._note(report.nodeid, _reason(report))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped:
            self._note(report.nodeid, _reason(report))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._missing() and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._skipped:
            terminalreporter.section("skipped with --no-skips", red=bool(self._missing()))
            terminalreporter.write_line("\n".join(self._told()))

    def _note(self, nodeid: str, reason: str) -> None:
        suite = nodeid.rpartition("::")[0] or nodeid
        self._skipped[suite, reason] += 1

    def _missing(self) -> list[tuple[str, str]]:
        return [each for each in self._skipped if not self._may_skip(each[0])]

    def _may_skip(self, suite: str) -> bool:
        return any(part in suite for part in self._allowed)

    def _told(self) -> list[str]:
        return [
            f"{'LEFT OUT, as allowed' if self._may_skip(suite) else 'MISSING'}: {suite} ({count} tests): {reason}"
            for (suite, reason), count in sorted(self._skipped.items())
        ]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("flts")
    group.addoption("--no-skips", action="store_true", help="fail if anything is skipped, naming what is missing")
    group.addoption(
        "--may-skip",
        action="append",
        default=[],
        metavar="SUITE",
        help="part of the name of a suite that --no-skips lets be left out; may be given several times",
    )


def pytest_configure(config: pytest.Config) -> None:
    # With pytest-xdist only the main process has the reports of all tests, so the worker processes do not count skips.
    if config.getoption("--no-skips") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(NoSkips(config.getoption("--may-skip")), "flts-no-skips")


def _unmet(item: pytest.Item) -> list[str]:
    marks = [mark for mark in item.iter_markers("skipif") if mark.args and mark.args[0] is True]
    return [str(mark.kwargs.get("reason", "skipif")) for mark in marks]


def _reason(report: pytest.CollectReport | pytest.TestReport) -> str:
    told = report.longrepr
    return str(told[2]).removeprefix("Skipped: ") if isinstance(told, tuple) else str(told)
