"""Events that a fleet publishes are those of real workers to whoever receives them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from celery import Celery
from celery.events.state import State

from pytest_celery_health.sandbox.fleet.here import CeleryFleet


class Monitor:
    """What Flower and its like do: a receiver, and Celery's own state of it all."""

    def __init__(self, app: Celery, fleet: CeleryFleet) -> None:
        self.state: State = app.events.State()
        self.seen: list[dict[str, Any]] = []
        self._fleet = fleet
        self._connection = app.connection_for_read()
        self._receiver = app.events.Receiver(self._connection, handlers={"*": self._note})

    def __enter__(self) -> Monitor:
        self._consuming = self._receiver.consumer_context(wakeup=False)
        self._draining, _, _ = self._consuming.__enter__()
        # On Redis it listens when it first waits for something.
        self.until(lambda: self.seen, lambda: self._fleet.event("monitor-listens"))
        self.seen.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._consuming.__exit__(None, None, None)
        self._connection.release()

    def _note(self, event: dict[str, Any]) -> None:
        self.seen.append(event)
        self.state.event(event)

    def until(self, holds: Callable[[], object], do: Callable[[], object] = bool) -> None:
        over = time.monotonic() + 15
        while not holds():
            assert time.monotonic() < over, self.seen
            do()
            with suppress(TimeoutError):
                self._draining.drain_events(timeout=0.1)


def test_a_tasks_life(app: Celery, fleet: CeleryFleet) -> None:
    fleet.worker("w1@sim")
    with Monitor(app, fleet) as monitor:
        uuid = fleet.task_events("shop.pay", runtime=2.5, waited=10)
        monitor.until(lambda: len(monitor.seen) == 3)
        task = monitor.state.tasks[uuid]
    assert (task.name, task.state, task.runtime, task.worker.hostname) == (
        "shop.pay",
        "SUCCESS",
        2.5,
        "w1@sim",
    )
    assert task.started - task.received == pytest.approx(10, abs=0.5)
    assert task.succeeded - task.started == pytest.approx(2.5, abs=0.5)


def test_each_end_and_none(app: Celery, best: CeleryFleet) -> None:
    with Monitor(app, best) as monitor:
        ends = {
            best.task_events("shop.pay", ends=end): state
            for end, state in {
                "succeeded": "SUCCESS",
                "failed": "FAILURE",
                "retried": "RETRY",
                "revoked": "REVOKED",
                None: "STARTED",
            }.items()
        }
        failed = best.task_events(ends="failed", exception="CardDeclined('no')")
        monitor.until(lambda: len(monitor.seen) == 4 * 3 + 2 + 3)
    assert {uuid: monitor.state.tasks[uuid].state for uuid in ends} == ends
    assert monitor.state.tasks[failed].exception == "CardDeclined('no')"


def test_workers_are_alive_by_their_heartbeats(app: Celery, best: CeleryFleet) -> None:
    best.workers(2)
    with Monitor(app, best) as monitor:
        best.event("worker-online")
        best.event("worker-heartbeat", active=3, processed=40)
        best.event("worker-heartbeat", worker="w2@sim", ago=3600)
        monitor.until(lambda: len(monitor.seen) == 3)
    first, second = monitor.state.workers["w1@sim"], monitor.state.workers["w2@sim"]
    assert (first.active, first.processed, first.sw_ident, first.alive) == (3, 40, "py-celery", True)
    assert second.timestamp == pytest.approx(time.time() - 3600, abs=10)


def test_an_event_tells_the_workers_own_time(app: Celery, best: CeleryFleet) -> None:
    best.worker("ahead@sim", clock_offset=600)
    with Monitor(app, best) as monitor:
        best.event("worker-heartbeat")
        monitor.until(lambda: monitor.seen)
    assert monitor.seen[0]["timestamp"] == pytest.approx(time.time() + 600, abs=10)


def test_an_event_of_the_projects_own(app: Celery, best: CeleryFleet) -> None:
    with Monitor(app, best) as monitor:
        best.event("shop-sold-out", item=7)
        monitor.until(lambda: monitor.seen)
    assert (monitor.seen[0]["type"], monitor.seen[0]["item"]) == ("shop-sold-out", 7)
    assert "uuid" not in monitor.seen[0]
