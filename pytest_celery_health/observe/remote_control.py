"""Remote control over any transport of kombu: every command at once, multiplexed on one reply queue."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from kombu import Consumer, Exchange, Producer, Queue

from pytest_celery_health.observe.clock import Deadline, monotonic
from pytest_celery_health.observe.replies import SENDER, Tally, reply_name

#: Seconds of silence after which nobody else is waited for: where nobody knows who has to answer, and where
#: somebody is known to be missing. A worker busy with starting a child answers late, not never.
QUIET = 0.25
PATIENCE = 1.0
#: Seconds that are waited at a time, so that a cancelled look ends soon.
SLICE = 0.2


class Patience:
    """How long to wait for the next reply. `glances` are the seconds between two that a worker takes at its
    mailbox, where the broker tells it of nothing."""

    def __init__(self, deadline: Deadline, cancelled: Callable[[], bool], glances: float = 0.0) -> None:
        self.deadline = deadline
        self.cancelled = cancelled
        self.glances = glances
        self._heard = monotonic()
        self._limit = min(PATIENCE, 0.4 * deadline.left())

    def heard(self) -> None:
        self._heard = monotonic()

    def left(self, *, missing: bool) -> float:
        """Seconds to wait now, at most a slice; 0.0 when it is time to give up."""
        if self.cancelled() or self.deadline.passed:
            return 0.0
        limit = self._limit if missing else min(QUIET, self._limit)
        left = self._heard + self.glances + limit - monotonic()
        return max(0.0, min(left, SLICE, self.deadline.left()))


def ask(
    connection: Any,
    namespace: str,
    tally: Tally,
    wanted: frozenset[str],
    at_least: int,
    patience: Patience,
) -> int:
    """Broadcasts what `tally` requests and takes the replies in. Returns the number of leftovers of killed
    looks that were swept.

    namespace: the control exchange. `wanted` names and `at_least` answers are worth some patience where the
    broker does not tell how many there are. Raises what the connection raises.
    """
    if connection.transport.driver_type != "amqp":
        return _ask_virtual(connection, namespace, tally, wanted, at_least, patience)
    _ask_amqp(connection, namespace, tally, wanted, at_least, patience)
    return 0


@contextmanager
def gone_afterwards(connection: Any, channel: Any, queue: Any) -> Iterator[int]:
    """Have nothing left of `queue`, and `channel` closed. Gives the number of leftovers of killed looks that
    were swept before."""
    found: Any = nullcontext(0)
    if connection.transport.driver_type == "filesystem":
        from pytest_celery_health.observe.filesystem import put_back

        found = put_back(channel, queue.name)
    try:
        with found as swept:
            yield swept
    finally:
        for tidy in (queue.delete, channel.close):
            with suppress(Exception):
                tidy()


def held_mailboxes(connection: Any, namespace: str, names: frozenset[str]) -> frozenset[str]:
    """Those of `names` whose mailbox still has its owner on an AMQP broker: busy or frozen, but not gone."""
    held = set()
    for name in names:
        channel = connection.channel()
        try:
            declared = channel.queue_declare(f"{name}.{namespace}.pidbox", passive=True)
        except connection.channel_errors as refusal:
            # 405: it is there, and exclusive to a connection that is alive. 404: it is gone.
            if getattr(refusal, "reply_code", 0) == 405:
                held.add(name)
        else:
            if declared.consumer_count:
                held.add(name)
            channel.close()
    return frozenset(held)


def _ask_amqp(
    connection: Any,
    namespace: str,
    tally: Tally,
    wanted: frozenset[str],
    at_least: int,
    patience: Patience,
) -> None:
    exchange = f"{namespace}.pidbox"
    # Nothing is cancelled, deleted or closed at the end, each of which would cost a round trip: the reply
    # queue is exclusive and replied to through the default exchange, so all of it goes with the connection.
    channel = connection.channel()
    try:
        channel.exchange_declare(exchange, "fanout", passive=True)
    except connection.channel_errors as refusal:
        if getattr(refusal, "reply_code", 0) != 404:
            raise
        tally.nobody()
        return
    name = reply_name(patience.deadline)
    channel.queue_declare(name, durable=False, exclusive=True, auto_delete=True)
    _consumer(channel, Queue(name, no_declare=True), tally, patience).consume()

    def on_return(exception: Any, *_: Any) -> None:
        # NO_ROUTE: no mailbox is bound.
        if getattr(exception, "reply_code", 0) == 312:
            tally.nobody()

    producer = Producer(channel, auto_declare=False, on_return=on_return)
    for request in tally.requests:
        producer.publish(
            request.body({"exchange": "", "routing_key": name}, tally.names),
            exchange=exchange,
            routing_key="",
            serializer="json",
            delivery_mode=1,
            headers={"clock": 0},
            mandatory=True,
        )
    while not tally.complete:
        missing = not tally.answered(wanted) or tally.pinged < max(at_least, 1)
        wait = patience.left(missing=missing)
        if not wait:
            return
        with suppress(socket.timeout):
            connection.drain_events(timeout=wait)


def _ask_virtual(
    connection: Any,
    namespace: str,
    tally: Tally,
    wanted: frozenset[str],
    at_least: int,
    patience: Patience,
) -> int:
    channel = connection.channel()
    # To a virtual transport, declaring an exchange means only that this process knows its type.
    mailboxes = Exchange(f"{namespace}.pidbox", "fanout", durable=False, delivery_mode="transient")(channel)
    mailboxes.declare()
    replies = Exchange(f"reply.{namespace}.pidbox", "direct", durable=False, delivery_mode="transient")
    name = reply_name(patience.deadline)
    key = name.rpartition(".")[2]
    queue = Queue(name, replies, routing_key=key, durable=False, auto_delete=True)(channel)
    with gone_afterwards(connection, channel, queue) as swept:
        queue.declare()
        if connection.transport.driver_type == "memory":
            tally.reached(len(channel.get_table(mailboxes.name)))
        consumer = _consumer(channel, queue, tally, patience)
        consumer.consume()
        producer = Producer(channel, auto_declare=False)
        try:
            for request in tally.requests:
                producer.publish(
                    request.body({"exchange": replies.name, "routing_key": key}, tally.names),
                    exchange=mailboxes.name,
                    routing_key="",
                    serializer="json",
                    headers={"clock": 0, SENDER: name},
                )
            while not tally.complete:
                missing = tally.counted or not tally.answered(wanted) or tally.pinged < max(at_least, 1)
                wait = patience.left(missing=missing)
                if not wait:
                    break
                with suppress(socket.timeout):
                    connection.drain_events(timeout=wait)
        finally:
            with suppress(Exception):
                consumer.cancel()
    return swept


def _consumer(channel: Any, queue: Any, tally: Tally, patience: Patience) -> Consumer:
    def on_message(message: Any) -> None:
        body = message.body
        raw = body.encode("utf-8", "replace") if isinstance(body, str) else bytes(body)
        patience.heard()
        tally.take(message.headers.get("ticket"), raw, str(message.content_type))

    return Consumer(channel, [queue], no_ack=True, auto_declare=False, on_message=on_message)
