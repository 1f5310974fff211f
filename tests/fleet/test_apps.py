"""Apps that are not like others."""

from __future__ import annotations

from uuid import uuid4

import pytest
from celery import Celery

from pytest_celery_health import RunningTask
from tests.fleet.conftest import StartFleet


@pytest.mark.parametrize("broker", ["", "memory", "rabbitmq"])
def test_an_app_that_speaks_no_json(app: Celery, start_fleet: StartFleet, broker: str) -> None:
    app.conf.task_serializer = "pickle"
    app.conf.accept_content = ["pickle"]
    fleet = start_fleet(broker)
    fleet.worker("w1@sim", active=[RunningTask("shop.pay")])
    seen = app.control.inspect(destination=["w1@sim"], timeout=10).active()
    assert [task["name"] for task in seen["w1@sim"]] == ["shop.pay"]
    name = f"pickled-{uuid4().hex[:8]}"
    fleet.queue(name, ready=1, args=(1, (2, 3)))
    with app.connection() as connection:
        queue = connection.SimpleQueue(name, accept=["pickle"])
        message = queue.get(timeout=10)
        message.ack()
    assert message.content_type == "application/x-python-serialize"
    assert message.payload[0] == (1, (2, 3))


def test_control_by_another_exchange(app: Celery, start_fleet: StartFleet) -> None:
    app.conf.control_exchange = "shopctl"
    start_fleet().worker("w1@sim")
    assert app.control.ping(limit=1, timeout=10) == [{"w1@sim": {"ok": "pong"}}]


def test_an_app_that_is_always_eager_is_asked_as_others(app: Celery, start_fleet: StartFleet) -> None:
    app.conf.task_always_eager = True
    fleet = start_fleet()
    fleet.worker("w1@sim")
    fleet.queue("billing", ready=3)
    assert app.control.ping(limit=1, timeout=10)
    with app.connection() as connection:
        assert connection.default_channel.queue_declare("billing", passive=True).message_count == 3
