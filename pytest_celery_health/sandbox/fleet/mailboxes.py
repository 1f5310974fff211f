"""Many remote-control mailboxes on few connections: how simulated workers listen and answer.

One class for each way a transport broadcasts. Only the thread that owns an instance may call it, but
for `wake`.
"""

from __future__ import annotations

import json
import select
import socket
import threading
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import lru_cache
from itertools import cycle
from time import monotonic
from typing import Any, NamedTuple
from uuid import uuid4

from celery.events.event import get_exchange
from kombu import Connection, Consumer, Exchange, Producer, Queue
from kombu.exceptions import ContentDisallowed, DecodeError, KombuError
from kombu.serialization import prepare_accept_content
from kombu.utils.encoding import bytes_to_str

#: Bounds of our own connections, in seconds: a broker that hangs must not hang the test.
CONNECT_TIMEOUT = 4
SOCKET_TIMEOUT = 2.0
#: How long a thread may sleep without looking whether it shall stop.
LONGEST_WAIT = 1.0
POLL = 0.01
#: Of one fetch, so that due answers are not kept waiting.
MOST_LETTERS = 5000
#: RabbitMQ makes queues one after another on each channel, most of the time waiting.
CHANNELS = 16


class Letter(NamedTuple):
    """A control request, as it arrived in the mailbox with this address."""

    address: int
    body: Mapping[str, Any]


class Reply(NamedTuple):
    """An answer, already serialised."""

    exchange: str
    routing_key: str
    headers: Mapping[str, Any]
    content_type: str
    content_encoding: str
    payload: str | bytes


class Mailboxes(ABC):
    """Mailboxes of one control exchange on one broker."""

    def __init__(
        self, url: str, options: Mapping[str, Any], control_exchange: str, accept: Iterable[str] = ("json",)
    ) -> None:
        bounds = {
            "max_retries": 0,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            "socket_timeout": SOCKET_TIMEOUT,
        }
        self.connection = Connection(
            url,
            connect_timeout=CONNECT_TIMEOUT,
            transport_options={**self._bounds(url, bounds), **options},
        )
        self.control_exchange = control_exchange
        self.accept: set[str] = prepare_accept_content(list(accept))
        self.exchange = Exchange(f"{control_exchange}.pidbox", type="fanout", durable=False, delivery_mode=1)
        self.letters: deque[Letter] = deque()
        self._outgoing: Any = None
        self._declared: set[str] = set()

    @staticmethod
    def _bounds(url: str, bounds: dict[str, Any]) -> dict[str, Any]:
        scheme = url.partition(":")[0].partition("+")[0]
        if scheme in ("redis", "rediss", "sentinel"):
            return bounds
        if scheme in ("amqp", "amqps", "pyamqp"):
            return {"max_retries": 0, "read_timeout": CONNECT_TIMEOUT, "write_timeout": CONNECT_TIMEOUT}
        return {}

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        """What a broken connection raises."""
        return (*self.connection.connection_errors, *self.connection.channel_errors, KombuError, OSError)

    @abstractmethod
    def open(self, names: Mapping[int, str]) -> None:
        """Make a mailbox for each address and name; they are bound when this returns."""

    @abstractmethod
    def shut(self, addresses: Iterable[int]) -> None:
        """Take mailboxes away."""

    @abstractmethod
    def fetch(self, timeout: float) -> Sequence[Letter]:
        """What came, waiting for at most `timeout` seconds; may be nothing, also when woken."""

    @abstractmethod
    def wake(self) -> None:
        """Make a `fetch` in another thread return."""

    def send(self, replies: Sequence[Reply]) -> None:
        """Send answers. Where nobody waits for one it is dropped, as a worker does."""
        for reply in replies:
            try:
                channel = self._channel()
                if reply.exchange and reply.exchange not in self._declared:
                    Exchange(reply.exchange, "direct", channel, durable=False, delivery_mode=1).declare()
                    self._declared.add(reply.exchange)
                channel.basic_publish(
                    self._message(channel, reply), exchange=reply.exchange, routing_key=reply.routing_key
                )
            except self.connection.channel_errors:
                self._outgoing = None
                self._declared.clear()

    def announce(self, exchange: str, event: Mapping[str, Any]) -> None:
        """Send an event."""
        channel = self._channel()
        target = get_exchange(self.connection, name=exchange)
        Producer(channel, auto_declare=False).publish(
            event,
            exchange=target.name,
            routing_key=event["type"].replace("-", "."),
            declare=[target],
            serializer="json",
            headers={"hostname": event["hostname"]},
            delivery_mode=1,
        )

    def close(self) -> None:
        """Drop the connections, and with them what is left of the mailboxes."""
        self.connection.release()

    def queue(self, name: str) -> Queue:
        """The queue that a worker of this name listens on."""
        return Queue(
            f"{name}.{self.exchange.name}",
            self.exchange,
            durable=False,
            exclusive=True,
            auto_delete=True,
            expires=10.0,
        )

    def deliver(self, address: int) -> Callable[[Any], None]:
        """A callback that puts what a consumer gets into `letters`."""

        def on_message(message: Any) -> None:
            self._keep(address, message)

        return on_message

    def _keep(self, address: int, message: Any) -> None:
        body = self.read(message)
        if body is not None:
            self.letters.append(Letter(address, body))

    def read(self, message: Any) -> Mapping[str, Any] | None:
        """The request in a message, None when it is none that a worker would read."""
        message.accept = self.accept
        try:
            body = message.decode()
        except (ContentDisallowed, DecodeError):
            return None
        return body if isinstance(body, dict) and isinstance(body.get("method"), str) else None

    def _channel(self) -> Any:
        if self._outgoing is None:
            self._outgoing = self.connection.channel()
        return self._outgoing

    def _message(self, channel: Any, reply: Reply) -> Any:
        return channel.prepare_message(
            _bytes(reply.payload),
            content_type=reply.content_type,
            content_encoding=reply.content_encoding,
            headers=dict(reply.headers),
            properties={"delivery_mode": 1},
        )

    def _taken(self) -> Sequence[Letter]:
        taken = list(self.letters)
        self.letters.clear()
        return taken


