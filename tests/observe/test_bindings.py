"""Entries that go to an exchange, held against what the broker does with a real message to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from kombu import Exchange, Queue

from pytest_celery_health import Entry, ScheduleRuns, judge
from pytest_celery_health.observe.look import look
from tests.observe.scene import INFO, Scene
from tests.support.timing import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture(params=["redis_url", "vhost_url"], ids=["redis", "rabbitmq"])
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    scene = Scene(request.getfixturevalue(request.param))
    yield scene
    scene.close()


def _says(scene: Scene, exchange: str, key: str = "k") -> str:
    info = replace(INFO, schedule=(Entry("e", "t", exchange=exchange, routing_key=key),))
    check = ScheduleRuns()
    return judge(check, look(scene.target(app=info), check.asks(), deadline=5).snapshot).message()


def _bind(scene: Scene, name: str, kind: str, key: str) -> Callable[[], int]:
    queue = Queue(f"{name}.q", Exchange(name, kind), routing_key=key)
    with scene.app.connection_for_write() as connection:
        queue(connection.default_channel).declare()

    def depth() -> int:
        with scene.app.connection_for_write() as connection:
            message = queue(connection.default_channel).get(no_ack=True)
            return int(message is not None)

    return depth


def test_an_exchange_that_nobody_bound(scene: Scene) -> None:
    """A message to it is dropped by Redis, and refused by RabbitMQ."""
    assert _says(scene, "nowhere", "orphan").startswith(
        "exchange nowhere has no queue for orphan, and entry e sends t to it; wanted a queue bound to it"
    )


def test_a_binding_of_somebody_else(scene: Scene) -> None:
    """Redis lists it; AMQP does not, so nothing is said."""
    took = _bind(scene, "ex", "direct", "k")
    scene.app.send_task("t", exchange="ex", routing_key="k")
    wait_until(took)
    scene.app.send_task("t", exchange="ex", routing_key="other")
    assert took() == 0
    if scene.url.startswith("redis"):
        assert (
            _says(scene, "ex")
            == "ex.q is consumed by no worker, and entry e sends t to it; wanted a consumer"
        )
        assert _says(scene, "ex", "other").startswith(
            "exchange ex has no queue for other, and entry e sends t"
        )
    else:
        why = "to which the app binds no queue: AMQP does not list the bindings of an exchange"
        assert _says(scene, "ex") == f"cannot tell: entry e: sends t to exchange ex with k, {why}"


def test_a_topic_exchange_is_not_told(scene: Scene) -> None:
    _bind(scene, "tx", "topic", "a.#")
    assert _says(scene, "tx", "a.b").startswith(
        "cannot tell: entry e: sends t to exchange tx with a.b, to which the app binds no queue: "
    )
