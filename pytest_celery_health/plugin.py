"""The plugin that every pytest run with this package installed pays for: options, the marker, the fixtures.

It imports neither celery nor a broker's client, nor the rest of this package, until `--celery-health` or
a fixture asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_celery_health.clock import CeleryClock
    from pytest_celery_health.fixtures import CeleryHealth
    from pytest_celery_health.record.in_process import CelerySignals
    from pytest_celery_health.sandbox.drills.crew import Drills
    from pytest_celery_health.sandbox.faults.here import CeleryFaults
    from pytest_celery_health.sandbox.fleet.here import CeleryFleet

MARKER = "celery_health"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("celery-health", "health of Celery systems")
    group.addoption(
        "--celery-health",
        action="store_true",
        dest="celery_health",
        help="Judge the contract in [tool.celery-health] and the tests marked celery_health, and only these.",
    )
    group.addoption(
        "--celery-health-target",
        metavar="NAME",
        dest="celery_health_target",
        help="Look at this declared target instead of the sandbox. It is looked at, never changed.",
    )
    group.addoption(
        "--celery-health-contract",
        metavar="PATH",
        dest="celery_health_contract",
        help="TOML file with [tool.celery-health], instead of the nearest pyproject.toml that has it.",
    )
    group.addoption(
        "--celery-health-wait",
        metavar="SECONDS",
        dest="celery_health_wait",
        help="Look again until everything holds, for at most this long: seconds, or '2min'.",
    )
    group.addoption(
        "--celery-health-interval",
        metavar="SECONDS",
        dest="celery_health_interval",
        help="Time between two looks of --celery-health-wait (default: 5).",
    )


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from pytest_celery_health import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        f"{MARKER}(*checks): runs with --celery-health only; the checks hold before the body runs.",
    )
    if config.getoption("celery_health"):
        from pytest_celery_health.session import start

        start(config)
        return
    for option in ("target", "contract", "wait", "interval"):
        if config.getoption(f"celery_health_{option}") is not None:
            raise pytest.UsageError(f"--celery-health-{option} needs --celery-health")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("celery_health"):
        return
    skip = pytest.mark.skip(reason="a health test: run pytest --celery-health")
    for item in items:
        if item.get_closest_marker(MARKER) is not None:
            item.add_marker(skip)


@pytest.fixture
def celery_health(request: pytest.FixtureRequest) -> Iterator[CeleryHealth]:
    """The target of this run: `expect(*checks)` judges, `look(*checks)` returns what was seen."""
    from pytest_celery_health.fixtures import celery_health_for

    yield from celery_health_for(request)


@pytest.fixture
def celery_signals(request: pytest.FixtureRequest) -> Iterator[CelerySignals]:
    """Runs a task or fires a signal in this process, and records what the app's handlers do.

    `run(task.s(...), raises=...)` and `fire(signal, ...)` return the recording.
    """
    from pytest_celery_health.record.in_process import CelerySignals

    def app() -> str:
        from pytest_celery_health.session import run_of

        return run_of(request.config).contract.app

    with CelerySignals(app) as signals:
        yield signals


@pytest.fixture
def celery_drill(request: pytest.FixtureRequest) -> Drills:
    """Takes a task to an end in a real worker and records what handlers do: `celery_drill("raises")`."""
    from pytest_celery_health.fixtures import celery_drill_for

    return celery_drill_for(request)


@pytest.fixture
def celery_fleet(request: pytest.FixtureRequest) -> Iterator[CeleryFleet]:
    """Simulated workers, filled queues and events on a broker of the test's own, to which the app points.

    `worker("w1@sim", active=[RunningTask("shop.report", running_for=301)])`, `queue("billing", ready=1204)`.
    """
    from pytest_celery_health.fixtures import celery_fleet_for

    yield from celery_fleet_for(request)


@pytest.fixture
def celery_clock() -> Iterator[CeleryClock]:
    """Freezes the time that the code under test sees; transports, deadlines and other threads go on.

    `freeze(moment)`, also as a context manager, `move_to(moment)`, `shift("121s")`, `now`.
    """
    try:
        from pytest_celery_health.clock import CeleryClock
    except ModuleNotFoundError as error:
        if error.name != "freezegun":
            raise
        pytest.fail(str(error), pytrace=False)
    with CeleryClock() as clock:
        yield clock


@pytest.fixture
def celery_faults(request: pytest.FixtureRequest) -> Iterator[CeleryFaults]:
    """Holds faults of broker, result backend, HTTP hosts, workers and beat: `celery_faults.broker_hangs()`.

    The app points at a broker of the test's own, through a proxy that breaks on demand.
    """
    from pytest_celery_health.fixtures import celery_faults_for

    yield from celery_faults_for(request)
