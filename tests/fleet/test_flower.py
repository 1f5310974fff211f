"""Flower itself, in a process of its own, shows the workers and the tasks that a test scripted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from pytest_celery_health import RunningTask
from pytest_celery_health.sandbox.fleet.here import CeleryFleet
from tests.fleet.conftest import StartFleet

pytestmark = [pytest.mark.neighbours, pytest.mark.timeout(120)]

#: Seconds: Flower imports a lot, and says nothing before it has asked all workers once.
START = 40.0
#: Seconds that it gets to show what was published.
SHOWS = 20.0


@pytest.fixture(params=["", "fakeredis", "rabbitmq-server"], ids=lambda name: name or "the best")
def fleet(request: pytest.FixtureRequest, start_fleet: StartFleet) -> CeleryFleet:
    """A fleet on a broker of its own, where Flower's own app finds the usual names."""
    return start_fleet(request.param)


@pytest.fixture
def flower(fleet: CeleryFleet) -> Iterator[httpx.Client]:
    """Its HTTP API. It finds the broker in the environment, as whatever a test starts does."""
    with TemporaryDirectory() as folder:  # a socket's path must be short
        path, log = Path(folder, "http"), Path(folder, "log")
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "flower", f"--unix_socket={path}"],
                env={**os.environ, "FLOWER_UNAUTHENTICATED_API": "true"},
                cwd=folder,
                stdout=file,
                stderr=file,
            )
        try:
            until(lambda: process.poll() is not None or listens(path), log.read_text, START)
            assert process.poll() is None, log.read_text()
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://flower", timeout=SHOWS) as client:
                yield client
        finally:
            process.kill()
            process.wait()


def until(holds: Callable[[], object], evidence: Callable[[], object], within: float) -> None:
    over = time.monotonic() + within
    while not holds():
        assert time.monotonic() < over, evidence()
        time.sleep(0.05)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:  # httpx leaves one open where nobody listens
        return client.connect_ex(str(path)) == 0


def shown(client: httpx.Client, path: str) -> Any:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_flower_shows_what_workers_say_and_what_they_sent(fleet: CeleryFleet, flower: httpx.Client) -> None:
    fleet.worker(
        "w1@sim",
        active=[RunningTask("shop.report", running_for=301)],
        queues=["billing"],
        registered=["shop.report"],
        accepted={"shop.report": 7},
        pool_size=3,
    )
    fleet.worker("w2@sim", queues=[])
    fleet.worker("w3@sim", silent=True)

    def refreshed(query: str = "") -> dict[str, Any]:
        return shown(flower, f"/api/workers?refresh=1{query}")  # type: ignore[no-any-return]

    # The first may be what Flower began at its start, before there was anybody.
    until(
        lambda: {"stats", "active_queues", "registered"} <= refreshed().get("w2@sim", {}).keys(),
        refreshed,
        SHOWS,
    )
    workers = refreshed()
    assert sorted(workers) == ["w1@sim", "w2@sim"]
    assert workers["w2@sim"]["active_queues"] == []
    first = workers["w1@sim"]
    assert [queue["name"] for queue in first["active_queues"]] == ["billing"]
    assert first["registered"] == ["shop.report"]
    assert first["stats"]["total"] == {"shop.report": 7}
    assert first["stats"]["pool"]["max-concurrency"] == 3
    (task,) = refreshed("&workername=w1@sim")["w1@sim"]["active"]  # 2.2 asks one worker only
    assert task["name"] == "shop.report"
    assert task["time_start"] == pytest.approx(time.time() - 301, abs=30)


def test_flower_shows_tasks_and_who_is_there(fleet: CeleryFleet, flower: httpx.Client) -> None:
    fleet.worker("w1@sim")

    def is_online() -> bool:
        fleet.event("worker-online", worker="w1@sim")
        return shown(flower, "/api/workers?status=1").get("w1@sim") is True

    until(is_online, lambda: shown(flower, "/api/workers?status=1"), SHOWS)
    failed = fleet.task_events("shop.pay", ends="failed", exception="Declined('no funds')", worker="w1@sim")
    paid = fleet.task_events("shop.pay", runtime=2.5, worker="w1@sim")
    running = fleet.task_events("shop.report", ends=None, worker="w1@sim")

    until(
        lambda: len(shown(flower, "/api/tasks")) == 3, lambda: json.dumps(shown(flower, "/api/tasks")), SHOWS
    )

    tasks = shown(flower, "/api/tasks")
    assert {task: (tasks[task]["name"], tasks[task]["state"]) for task in tasks} == {
        failed: ("shop.pay", "FAILURE"),
        paid: ("shop.pay", "SUCCESS"),
        running: ("shop.report", "STARTED"),
    }
    assert tasks[failed]["exception"] == "Declined('no funds')"
    assert tasks[paid]["runtime"] == 2.5
    assert tasks[paid]["worker"] == "w1@sim"
    assert [*shown(flower, "/api/tasks?state=FAILURE")] == [failed]
    until(lambda: "enable_events" in fleet.asked, lambda: fleet.asked, SHOWS)  # every five seconds
