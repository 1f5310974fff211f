"""A TCP proxy on the loopback that records both ways, and can hang or hang up in mid-reply."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

#: What is done with a connection.
Serve = Callable[[socket.socket], None]


class _Listening:
    """Does `attend` with every connection to `listener`, each in a thread of its own."""

    def __init__(self, listener: socket.socket, attend: Serve) -> None:
        self._listener = listener
        self._attend = attend
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._over = threading.Event()
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def keep(self, each: socket.socket) -> None:
        """Have it closed at the end."""
        self._sockets.append(each)

    def start(self, work: Callable[..., None], *args: Any) -> None:
        self._threads.append(threading.Thread(target=work, args=args, daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        """What another thread is busy with is not closed: it could hit whatever gets its number next."""
        self._over.set()
        self._accepting.join()
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                # A TLS socket's own would have the other thread go on without TLS.
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        self._listener.settimeout(0.02)
        while not self._over.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                client.settimeout(None)
                self.keep(client)
                self.start(self._attend, client)


class Proxy:
    """replies: bytes of replies that it passes on before it does `then`: "hang", "close", or as a server.
    once: what is said to the server when it does so instead.
    """

    def __init__(
        self, target: int, replies: int | None = None, then: str | Serve = "hang", once: bytes | None = None
    ) -> None:
        self.sent = bytearray()
        self.received = bytearray()
        self.connections = 0
        self._left = replies
        self._then = then
        self._once = once
        self._target = target
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(listener.getsockname()[1])
        self._listening = _Listening(listener, self._attend)

    def close(self) -> None:
        self._listening.close()

    def _attend(self, client: socket.socket) -> None:
        self.connections += 1
        server = socket.create_connection(("127.0.0.1", self._target))
        self._listening.keep(server)
        self._listening.start(self._requests, client, server)
        self._replies(client, server)

    def _requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                self.sent += data
                if self._once is not None and self._once in self.sent:
                    self._left = 0
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _replies(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if self._left is not None:
                    data = data[: self._left]
                    self._left -= len(data)
                self.received += data
                client.sendall(data)
                if self._left == 0:
                    if self._then == "close":
                        client.shutdown(socket.SHUT_RDWR)
                    elif callable(self._then):
                        self._then(client)
                    return
            client.shutdown(socket.SHUT_WR)


@contextmanager
def proxied(
    target: int, replies: int | None = None, then: str | Serve = "hang", once: bytes | None = None
) -> Iterator[Proxy]:
    proxy = Proxy(target, replies, then, once)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def server(serve: Serve, *, tls: ssl.SSLContext | None = None, path: Path | None = None) -> Iterator[int]:
    """The port of a server that does `serve` with every connection, and then keeps it open.

    tls: which is spoken first. path: that of a unix socket, instead of a port.
    """
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(path))
        listener.listen()

    def attend(client: socket.socket) -> None:
        with suppress(OSError):
            if tls is not None:
                client = tls.wrap_socket(client, server_side=True)
                listening.keep(client)
            serve(client)

    listening = _Listening(listener, attend)
    try:
        yield 0 if path is not None else int(listener.getsockname()[1])
    finally:
        listening.close()


def hang(_: socket.socket) -> None:
    """Accepts and never says a word."""


def close(client: socket.socket) -> None:
    client.close()


def http(client: socket.socket) -> None:
    client.recv(1000)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    client.close()


def drip(reply: bytes) -> Serve:
    """An answer that begins at once, and never ends: a byte each tenth of a second."""

    def serve(client: socket.socket) -> None:
        client.recv(1000)
        for byte in itertools.chain(reply, itertools.repeat(ord("x"))):
            client.sendall(bytes([byte]))
            time.sleep(0.1)

    return serve


def begin(reply: bytes) -> Serve:
    """Answers so, and never goes on."""

    def serve(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(reply)

    return serve


class Flood:
    """Says `head`, and then `body` again and again. once_asked: not before it is spoken to. sent: bytes."""

    def __init__(self, head: bytes, body: bytes, *, once_asked: bool = True) -> None:
        self.sent = 0
        self._head = head
        self._body = body
        self._once_asked = once_asked

    def __call__(self, client: socket.socket) -> None:
        if self._once_asked:
            client.recv(1000)
        client.sendall(self._head)
        while True:
            client.sendall(self._body)
            self.sent += len(self._body)
