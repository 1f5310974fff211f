"""The health functions of a well-known guide cannot tell a fleet from real workers and queues."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeVar

import pytest
from celery import Celery, current_app
from prometheus_client import REGISTRY

from pytest_celery_health import RunningTask
from pytest_celery_health.sandbox.fleet.here import CeleryFleet
from tests.fleet.conftest import StartFleet

T = TypeVar("T")
#: Each asks for whole seconds, however fast workers answer.
slow = pytest.mark.slow


def stuck(guide: ModuleType) -> list[str]:
    return [task["task_name"] for task in guide.find_long_running_tasks(300)]


def answered(ask: Callable[[], T], wanted: T) -> T:
    """What the guide finds, who waits for a second only: on a busy machine that may be too short."""
    for _ in range(10):
        found = ask()
        if found == wanted:
            break
    return found


def test_finds_stuck_tasks(guide: ModuleType, best: CeleryFleet) -> None:
    best.worker(
        "w1@sim",
        active=[RunningTask("shop.report", running_for=301), RunningTask("shop.pay", running_for=200)],
    )
    assert answered(lambda: stuck(guide), ["shop.report"]) == ["shop.report"]


@slow
def test_finds_stuck_tasks_on_every_broker(guide: ModuleType, fleet: CeleryFleet) -> None:
    fleet.worker("w1@sim", active=[RunningTask("shop.report", running_for=400)])
    assert answered(lambda: stuck(guide), ["shop.report"]) == ["shop.report"]


@slow
@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({}, ["shop.report"]),
        ({"clock_offset": 600.0}, []),  # the guide's mistake: it takes its own clock for the worker's
        ({"clock_offset": -600.0}, ["shop.report"]),
        ({"silent": True}, []),
        ({"delay": 30.0}, []),  # answers, when nobody waits any more
        ({"active": [{"name": "shop.report", "time_start": None}]}, []),
    ],
    ids=str,
)
def test_each_state_of_a_worker(
    guide: ModuleType, best: CeleryFleet, state: dict[str, Any], found: list[str]
) -> None:
    best.worker("w1@sim", **{"active": [RunningTask("shop.report", running_for=301)], **state})
    assert answered(lambda: stuck(guide), found) == found


@slow
def test_garbage_breaks_who_trusts_it(guide: ModuleType, best: CeleryFleet) -> None:
    best.worker("w1@sim", garbage=True)
    with pytest.raises(AttributeError, match="'str' object has no attribute 'get'"):
        answered(lambda: stuck(guide), ["no such"])


@slow
@pytest.mark.filterwarnings("ignore:Received multiple replies")
def test_two_workers_of_one_name_are_seen_as_one(guide: ModuleType, best: CeleryFleet) -> None:
    for task in ("shop.report", "shop.export"):
        best.worker("twin@sim", active=[RunningTask(task, running_for=400)])
    # Celery's `inspect` keeps the last answer of a name.
    assert answered(lambda: len(stuck(guide)), 1) == 1


@slow
def test_a_thousand_workers(guide: ModuleType, best: CeleryFleet) -> None:
    best.workers(1000, active=[RunningTask("shop.report", running_for=400)])
    assert answered(lambda: len(stuck(guide)), 1000) == 1000


def get_active_tasks() -> list[dict[str, Any]]:
    tasks = []
    for worker, task_list in (current_app.control.inspect().active() or {}).items():
        for task in task_list:
            tasks.append(
                {
                    "worker": worker,
                    "task_id": task["id"],
                    "task_name": task["name"],
                    "args": task["args"],
                    "started": task.get("time_start"),
                }
            )
    return tasks


@slow
def test_lists_active_tasks(best: CeleryFleet) -> None:
    begun = time.time()
    best.worker("w1@sim", active=[{"name": "shop.pay", "args": [7], "id": "t1", "running_for": 60}])
    (task,) = next(filter(None, (get_active_tasks() for _ in range(10))))
    assert begun - 61 < task.pop("started") < time.time() - 59
    assert task == {"worker": "w1@sim", "task_id": "t1", "task_name": "shop.pay", "args": [7]}


@slow
def test_workers_are_healthy_until_they_are_gone(guide: ModuleType, best: CeleryFleet) -> None:
    workers = best.workers(2, active=[RunningTask("shop.pay")])
    assert answered(lambda: guide.check_celery_health().get("workers"), 2) == 2
    for worker in workers:
        worker.stop()
    beat = best.beat()
    nobody = {"healthy": False, "error": "nobody is active"}
    assert answered(guide.check_celery_health, nobody) == nobody
    beat.stop()
    assert guide.check_celery_health() == {"healthy": False, "error": "nobody answered ping"}


@slow
def test_a_worker_that_consumes_nothing_is_healthy_to_the_guide(guide: ModuleType, best: CeleryFleet) -> None:
    """Its mistake: it never asks what the worker consumes."""
    best.worker("w1@sim", queues=[])
    best.queue("default", ready=5000)
    assert answered(lambda: guide.check_celery_health()["healthy"], True)


DEPTHS = {"default": 12, "high-priority": 0, "low-priority": 3}


def fill(fleet: CeleryFleet) -> None:
    fleet.queue("default", ready=10, unacked=4)
    fleet.queue("default", ready=2)
    fleet.queue("low-priority", ready=3)


@pytest.mark.parametrize("broker", ["", "memory", pytest.param("fakeredis", marks=slow)])
def test_counts_queues(guide: ModuleType, start_fleet: StartFleet, broker: str) -> None:
    fill(start_fleet(broker))
    seen = guide.inspect_queues()
    if broker != "memory":  # the guide's mistake: on Redis an empty queue has no key
        assert "404" in seen.pop("high-priority")["error"]
    assert seen == {name: {"length": depth} for name, depth in DEPTHS.items() if name in seen}
    assert len(seen) >= 2


@pytest.mark.parametrize("broker", ["", "memory", pytest.param("fakeredis", marks=slow)])
def test_gauges_show_queues(guide: ModuleType, start_fleet: StartFleet, broker: str) -> None:
    fill(start_fleet(broker))
    guide.QUEUE_LENGTH.labels(queue="high-priority").set(77)  # of before
    guide.update_queue_metrics()
    seen = {name: REGISTRY.get_sample_value("celery_queue_length", {"queue": name}) for name in DEPTHS}
    assert seen == {**DEPTHS, "high-priority": 77}  # its mistake: what is not there keeps the last depth


@pytest.mark.parametrize(
    ("ago", "healthy"),
    [(0, True), (119, True), (150, False), (86400 + 150, False), (86400 + 10, True)],  # the last is wrong
)
def test_a_heartbeat_of_any_age(guide: ModuleType, best: CeleryFleet, ago: float, healthy: bool) -> None:
    best.heartbeat("celery_beat_heartbeat", ago=ago)
    assert guide.check_beat_health()["healthy"] is healthy


def test_only_redis_has_a_key_for_a_heartbeat(start_fleet: StartFleet) -> None:
    with pytest.raises(TypeError, match="memory has no keys: a heartbeat is written to Redis"):
        start_fleet("memory").heartbeat("celery_beat_heartbeat", ago=1)


@slow
def test_a_guide_on_a_private_rabbitmq(guide: ModuleType, app: Celery, start_fleet: StartFleet) -> None:
    fleet = start_fleet("rabbitmq-server")
    fill(fleet)
    fleet.queue("high-priority")
    fleet.worker("w1@sim", active=[RunningTask("shop.report", running_for=400)])
    assert guide.inspect_queues() == {name: {"length": depth} for name, depth in DEPTHS.items()}
    guide.update_queue_metrics()
    assert REGISTRY.get_sample_value("celery_queue_length", {"queue": "default"}) == DEPTHS["default"]
    assert answered(lambda: stuck(guide), ["shop.report"]) == ["shop.report"]
    assert answered(lambda: guide.check_celery_health().get("worker_names"), ["w1@sim"]) == ["w1@sim"]
