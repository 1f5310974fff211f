"""A TCP proxy on the loopback that records both ways, and can hang or hang up in mid-reply."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: What is done with a connection.
Serve = Callable[[socket.socket], None]


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
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self._over = threading.Event()
        accepting = (self._over, self._listener, self._sockets, self._attend)
        self._accepting = threading.Thread(target=_accept_until, args=accepting, daemon=True)
        self._accepting.start()

    def close(self) -> None:
        self._over.set()
        self._accepting.join()
        self._listener.close()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _attend(self, client: socket.socket) -> None:
        self.connections += 1
        server = socket.create_connection(("127.0.0.1", self._target))
        self._sockets.append(server)
        threading.Thread(target=self._requests, args=(client, server), daemon=True).start()
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
    kept: list[socket.socket] = []

    def attend(client: socket.socket) -> None:
        with suppress(OSError):
            if tls is not None:
                client = tls.wrap_socket(client, server_side=True)
                kept.append(client)
            serve(client)

    over = threading.Event()
    accepting = threading.Thread(target=_accept_until, args=(over, listener, kept, attend), daemon=True)
    accepting.start()
    try:
        yield 0 if path is not None else int(listener.getsockname()[1])
    finally:
        over.set()
        accepting.join()
        listener.close()
        for each in kept:
            # Closed alone, a socket that a thread is busy with would go on.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


def _accept_until(
    over: threading.Event,
    listener: socket.socket,
    kept: list[socket.socket],
    attend: Callable[[socket.socket], None],
) -> None:
    """Closing a listener that another thread waits on could hit whatever gets its number next."""
    listener.settimeout(0.02)
    while not over.is_set():
        with suppress(TimeoutError):
            client, _ = listener.accept()
            client.settimeout(None)
            kept.append(client)
            threading.Thread(target=attend, args=(client,), daemon=True).start()


def hang(_: socket.socket) -> None:
    """Accepts and never says a word."""


def close(client: socket.socket) -> None:
    client.close()


def http(client: socket.socket) -> None:
    client.recv(1000)
    client.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    client.close()


def drip(client: socket.socket) -> None:
    """An answer that begins at once, and never ends: a byte each tenth of a second."""
    client.recv(1000)
    while True:
        client.sendall(b"+")
        time.sleep(0.1)


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
