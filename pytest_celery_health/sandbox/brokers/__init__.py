"""The brokers that a sandbox can start, one file each. Nothing here is imported before a sandbox starts."""

from __future__ import annotations

import importlib
import os
import signal
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

#: By name. When none is named, the first available of _BY_DEFAULT is taken.
NAMES = ("valkey", "redis-server", "fakeredis", "rabbitmq-server", "memory")
_BY_DEFAULT = NAMES[:3]


@dataclass(frozen=True)
class Launch:
    """A broker about to be started as a child process on 127.0.0.1.

    url: what its clients use, password included. result: the same for results.
    options: transport options that its clients do better with.
    stop: the signal that ends it in time.
    kept: folders in which it would find again what it held.
    env: variables on top of a minimal environment.
    """

    argv: tuple[str, ...]
    url: str = field(repr=False)
    result: str = field(repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stop: int = signal.SIGTERM
    kept: tuple[Path, ...] = ()


class Broker(Protocol):
    """What each file of this package defines, as a module."""

    #: URL of a broker that needs no process; "" for the others.
    LOCAL: str

    def available(self) -> str:
        """Why this broker cannot be started here, with the remedy; "" if it can."""
        ...

    def launch(self, folder: Path, password: str) -> Launch:
        """Write its files into `folder` (private) and choose ports. Starts nothing."""
        ...

    def answers(self, launch: Launch) -> str:
        """Name and version once this very broker, and no other on its port, answers; "" until then."""
        ...

    def port_was_taken(self, log: str) -> bool:
        """Whether it ended because another process took its port."""
        ...


class UnavailableError(Exception):
    """No such broker, or not on this machine."""


def choose(name: str) -> tuple[str, Broker]:
    """The broker called `name`, or the best at hand for "".

    Raises UnavailableError, whose message says what was missing and what would do.
    """
    reasons = []
    for each in (name,) if name else _BY_DEFAULT:
        if each not in NAMES:
            raise UnavailableError(f"{each!r} is no broker of the sandbox; there are {', '.join(NAMES)}")
        broker = cast(Broker, importlib.import_module(f"{__name__}.{each.replace('-', '_')}"))
        reason = broker.available()
        if not reason:
            return each, broker
        reasons.append(f"{each}: {reason}")
    raise UnavailableError("no broker can be started here (" + "; ".join(reasons) + ")")


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago; who uses it must expect to lose the race for it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def converse(port: int, say: bytes, enough: bytes, within: float = 0.5) -> bytes:
    """What a server on 127.0.0.1 replies to `say`, until `enough` is in it; b"" if nobody is there."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=within) as connection:
            connection.sendall(say)
            heard = b""
            while enough not in heard:
                part = connection.recv(4096)
                if not part:
                    break
                heard += part
            return heard
    except OSError:
        return b""
