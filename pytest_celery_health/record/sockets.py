"""No connection leaves this machine while somebody records: it is refused at once, and told."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from weakref import WeakSet

from pytest_celery_health.record.recording import Request
from pytest_celery_health.record.tap import Tap

_ALL = ("localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback")
_CHECKED = ("connect", "connect_ex", "sendto")


class Refused(ConnectionRefusedError):
    """Nobody was asked: the host is not on this machine."""

    def __init__(self, host: str, port: object) -> None:
        self.host = host
        place = f"{host}:{port}" if port else host
        super().__init__(
            errno.ECONNREFUSED,
            f"refused: {place} is not on this machine, and nothing in this test answers for it",
        )


def _install(tap: Tap) -> None:
    for name in _CHECKED:
        tap.patch(socket.socket, name, _checked)
    for name in ("getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        tap.patch(socket, name, _looked_up)


TAP = Tap(_install)
#: Hosts of requests under way, whose own record tells of the refusal.
under_way: list[str] = []
_allowed: list[str] = []
_resolved: set[str] = set()


@contextmanager
def allowing(endpoint: str) -> Iterator[None]:
    """Connections to "host:port" ("host:*" for any port) leave the machine.

    Raises ValueError for an endpoint of another form.
    """
    host, _, port = endpoint.rpartition(":")
    if not host or not (port == "*" or port.isdecimal()):
        raise ValueError(f"{endpoint!r} is not an endpoint; write host:port, such as 'db.internal:5432'")
    endpoint = f"{host.strip('[]').lower()}:{port}"
    _allowed.append(endpoint)
    try:
        yield
    finally:
        _allowed.remove(endpoint)


def is_local(host: str) -> bool:
    name = host.partition("%")[0].rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name in ("", *_ALL, socket.gethostname().lower()) or name.endswith(".localhost")
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback or address.is_unspecified


def _permitted(host: str, port: object) -> bool:
    if is_local(host) or host in _resolved:
        return True
    return any(f"{host.lower()}:{each}" in _allowed for each in (port, "*"))


def _named(host: str) -> bool:
    return any(each.startswith(f"{host.lower()}:") for each in _allowed)


def _checked(method: Callable[..., Any]) -> Callable[..., Any]:
    def checked(sock: socket.socket, *args: Any) -> Any:
        address = args[-1] if args else None
        if TAP.is_held and isinstance(address, tuple) and len(address) > 1:
            host, port = _text(address[0]), address[1]
            if not _permitted(host, port):
                refuse(host, port)
        result = method(sock, *args)
        _bound(sock)
        return result

    return checked


def _looked_up(function: Callable[..., Any]) -> Callable[..., Any]:
    def looked_up(host: Any, port: Any = None, *args: Any, **named: Any) -> Any:
        name = _text(host or "")
        if TAP.is_held and not (_permitted(name, port) or (port is None and _named(name))):
            refuse(name, port)
        found = function(host, *(() if port is None and not args else (port, *args)), **named)
        if name and not is_local(name) and isinstance(found, list):
            _resolved.update(str(each[4][0]) for each in found)
        return found

    return looked_up


def refuse(host: str, port: object) -> NoReturn:
    """Raises Refused, and notes it unless a request that is under way will."""
    error = Refused(host, port)
    if host.lower() not in under_way:
        place = f"[{host}]" if ":" in host else host
        TAP.emit(Request("", f"tcp://{place}:{port or 0}", error="refused", **TAP.where()))
    raise error


def refusal_in(error: BaseException | None) -> Refused | None:
    """The refusal that led to `error`."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, Refused):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if not isinstance(error, BaseException):
            return None
    return None


def _text(host: Any) -> str:
    return host.decode("ascii", "replace") if isinstance(host, (bytes, bytearray)) else str(host)


_connected: WeakSet[socket.socket] = WeakSet()
_patience: list[float] = []


def _bound(sock: socket.socket) -> None:
    if _patience and sock.family in (socket.AF_INET, socket.AF_INET6) and sock.gettimeout() is None:
        _connected.add(sock)
        sock.settimeout(_patience[-1])


def _bounds(tap: Tap) -> None:
    tap.patch(socket.socket, "settimeout", _bounded)


BOUNDS = Tap(_bounds)


def _bounded(method: Callable[..., None]) -> Callable[..., None]:
    def settimeout(sock: socket.socket, value: float | None) -> None:
        if value is None and _patience and sock in _connected:
            value = _patience[-1]
        method(sock, value)

    return settimeout


@contextmanager
def bounded(seconds: float) -> Iterator[None]:
    """A socket that connects meanwhile, and has no timeout, gets one: nobody waits for ever."""
    _patience.append(seconds)
    try:
        with BOUNDS.held():
            yield
    finally:
        _patience.pop()
