"""Servers of a rigged worker listen on ports of their own: what the code names may be taken here."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any


def listen_elsewhere(ports: Mapping[int, int]) -> None:
    """Have this process, and those that it forks, listen on other ports than their code says.

    Several that want one port still contend for one.
    """
    bind = socket.socket.bind

    def bound(self: socket.socket, address: Any) -> None:
        if isinstance(address, tuple) and len(address) > 1 and address[1] in ports:
            address = (address[0], ports[address[1]], *address[2:])
        bind(self, address)

    socket.socket.bind = bound  # type: ignore[method-assign,assignment]
