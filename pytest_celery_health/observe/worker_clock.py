"""How far workers' clocks are from ours, told by a heartbeat event that each is asked to send."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kombu import Consumer, Exchange, Producer, Queue

from pytest_celery_health.facts import Unseen, Workers
from pytest_celery_health.observe.clock import epoch
from pytest_celery_health.observe.remote_control import Patience, gone_afterwards
from pytest_celery_health.observe.remote_control_redis import fanout_topics
from pytest_celery_health.observe.replies import REPLY_LIMIT, SENDER, reply_name
from pytest_celery_health.observe.target import Target

_HEARTBEAT = "worker.heartbeat"
_SILENT = "it sent no heartbeat event: does it run with --without-heartbeat and --without-gossip?"


def with_clocks(
    connection: Any, target: Target, workers: Workers, patience: Patience, received: Callable[[int], None]
) -> Workers:
    """`workers` with the offset of each one's clock, positive where it is ahead of ours."""
    heard = _Heard(frozenset(worker.name for worker in workers.answered), patience, received)
    if heard.names:
        if connection.transport.driver_type == "redis":
            _by_redis(connection, target, heard)
        else:
            _by_kombu(connection, target, heard)
    clocked = (
        replace(worker, clock_offset=heard.offsets.get(worker.name, Unseen(f"{worker.name}: {_SILENT}")))
        for worker in workers.answered
    )
    return replace(workers, answered=tuple(clocked))


class _Heard:
    def __init__(self, names: frozenset[str], patience: Patience, received: Callable[[int], None]) -> None:
        self.names = names
        self.offsets: dict[str, float | Unseen] = {}
        self.patience = patience
        self.received = received

    @property
    def complete(self) -> bool:
        return self.offsets.keys() >= self.names

    def take(self, body: bytes) -> None:
        now = epoch()
        self.received(len(body))
        if len(body) > REPLY_LIMIT:
            return
        try:
            events = json.loads(body)
        except (ValueError, RecursionError):
            return
        for event in events if isinstance(events, list) else [events]:
            if not isinstance(event, dict):
                continue
            name, sent = event.get("hostname"), event.get("timestamp")
            if name not in self.names or event.get("type") != "worker-heartbeat":
                continue
            if isinstance(sent, bool) or not isinstance(sent, (int, float)):
                self.offsets[name] = Unseen(f"{name} sent a heartbeat event without a timestamp")
            else:
                self.offsets[name] = float(sent) - now
            self.patience.heard()


def _request() -> dict[str, Any]:
    return {"method": "heartbeat", "arguments": {}, "destination": None, "pattern": None, "matcher": None}


def _by_redis(connection: Any, target: Target, heard: _Heard) -> None:
    channel = connection.default_channel
    with channel.conn_or_acquire() as client:
        pubsub = client.pubsub()
    try:
        pubsub.subscribe(*fanout_topics(channel, target.options, target.event_exchange, _HEARTBEAT))
        asked = False
        while not heard.complete:
            wait = heard.patience.left(missing=True)
            if not wait:
                return
            message = pubsub.get_message(timeout=wait) or {}
            if message.get("type") == "subscribe" and not asked:
                asked = True
                _publish(channel, target, fanout=True)
            elif message.get("type") == "message":
                body = _unwrapped(channel, message["data"])
                if body is not None:
                    heard.take(body)
    finally:
        with suppress(Exception):
            pubsub.close()


def _unwrapped(channel: Any, data: Any) -> bytes | None:
    try:
        message: Mapping[str, Any] = json.loads(data)
        body = channel.decode_body(message["body"], message["properties"].get("body_encoding"))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body)


def _by_kombu(connection: Any, target: Target, heard: _Heard) -> None:
    amqp = connection.transport.driver_type == "amqp"
    channel = connection.channel()
    name = reply_name(heard.patience.deadline)
    events = Exchange(target.event_exchange, "topic", no_declare=amqp)
    queue = Queue(name, events, routing_key=_HEARTBEAT, durable=False, exclusive=amqp, auto_delete=True)(
        channel
    )

    def on_message(message: Any) -> None:
        body = message.body
        heard.take(body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body))

    with gone_afterwards(connection, channel, queue):
        try:
            queue.declare()
        except connection.channel_errors:
            # No exchange for events, so nobody sends any.
            return
        consumer = Consumer(channel, [queue], no_ack=True, auto_declare=False, on_message=on_message)
        consumer.consume()
        _publish(channel, target, fanout=not amqp, sender=name)
        while not heard.complete:
            wait = heard.patience.left(missing=True)
            if not wait:
                break
            with suppress(socket.timeout):
                connection.drain_events(timeout=wait)
        consumer.cancel()


def _publish(channel: Any, target: Target, *, fanout: bool, sender: str = "") -> None:
    exchange = f"{target.control_exchange}.pidbox"
    if fanout:
        Exchange(exchange, "fanout", durable=False, delivery_mode="transient")(channel).declare()
    Producer(channel, auto_declare=False).publish(
        _request(),
        exchange=exchange,
        routing_key="",
        serializer="json",
        delivery_mode=1,
        headers={"clock": 0, **({SENDER: sender} if sender else {})},
    )