class Bell:
    """Lets a thread sleep until a socket has something to read, or another thread rings."""

    def __init__(self) -> None:
        self._ring, self._bell = socket.socketpair()
        self._bell.setblocking(False)

    def ring(self) -> None:
        self._ring.send(b".")

    def sleep(self, wire: Any, timeout: float) -> None:
        """For at most so many seconds; `wire` may be None."""
        select.select([self._bell, *([] if wire is None else [wire])], [], [], timeout)
        with suppress(BlockingIOError):
            while self._bell.recv(64):
                pass

    def close(self) -> None:
        self._ring.close()
        self._bell.close()


class RedisMailboxes(Mailboxes):
    """Every mailbox is a pattern of its own that matches the one topic, all on one connection: PUBLISH
    counts each, and each gets its own copy, as if every worker had a connection."""

    def __init__(
        self, url: str, options: Mapping[str, Any], control_exchange: str, accept: Iterable[str] = ("json",)
    ) -> None:
        super().__init__(url, options, control_exchange, accept)
        channel = self.connection.default_channel
        with channel.conn_or_acquire() as client:
            self.client = client
        self.topic = f"{channel.keyprefix_fanout}{self.exchange.name}"
        self.patterns: dict[str, int] = {}
        self.pubsub = self.client.pubsub()
        self.bell = Bell()
        self._decoded = lru_cache(maxsize=32)(self._decode)
        self._encoded = lru_cache(maxsize=4096)(self._encode)

    @property
    def errors(self) -> tuple[type[BaseException], ...]:
        from redis import RedisError

        return (*super().errors, RedisError)

    def open(self, names: Mapping[int, str]) -> None:
        patterns = {spelling(self.topic, address): address for address in names}
        self.patterns.update(patterns)
        self.pubsub.psubscribe(*patterns)
        self._confirmed("psubscribe", set(patterns))

    def shut(self, addresses: Iterable[int]) -> None:
        gone = {spelling(self.topic, address) for address in addresses}
        for pattern in gone:
            self.patterns.pop(pattern, None)
        if gone:
            self.pubsub.punsubscribe(*gone)
            self._confirmed("punsubscribe", gone)

    def fetch(self, timeout: float) -> Sequence[Letter]:
        own = self.pubsub.connection  # None before the first mailbox
        if not self.letters and not (own and own.can_read(timeout=0)):
            self.bell.sleep(own and own._sock, timeout)
        while own and self._next(0.0) and len(self.letters) < MOST_LETTERS:
            pass
        return self._taken()

    def wake(self) -> None:
        self.bell.ring()

    def send(self, replies: Sequence[Reply]) -> None:
        channel = self._channel()
        tables: dict[str, list[tuple[str, ...]]] = {}
        queues: dict[str, list[str]] = {}
        for reply in replies:
            if reply.exchange not in tables:
                tables[reply.exchange] = channel.get_table(reply.exchange) if reply.exchange else []
            body, encoding = self._encoded(reply.payload)
            message = channel.prepare_message(
                body,
                content_type=reply.content_type,
                content_encoding=reply.content_encoding,
                headers=dict(reply.headers),
                properties={
                    "delivery_mode": 1,
                    "body_encoding": encoding,
                    "delivery_tag": str(uuid4()),
                    "delivery_info": {"exchange": reply.exchange, "routing_key": reply.routing_key},
                },
            )
            bound = [row[2] for row in tables[reply.exchange] if row[0] == reply.routing_key]
            for queue in bound if reply.exchange else [reply.routing_key]:
                queues.setdefault(queue, []).append(json.dumps(message))
        with self.client.pipeline(transaction=False) as pipe:
            for queue, messages in queues.items():
                pipe.lpush(queue, *messages)
            pipe.execute()

    def close(self) -> None:
        try:
            self.pubsub.close()
        finally:
            self.bell.close()
            super().close()

    def _next(self, timeout: float) -> Mapping[str, Any] | None:
        """The next message, kept when it is a letter; None when there is none within `timeout` seconds."""
        # Not get_message(timeout=0): where half a message is there, it reconnects and loses the rest.
        if not self.pubsub.connection.can_read(timeout=timeout):
            return None
        message: dict[str, Any] | None = self.pubsub.get_message(timeout=SOCKET_TIMEOUT)
        if message is not None and message["type"] == "pmessage":
            body = self._decoded(message["data"])
            address = self.patterns.get(bytes_to_str(message["pattern"]))
            if body is not None and address is not None:
                self.letters.append(Letter(address, body))
        return message

    def _confirmed(self, kind: str, patterns: set[str]) -> None:
        until = monotonic() + SOCKET_TIMEOUT
        while patterns:
            message = self._next(max(0.0, until - monotonic()))
            if message is not None and message["type"] == kind:
                patterns.discard(bytes_to_str(message["channel"]))
            elif message is None and monotonic() >= until:
                raise TimeoutError(f"the broker did not confirm {kind} within {SOCKET_TIMEOUT} s")

    def _encode(self, payload: str | bytes) -> tuple[str, str]:
        channel = self._channel()
        encoded: tuple[str, str] = channel.encode_body(_bytes(payload), channel.body_encoding)
        return encoded

    def _decode(self, data: bytes) -> Mapping[str, Any] | None:
        try:
            raw = json.loads(data)
            return self.read(self.connection.default_channel.message_to_python(raw))
        except (ValueError, TypeError, KeyError):
            return None


