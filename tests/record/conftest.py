from __future__ import annotations

import functools
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery, signals

from pytest_celery_health.record.in_process import CelerySignals

REPO = Path(__file__).parents[2]
GUIDE = REPO / "tests" / "projects" / "guide"
SHOP = REPO / "examples" / "shop"


class Project:
    """A project's copy, whose ordinary tests are run in a process of their own."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester

    def copy(self, root: Path) -> None:
        """Without its own tests."""
        shutil.copytree(root / "shop", self.pytester.path / "shop")
        shutil.copy(root / "pyproject.toml", self.pytester.path)

    def run(self, test: str, *args: str) -> pytest.RunResult:
        self.pytester.makepyfile(test_it=test)
        return self.pytester.runpytest_subprocess(
            *("-p", "celery_health", "-p", "requests_mock"),
            *("-o", "testpaths=.", "--tb=short", "-W", "error", *args),
            timeout=60,
        )


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("COLUMNS", "250")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    for name in ("CI", "PYTEST_ADDOPTS", "REDIS_URL", "SLACK_WEBHOOK_URL", "PAGERDUTY_ROUTING_KEY"):
        monkeypatch.delenv(name, raising=False)
    return Project(pytester)


@pytest.fixture
def app() -> Iterator[Celery]:
    """An app whose broker does not exist; handlers that a test connects are forgotten at its end.

    It begins with none: what another test imported, such as redbeat, has connected its own.
    """
    every = [signal for signal in vars(signals).values() if isinstance(signal, signals.Signal)]
    before = {signal: list(signal.receivers) for signal in every}
    for signal in every:
        signal.receivers.clear()
    app = Celery("shop", broker="redis://broker.invalid/0", backend="redis://broker.invalid/1")
    # Else each task would be one of every app that is finalized later.
    app.task = functools.partial(app.task, shared=False)
    yield app
    app.close()
    for signal, receivers in before.items():
        signal.receivers[:] = receivers


@pytest.fixture
def celery_signals() -> Iterator[CelerySignals]:
    with CelerySignals() as fixture:
        yield fixture


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """As Python starts: a worker that another test ran in this process has set its level."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.WARNING)
    yield
    root.setLevel(before)
