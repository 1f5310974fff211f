"""A TCP proxy on the loopback, in a thread of its own, whose ways change while it runs.

It knows no protocol: Redis, AMQP and HTTP go through it alike. Standard library only.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakSet

from pytest_celery_health.observe.clock import monotonic

_CHUNK = 1 << 16
#: Bytes that may wait on one way of a connection before its source is read no more.
_FULL = 1 << 18
#: Slices of a second in which a limited bandwidth is let through.
_SLICES = 50
#: Seconds that the upstream, which is on this machine, gets to take a connection.
_PATIENCE = 1.0
_HOST = "127.0.0.1"
_RESET = struct.pack("ii", 1, 0)


class ProxyError(Exception):
    """The proxy could not do what it was told. The message says why."""


@dataclass(frozen=True)
class Way:
    """How a proxy treats its connections: those there are, and those to come.

    refuses: nobody listens on the port, so the kernel refuses; what is connected is reset.
    hangs_after: bytes of replies, from now on, after which a connection passes nothing either way.
    latency: seconds by which every reply is late. bandwidth: bytes of replies a second.
    ends: "reset" (RST) or "close" (FIN) what connects, at once.
    garbles: bytes of requests that arrive as others, as many; what is connected is reset, to say them again.
    cuts: each connection that there is gets a reset in place of the next reply; those to come are left alone.
    """

    refuses: bool = False
    hangs_after: int | None = None
    latency: float = 0.0
    bandwidth: float | None = None
    ends: str = ""
    garbles: bytes = field(default=b"", repr=False)
    cuts: bool = False


PASSES = Way()


class Proxy:
    """A proxy in front of `upstream`, "host:port" or the path of a Unix socket.

    Its `port` on 127.0.0.1 stays its own until close(), refused or not. It begins by passing everything.
    `connections` were accepted since the start, `requests` and `replies` are bytes that it let through.
    """

    def __init__(self, upstream: str, *, name: str = "proxy") -> None:
        self.upstream = upstream
        self.connections = 0
        self.requests = 0
        self.replies = 0
        self._way = PASSES
        self._links: set[_Link] = set()
        self._closed = False
        # Bound and never listening: nobody else gets the port while we refuse.
        self._guard = _bound(0)
        self.port = int(self._guard.getsockname()[1])
        self._listener: socket.socket | None = None
        self._poll = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self._poll.register(self._woken, selectors.EVENT_READ, lambda _: None)
        self._asked: deque[_Asked] = deque()
        try:
            self._listen()
        except BaseException:
            self._close_sockets()
            raise
        self._thread = threading.Thread(target=self._run, name=f"celery-health {name}", daemon=True)
        self._thread.start()
        _all.add(self)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Proxy {self.endpoint} to {self.upstream}: {self._way}>"

    @property
    def endpoint(self) -> str:
        """Where it listens, "127.0.0.1:port"."""
        return f"{_HOST}:{self.port}"

    @property
    def open(self) -> int:
        """How many connections it has now."""
        return len(self._links)

    @property
    def way(self) -> Way:
        """How it treats its connections now."""
        return self._way

    def go(self, way: Way) -> None:
        """Treat connections so from now on. Those that hung go on where they were, if it lets them.

        When this returns, it is so. Raises ProxyError when the port cannot be listened on again.
        """
        self._do(lambda: self._go(way))

    @contextmanager
    def going(self, way: Way) -> Iterator[None]:
        """Treat connections so, and then as before."""
        before = self._way
        self.go(way)
        try:
            yield
        finally:
            if not self._closed:
                self.go(before)

    def cut(self) -> None:
        """Reset every connection there is."""
        self._do(self._reset_all)

    def lead_to(self, upstream: str) -> None:
        """Stand in front of another upstream, and reset what is connected to the old one."""

        def do() -> None:
            self.upstream = upstream
            self._reset_all()

        self._do(do)

    def close(self) -> None:
        """End it, its thread and its connections."""
        if self._closed:
            return
        self._do(self._stop)
        self._thread.join()
        self._close_sockets()

    # In its own thread.

    def _do(self, function: Callable[[], None]) -> None:
        if self._closed:
            raise ProxyError(f"the proxy on {self.endpoint} is closed")
        asked = _Asked(function)
        self._asked.append(asked)
        self._wake.send(b".")
        asked.done.wait()
        if asked.error is not None:
            raise asked.error

    def _run(self) -> None:
        while not self._closed:
            for key, events in self._poll.select(self._pause()):
                key.data(events)
            with suppress(BlockingIOError):
                self._woken.recv(4096)
            while self._asked:
                self._obey(self._asked.popleft())
            for link in [each for each in self._links if each.due]:
                link.turn(selectors.EVENT_WRITE)

    def _obey(self, asked: _Asked) -> None:
        try:
            asked.function()
        except BaseException as error:  # noqa: BLE001 - it is the asker's to know
            asked.error = error
        asked.done.set()

    def _pause(self) -> float | None:
        """Seconds until a reply that is held back is due; None where there is none."""
        due = min((link.next_due for link in self._links), default=None)
        return None if due is None or due == float("inf") else max(0.0, due - monotonic())

    def _go(self, way: Way) -> None:
        self._way = way
        if way.refuses or way.garbles:
            self._reset_all()
        if way.refuses:
            self._listen_no_more()
        elif self._listener is None:
            self._listen()
        for link in list(self._links):
            link.cut_next = way.cuts
            link.begin(way)

    def _count_requests(self, number: int) -> None:
        self.requests += number

    def _count_replies(self, number: int) -> None:
        self.replies += number

    def _listen(self) -> None:
        try:
            listener = _bound(self.port)
            listener.listen(128)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            raise ProxyError(
                f"another process took {self.endpoint} while nobody was to listen there"
            ) from None
        listener.setblocking(False)
        self._listener = listener
        self._poll.register(listener, selectors.EVENT_READ, self._accept)

    def _listen_no_more(self) -> None:
        if self._listener is not None:
            self._poll.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, _: int) -> None:
        while self._listener is not None:
            try:
                client, _address = self._listener.accept()
            except OSError:  # none is left, or it has gone already
                return
            self.connections += 1
            link = _Link(self, client)
            self._links.add(link)
            link.begin(self._way)

    def _reset_all(self) -> None:
        for link in list(self._links):
            link.end(reset=True)

    def _stop(self) -> None:
        _all.discard(self)
        self._closed = True
        self._reset_all()

    def _close_sockets(self) -> None:
        self._poll.close()
        for each in (self._listener, self._guard, self._woken, self._wake):
            if each is not None:
                each.close()

    def _forget(self) -> None:
        """In a fork of this process: all is the parent's, and a port that we hold open would not refuse."""
        self._closed = True
        for link in self._links:
            link.forget()
        self._close_sockets()


