"""Queues with real task messages in them, ready or taken and not acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import uuid4

from celery import Celery
from kombu import Consumer, Producer, Queue
from kombu.utils.json import dumps

#: Seconds that a broker gets to deliver the messages which are to be unacknowledged.
_PATIENCE = 10.0


class Filling:
    """Puts messages into queues of the broker that `app` uses now, on a connection of its own."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._connection = app.connection_for_write(connect_timeout=4)
        self._queues: dict[str, Queue] = {}
        self._holding: list[Any] = []

    def put(
        self,
        queue: str,
        *,
        ready: Mapping[int | None, int],
        unacked: int,
        unacked_for: float,
        task: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        eta: datetime | None,
        expires: datetime | None,
    ) -> list[str]:
        """Put messages, `ready` by their priority, and return the ids of their tasks."""
        declared = self._declare(queue)
        channel = self._connection.default_channel
        message = self._app.amqp.create_task_message(
            str(uuid4()), task, args, kwargs, eta=eta, expires=expires
        )
        publish = self._publisher(channel, declared, message)
        kind = self._connection.transport.driver_type
        held: list[str] = []
        if unacked:
            with _at_once(kind, channel, lambda: _taken(channel, unacked_for)):
                held += [publish(None) for _ in range(unacked)]
            if kind != "redis":
                self._take(declared, unacked)
        with _at_once(kind, channel, lambda: _lists(channel)):
            ids = [publish(priority) for priority, count in ready.items() for _ in range(count)]
        return ids + held

    def close(self) -> None:
        """Let go of what is not acknowledged, and remove the queues."""
        for channel in self._holding:
            channel.close()
        self._holding.clear()
        try:
            for queue in self._queues.values():
                queue(self._connection.default_channel).delete()
        finally:
            self._queues.clear()
            self._connection.release()

    def _declare(self, name: str) -> Queue:
        """The queue as the app would declare it; the app itself does not come to know it."""
        if name not in self._queues:
            queues = self._app.amqp.queues
            queue = queues[name] if name in queues else queues.new_missing(name)
            queue(self._connection.default_channel).declare()
            self._queues[name] = queue
        return self._queues[name]

    def _publisher(self, channel: Any, queue: Queue, message: Any) -> Callable[[int | None], str]:
        """Publishes a copy of `message` with a priority, and returns the id of its task."""
        # Not the app's way of sending, which would call its handlers of signals.
        producer = Producer(channel, auto_declare=False)
        conf = self._app.conf
        priority_by_default = conf.task_default_priority
        options = {
            "exchange": "",
            "routing_key": queue.name,
            "serializer": conf.task_serializer,
            "compression": conf.task_compression,
            "delivery_mode": queue.exchange.delivery_mode or conf.task_default_delivery_mode,
            **message.properties,
        }

        def publish(priority: int | None) -> str:
            task_id = str(uuid4())
            options["correlation_id"] = task_id
            ids = {"id": task_id, "root_id": task_id}
            headers, body = message.headers, message.body
            if "id" in headers:
                headers = {**headers, **ids}
            else:  # of Celery's protocol 1
                body = {**body, **ids}
            priority = priority_by_default if priority is None else priority
            producer.publish(body, headers=headers, priority=priority, **options)
            return task_id

        return publish

    def _take(self, queue: Queue, count: int) -> None:
        """Take messages as a busy worker does, and hold them."""
        channel = self._connection.channel()
        self._holding.append(channel)
        channel.basic_qos(0, count, False)
        held: list[Any] = []
        consumer = Consumer(channel, [queue(channel)], on_message=held.append, auto_declare=False)
        consumer.consume()
        over = time.monotonic() + _PATIENCE
        while len(held) < count:
            if time.monotonic() > over:
                raise TimeoutError(f"{queue.name} delivered {len(held)} of {count} within {_PATIENCE:g} s")
            self._connection.drain_events(timeout=_PATIENCE)


#: Puts one of kombu's messages for Redis, given a pipeline and the queue.
_Put = Callable[[Any, str, Any], None]


@contextmanager
def _at_once(kind: str, channel: Any, how: Callable[[], _Put]) -> Iterator[None]:
    """Have the queue hold all messages at the end; on Redis, `how` says how they are put there."""
    if kind == "redis":
        with _piped(channel, how()):
            yield
        return
    if kind == "amqp":
        # RabbitMQ answers who asks for a queue's length before it has put what was published earlier.
        channel.tx_select()
    yield
    if kind == "amqp":
        channel.tx_commit()


@contextmanager
def _piped(channel: Any, put: _Put) -> Iterator[None]:
    """Have kombu's messages put by `put` into one pipeline."""
    with channel.conn_or_acquire() as client, client.pipeline(transaction=False) as pipe:
        channel._put = lambda queue, message, **_: put(pipe, queue, message)
        try:
            yield
        finally:
            del channel._put
        pipe.execute()


def _lists(channel: Any) -> _Put:
    def put(pipe: Any, queue: str, message: Any) -> None:
        priority = channel._get_message_priority(message, reverse=False)
        pipe.lpush(channel._q_for_pri(queue, priority), dumps(message))

    return put


def _taken(channel: Any, ago: float) -> _Put:
    """As kombu's Redis transport notes what it delivered, some time ago."""

    def put(pipe: Any, queue: str, message: Any) -> None:
        tag = message["properties"]["delivery_tag"]
        pipe.zadd(channel.unacked_index_key, {tag: time.time() - ago})
        pipe.hset(channel.unacked_key, tag, dumps([message, "", queue]))

    return put
