"""The depths of many queues, against a passive declare each."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from celery import Celery
from kombu import Connection, Queue

from benchmarks import scene
from benchmarks.measure import Row, Side, compare
from pytest_celery_health import AskQueues
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target

GOALS = {"Redis": 20.0, "RabbitMQ": None}


def rows(kind: str, broker: str, rounds: int, count: int) -> Iterator[Row]:
    """Every queue holds one message, for a passive declare of an empty one fails on Redis."""
    with scene.app(broker) as app:
        names = [f"{app.conf.control_exchange}-{number}" for number in range(count)]
        with Connection(broker) as connection:
            channel = connection.channel()
            producer = connection.Producer(channel)
            for name in names:
                Queue(name, durable=False)(channel).declare()
                producer.publish("1", routing_key=name, delivery_mode=1)
            try:
                sides = [
                    Side("ours", ours(app, names), 3),
                    Side("a passive declare each", declares(broker, names)),
                ]
                yield compare(f"depths of {count:,} queues, {kind}", sides, rounds, GOALS[kind])
            finally:
                for name in names:
                    channel.queue_delete(name)


def ours(app: Celery, names: list[str]) -> Callable[[], object]:
    """One look with its own connection, which also asks who consumes them."""
    target = Target("benchmark", app.conf.broker_url, control_exchange=app.conf.control_exchange)
    asks = [AskQueues(tuple(names))]

    def run() -> None:
        queues = look(target, asks, deadline=30).snapshot.queues(names)
        if not isinstance(queues, tuple) or [queue.ready for queue in queues] != [1] * len(names):
            raise AssertionError(f"not every queue holds 1: {str(queues)[:300]}")

    return run


def declares(broker: str, names: list[str]) -> Callable[[], object]:
    """On one connection of its own."""

    def run() -> None:
        with Connection(broker) as connection:
            channel = connection.default_channel
            depths = [channel.queue_declare(name, passive=True).message_count for name in names]
        if depths != [1] * len(names):
            raise AssertionError("not every queue holds 1")

    return run