@dataclass
class _Asked:
    function: Callable[[], None]
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class _Flow:
    """One way of a connection: what was read from its source and not yet given to its sink."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.size = 0
        #: What may be the beginning of bytes that are garbled.
        self.kept = b""
        self.ended = False
        self.shut = False

    def add(self, data: bytes, due: float) -> None:
        if data:
            self.waiting.append((due, data))
            self.size += len(data)


class _Link:
    """A client, its connection to the upstream, which is made when something may pass, and their two ways."""

    def __init__(self, proxy: Proxy, client: socket.socket) -> None:
        client.setblocking(False)
        _no_delay(client)
        self._proxy = proxy
        self._client = client
        self._upstream: socket.socket | None = None
        self._requests = _Flow()
        self._replies = _Flow()
        self._way = PASSES
        self._allowed: int | None = None
        #: Whether it ends when its upstream replies.
        self.cut_next = False
        self._watched: dict[socket.socket, int] = {}
        self._hung_up = False
        self._over = False

    def begin(self, way: Way) -> None:
        """Go this way from now on."""
        self._way = way
        self._allowed = way.hangs_after
        if way.ends == "reset" or self._hung_up:
            self.end(reset=True)
        elif way.ends == "close":
            self._hang_up()
        else:
            self.turn(0)

    def _hang_up(self) -> None:
        """Send FIN. What the client says is read all the same: to close on it would be a reset."""
        self._hung_up = True
        if self._upstream is not None:
            self._register(self._upstream, 0)
            self._upstream.close()
            self._upstream = None
        with suppress(OSError):
            self._client.shutdown(socket.SHUT_WR)
        self._register(self._client, selectors.EVENT_READ)

    @property
    def next_due(self) -> float:
        return self._replies.waiting[0][0] if self._replies.waiting else float("inf")

    @property
    def due(self) -> bool:
        return self.next_due <= monotonic()

    def turn(self, events: int) -> None:  # noqa: ARG002 - a socket that is ready is tried, whatever for
        """Pass what may pass."""
        if self._over:
            return
        try:
            if self._hung_up:
                self._drain()
                return
            if self._upstream is None and not self._hangs:
                self._upstream = _connected(self._proxy.upstream)
            if self._upstream is not None:
                self._pass(self._upstream)
        except OSError:
            self.end(reset=True)
        else:
            self._watch()

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            while self._client.recv(_CHUNK):
                pass
            self.end(reset=False)

    @property
    def _hangs(self) -> bool:
        return self._allowed is not None and self._allowed <= 0

    def _pass(self, upstream: socket.socket) -> None:
        if not self._hangs:
            self._read(self._client, self._requests, _CHUNK, self._garbled)
            self._read(upstream, self._replies, self._portion(), self._late)
        _write(upstream, self._requests, self._proxy._count_requests)
        _write(self._client, self._replies, self._proxy._count_replies)
        if self._requests.shut and self._replies.shut:
            self.end(reset=False)

    def _read(
        self, source: socket.socket, flow: _Flow, most: int, add: Callable[[_Flow, bytes], None]
    ) -> None:
        if flow.ended or flow.size >= _FULL:
            return
        try:
            data = source.recv(most)
        except BlockingIOError:
            return
        if not data:
            flow.ended = True
        add(flow, data)

    def _portion(self) -> int:
        """Bytes of replies that may be read at once."""
        most = _CHUNK if self._allowed is None else min(_CHUNK, self._allowed)
        if self._way.bandwidth is None:
            return most
        return min(most, max(1, int(self._way.bandwidth / _SLICES)))

    def _garbled(self, flow: _Flow, data: bytes) -> None:
        secret = self._way.garbles
        if not secret:
            flow.add(flow.kept + data, 0.0)
            flow.kept = b""
            return
        data = (flow.kept + data).replace(secret, _other(secret))
        held = 0 if flow.ended else _overlap(data, secret)
        flow.kept = data[len(data) - held :]
        flow.add(data[: len(data) - held], 0.0)

    def _late(self, flow: _Flow, data: bytes) -> None:
        if self.cut_next and data:
            raise ConnectionResetError
        if self._allowed is not None:
            self._allowed -= len(data)
        way = self._way
        if not (way.latency or way.bandwidth):
            flow.add(data, flow.waiting[-1][0] if flow.waiting else 0.0)
            return
        due = monotonic() + way.latency
        if flow.waiting:
            due = max(due, flow.waiting[-1][0])
        flow.add(data, due + (len(data) / way.bandwidth if way.bandwidth else 0.0))

    def _watch(self) -> None:
        """Have the selector tell what can be done next, and nothing else: it would not sleep."""
        if self._over or self._hung_up:
            return
        client = upstream = 0
        if not self._hangs:
            if not self._requests.ended and self._requests.size < _FULL:
                client |= selectors.EVENT_READ
            # A portion at a time: what is limited is read on when the last portion is due.
            limited = self._way.bandwidth is not None and self._replies.waiting
            if not self._replies.ended and self._replies.size < _FULL and not limited:
                upstream |= selectors.EVENT_READ
        if self._requests.waiting:
            upstream |= selectors.EVENT_WRITE
        if self.due:
            client |= selectors.EVENT_WRITE
        self._register(self._client, client)
        if self._upstream is not None:
            self._register(self._upstream, upstream)

    def _register(self, sock: socket.socket, events: int) -> None:
        before = self._watched.get(sock, 0)
        if before == events:
            return
        poll = self._proxy._poll
        if not events:
            poll.unregister(sock)
        elif before:
            poll.modify(sock, events, self.turn)
        else:
            poll.register(sock, events, self.turn)
        self._watched[sock] = events

    def end(self, *, reset: bool) -> None:
        """Close both ends, with RST or FIN."""
        self._over = True
        self._proxy._links.discard(self)
        for sock in (self._client, self._upstream):
            if sock is not None:
                self._register(sock, 0)
                if reset:
                    with suppress(OSError):
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.close()

    def forget(self) -> None:
        self._client.close()
        if self._upstream is not None:
            self._upstream.close()


def _write(sink: socket.socket, flow: _Flow, count: Callable[[int], None]) -> None:
    """Give the sink what is due, and count it before it can be seen to have come."""
    now = monotonic()
    while flow.waiting and flow.waiting[0][0] <= now:
        due, data = flow.waiting[0]
        count(len(data))
        taken = 0
        try:
            taken = sink.send(data)
        except BlockingIOError:
            break
        finally:
            count(taken - len(data))
        flow.size -= taken
        if taken < len(data):
            flow.waiting[0] = due, data[taken:]
            break
        flow.waiting.popleft()
    if flow.ended and not flow.waiting and not flow.shut:
        flow.shut = True
        with suppress(OSError):  # the other side may have gone altogether
            sink.shutdown(socket.SHUT_WR)


def _overlap(data: bytes, secret: bytes) -> int:
    """How many of the last bytes of `data` may be the beginning of `secret`."""
    for length in range(min(len(data), len(secret) - 1), 0, -1):
        if data.endswith(secret[:length]):
            return length
    return 0


def _other(secret: bytes) -> bytes:
    """As many bytes, and printable ones, of which the first differs."""
    first = b"x" if not secret.startswith(b"x") else b"y"
    return first + secret[1:]


def _bound(port: int) -> socket.socket:
    sock = socket.socket()
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":  # where only this lets two sockets have one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((_HOST, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _connected(upstream: str) -> socket.socket:
    host, colon, port = upstream.rpartition(":")
    if not colon or "/" in upstream:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(_PATIENCE)
        try:
            sock.connect(upstream)
        except BaseException:
            sock.close()
            raise
    else:
        sock = socket.create_connection((host.strip("[]"), int(port)), timeout=_PATIENCE)
        _no_delay(sock)
    sock.setblocking(False)
    return sock


def _no_delay(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


_all: WeakSet[Proxy] = WeakSet()


def _after_fork() -> None:
    found: list[Any] = list(_all)
    _all.clear()
    for each in found:
        each._forget()


os.register_at_fork(after_in_child=_after_fork)
