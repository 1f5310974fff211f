"""Servers that stand for production, and count what reaches them."""

from __future__ import annotations

import socket


class Decoy:
    """Counts what reaches a port of 127.0.0.1."""

    def __init__(self, kind: socket.SocketKind) -> None:
        self._socket = socket.socket(socket.AF_INET, kind)
        self._socket.bind(("127.0.0.1", 0))
        self.port = int(self._socket.getsockname()[1])
        if kind == socket.SOCK_STREAM:
            self._socket.listen()
        self._socket.setblocking(False)
        self._kind = kind

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def reached(self) -> int:
        """How many connections or datagrams came since the last time."""
        count = 0
        while True:
            try:
                if self._kind == socket.SOCK_STREAM:
                    self._socket.accept()[0].close()
                else:
                    self._socket.recv(1)
            except BlockingIOError:
                return count
            count += 1

    def close(self) -> None:
        self._socket.close()