def spelling(topic: str, number: int) -> str:
    """The `number`th glob that matches `topic` and nothing else.

    Each character can be written in three ways: x, \\x and [x].
    """
    spelt = []
    for sign in topic:
        if sign in "*?[]^\\-":
            spelt.append(f"\\{sign}")
        else:
            number, form = divmod(number, 3)
            spelt.append((sign, f"\\{sign}", f"[{sign}]")[form])
    if number:
        raise ValueError(f"{topic} has too few characters for so many mailboxes")
    return "".join(spelt)


class AmqpMailboxes(Mailboxes):
    """A queue for each mailbox, all consumed on one channel of one connection."""

    def __init__(
        self, url: str, options: Mapping[str, Any], control_exchange: str, accept: Iterable[str] = ("json",)
    ) -> None:
        super().__init__(url, options, control_exchange, accept)
        self.consuming = self.connection.default_channel
        self.bell = Bell()

    def open(self, names: Mapping[int, str]) -> None:
        # Not on the channel that consumes: a name that another connection has closes the channel (405).
        with ExitStack() as stack:
            number = min(len(names), CHANNELS) or 1
            channels = [stack.enter_context(self.connection.channel()) for _ in range(number)]
            exchanges = [self.exchange(channel) for channel in channels]
            exchanges[0].declare()
            for name, channel in zip(names.values(), cycle(channels)):
                queue = self.queue(name)(channel)
                queue.queue_declare(nowait=True)
                queue.queue_bind(nowait=True)
            for exchange in exchanges:
                exchange.declare()  # an answer to this means that all of the above is done
        for address, name in names.items():
            self.consuming.basic_consume(
                queue=self.queue(name).name,
                no_ack=True,
                callback=self.deliver(address),
                consumer_tag=f"sim{address}",
                nowait=True,
            )
        self.exchange(self.consuming).declare()

    def shut(self, addresses: Iterable[int]) -> None:
        for address in addresses:
            self.consuming.basic_cancel(f"sim{address}")  # the queue goes with its last consumer

    def fetch(self, timeout: float) -> Sequence[Letter]:
        wire = self.connection.connection.sock
        pending = getattr(wire, "pending", int)
        if not self.letters and not pending():
            self.bell.sleep(wire, timeout)
        try:
            while len(self.letters) < MOST_LETTERS:
                self.connection.drain_events(timeout=0)
        except TimeoutError:
            pass
        return self._taken()

    def wake(self) -> None:
        self.bell.ring()

    def _keep(self, address: int, message: Any) -> None:
        super()._keep(address, self.consuming.message_to_python(message))

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.bell.close()


