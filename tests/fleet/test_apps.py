"""Apps that are not like others."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.worker.control import registered

from pytest_celery_health import RunningTask
from tests.fleet.conftest import StartFleet


@pytest.mark.parametrize("broker", ["", "memory", "rabbitmq"])
def test_an_app_that_speaks_no_json(app: Celery, start_fleet: StartFleet, broker: str, name: str) -> None:
    app.conf.task_serializer = "pickle"
    app.conf.accept_content = ["pickle"]
    fleet = start_fleet(broker)
    fleet.worker("w1@sim", active=[RunningTask("shop.pay")])
    seen = app.control.inspect(destination=["w1@sim"], timeout=10).active()
    assert [task["name"] for task in seen["w1@sim"]] == ["shop.pay"]
    fleet.queue(name, ready=1, args=(1, (2, 3)))
    with app.connection() as connection:
        queue = connection.SimpleQueue(name, accept=["pickle"])
        message = queue.get(timeout=10)
        message.ack()
    assert message.content_type == "application/x-python-serialize"
    assert message.payload[0] == (1, (2, 3))


def test_a_worker_has_the_apps_tasks_registered_as_a_real_one_has(
    app: Celery, start_fleet: StartFleet
) -> None:
    @app.task(name="shop.report", rate_limit="10/m", shared=False)
    def report() -> None: ...

    fleet = start_fleet()
    fleet.workers(2)
    fleet.worker("busy@sim", active=[RunningTask("shop.report"), RunningTask("shop.late")])
    fleet.worker("new@sim", registered=["shop.new"])
    told = app.control.inspect(limit=4, timeout=10).registered()
    # Tasks of other tests' apps are shared with this one.
    assert {"shop.pay", "shop.report [rate_limit=10/m]"} <= {*told["w1@sim"]}
    assert told["w1@sim"] == told["w2@sim"] == registered(SimpleNamespace(app=app))
    assert told["busy@sim"] == sorted(["shop.late", *told["w1@sim"]])
    assert told["new@sim"] == ["shop.new"]
    app.control.rate_limit("shop.report", "5/m", destination=["w1@sim"], reply=True, timeout=10, limit=1)
    [now] = app.control.inspect(["w1@sim"], limit=1, timeout=10).registered().values()
    assert {"shop.pay", "shop.report [rate_limit=5/m]"} <= {*now}


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
