"""A broker of ours as good as new, for one test after another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

#: Where a RabbitMQ with the plugin of this name tells what happens to it.
EVENTS = "amq.rabbitmq.event"
_PATIENCE = 5.0


@contextmanager
def emptied(url: str) -> Iterator[None]:
    """Nothing is there when it begins, and nothing is left. Only for brokers that are ours alone."""
    scheme = url.partition(":")[0]
    empty = {"redis": _empty_redis, "amqp": _empty_rabbitmq, "memory": _fresh_memory}[scheme]
    with empty(url):
        yield


@contextmanager
def _empty_redis(url: str) -> Iterator[None]:
    import redis

    def flush() -> None:
        with redis.Redis.from_url(url, socket_timeout=_PATIENCE) as client:
            client.flushall()

    flush()
    try:
        yield
    finally:
        flush()


@contextmanager
def _empty_rabbitmq(url: str) -> Iterator[None]:
    """What is made meanwhile is removed: the broker tells of queues and exchanges, which cannot be listed."""
    from kombu import Connection, Exchange, Queue

    made: list[tuple[str, str]] = []

    def note(message: Any) -> None:
        kind = message.delivery_info["routing_key"].partition(".")[0]
        if not message.headers.get("exclusive") or message.headers["name"] == last:
            made.append((kind, message.headers["name"]))

    with Connection(url, connect_timeout=_PATIENCE) as connection:
        channel = connection.default_channel
        told = Queue(f"celery-health.{uuid4().hex}", channel=channel, exclusive=True, auto_delete=True)
        told.declare()
        for kind in ("queue.created", "exchange.created"):
            told.bind_to(Exchange(EVENTS, type="topic"), routing_key=kind)
        channel.basic_consume(told.name, no_ack=True, callback=note)
        last = f"{told.name}.last"
        try:
            yield
        finally:
            channel.queue_declare(last, exclusive=True)
            with suppress(TimeoutError):
                while ("queue", last) not in made:
                    connection.drain_events(timeout=_PATIENCE)
            for kind, name in made:
                # Nothing is said of those that are gone, and of those of other connections that are open.
                with suppress(*connection.channel_errors), connection.channel() as own:
                    own.queue_delete(name) if kind == "queue" else own.exchange_delete(name)


@contextmanager
def _fresh_memory(_url: str) -> Iterator[None]:
    """For what connects meanwhile, kombu's in-memory broker is another than before."""
    from kombu.transport import memory, virtual

    state, queues = memory.Transport.global_state, memory.Channel.queues
    memory.Transport.global_state, memory.Channel.queues = virtual.BrokerState(), {}
    try:
        yield
    finally:
        memory.Transport.global_state, memory.Channel.queues = state, queues