class PolledMailboxes(Mailboxes):
    """The plain kombu way, for `memory://` and whatever else broadcasts: looks every 10 ms."""

    def __init__(
        self, url: str, options: Mapping[str, Any], control_exchange: str, accept: Iterable[str] = ("json",)
    ) -> None:
        super().__init__(url, options, control_exchange, accept)
        self.consuming = self.connection.default_channel
        self.consumers: dict[int, Consumer] = {}
        self._woken = threading.Event()

    def open(self, names: Mapping[int, str]) -> None:
        for address, name in names.items():
            queue = self.queue(name)
            consumer = Consumer(
                self.consuming, [queue], no_ack=True, on_message=self.deliver(address), accept=self.accept
            )
            consumer.consume()
            self.consumers[address] = consumer

    def shut(self, addresses: Iterable[int]) -> None:
        for address in addresses:
            consumer = self.consumers.pop(address, None)
            if consumer is not None:
                consumer.cancel()
                for queue in consumer.queues:
                    queue.delete()
                    self._unbind(queue.name)

    def _unbind(self, queue: str) -> None:
        # kombu's in-memory exchange would keep the deleted queue, and make it anew for each broadcast.
        table = self.consuming.get_table(self.exchange.name)
        table[:] = [row for row in table if row[2] != queue]

    def fetch(self, timeout: float) -> Sequence[Letter]:
        try:
            while len(self.letters) < MOST_LETTERS:
                self.connection.drain_events(timeout=0)
        except TimeoutError:
            pass
        if not self.letters:
            self._woken.wait(min(timeout, POLL))
            self._woken.clear()
        return self._taken()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self.shut(list(self.consumers))
        super().close()


def _bytes(payload: str | bytes) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


def mailboxes(
    url: str, options: Mapping[str, Any], control_exchange: str, accept: Iterable[str] = ("json",)
) -> Mailboxes:
    """Connect to a broker. Raises what kombu raises when it cannot be reached."""
    transport = Connection(url).transport
    if transport.driver_type == "redis":
        return RedisMailboxes(url, options, control_exchange, accept)
    if transport.driver_name == "py-amqp":
        return AmqpMailboxes(url, options, control_exchange, accept)
    return PolledMailboxes(url, options, control_exchange, accept)
