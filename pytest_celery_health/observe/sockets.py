"""The sockets that a look opens to one server: what comes through them is counted and bounded, and another
thread can shut them.

redis-py and py-amqp read for as long as a reply goes on. They bound each wait, not what comes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from pytest_celery_health.observe.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Sized

T = TypeVar("T", bound="int | Sized")

#: Bytes that a server may send before it has let us in, and in the whole of a look.
GREETING_LIMIT = 1_000_000
LIMIT = 256_000_000
#: Bytes of one AMQP frame. RabbitMQ sends at most 131,072 unless it is told otherwise.
FRAME_LIMIT = 16_000_000

#: Seconds that are left once the sockets were shut: whoever connects then only tidies up.
_TIDIES = 0.5


class FloodError(OSError):
    """More came than any answer needs."""

    def __init__(self, came: int) -> None:
        super().__init__(f"{megabytes(came)} came, and no end of it: no broker's answer")


def megabytes(count: int) -> str:
    """So many bytes, in words."""
    return f"{count / 1e6:,.1f}".removesuffix(".0") + " MB"


class Sockets:
    """received: bytes that came through all of them, without TLS's framing.
    unheard: what each sentinel failed with, unless one of them answered.
    """

    def __init__(self) -> None:
        self.received = 0
        self.unheard: list[BaseException] = []
        self.allow(LIMIT)
        self._open: list[Any] = []
        self._pollers: list[Any] = []
        self._heard = False
        self._until: float | None = None

    def allow(self, count: int) -> None:
        """Let so many bytes come from now on."""
        self._before, self._limit = self.received, self.received + count

    def tap(self, connection: Any) -> None:
        """Have all that this kombu connection opens from now on, until it is switched, be one of these."""
        transport = connection.transport
        if transport.driver_type == "redis":
            transport.sockets = self
            self._pollers.append(transport.cycle.poller)
            transport.Channel = _tapped(transport.Channel)
        elif transport.driver_name == "py-amqp":
            transport.Connection = partial(self._amqp, transport.Connection)

    def tap_pool(self, pool: Any) -> None:
        """The same for a connection pool of redis-py, and for those of its sentinels."""
        pool.make_connection = partial(self._redis, pool.make_connection)
        for sentinel in getattr(getattr(pool, "sentinel_manager", None), "sentinels", ()):
            self.tap_pool(sentinel.connection_pool)
            sentinel.sentinel_masters = partial(self._heard_from, sentinel.sentinel_masters)

    def shut(self) -> None:
        """Whoever waits on them in another thread stops waiting. It may connect anew, for a moment."""
        self._until = monotonic() + _TIDIES
        self._limit = -1  # so that every read looks at the clock
        for each in tuple(self._open):
            with suppress(OSError):
                # A TLS socket's own would also drop what another thread reads with.
                socket.socket.shutdown(each, socket.SHUT_RDWR)

    def close(self) -> None:
        """Nothing is read any more."""
        # kombu leaves its pollers to the garbage collector.
        for each in (*self._open, *self._pollers):
            each.close()
        self._open.clear()
        self._pollers.clear()

    def _redis(self, make: Callable[[], Any]) -> Any:
        connection = make()

        def counted(connect: Callable[[], socket.socket]) -> _Counted:
            sock = connect()
            self._opened(sock)
            return _Counted(sock, self)

        _around(connection, "_connect", counted)
        return connection

    def _heard_from(self, ask: Callable[[], T]) -> T:
        try:
            found = ask()
        except Exception as trouble:
            if not self._heard:
                self.unheard.append(trouble)
            raise
        self._heard = True
        self.unheard.clear()
        return found

    def _amqp(self, make: Callable[..., Any], **options: Any) -> Any:
        connection = make(**options)
        connection.Transport = partial(self._amqp_transport, connection.Transport)
        return connection

    def _amqp_transport(self, make: Callable[..., Any], *args: Any, **options: Any) -> Any:
        transport = make(*args, **options)

        def counted(set_up: Callable[[], None]) -> None:
            set_up()
            self._opened(transport.sock)
            transport._quick_recv = self._in_frames(transport._quick_recv)

        _around(transport, "_setup_transport", counted)
        return transport

    def _opened(self, sock: Any) -> None:
        if self._until is not None:
            sock.settimeout(_TIDIES)
        self._open.append(sock)

    def counted(self, read: Callable[..., T]) -> Callable[..., T]:
        """`read`, which returns bytes or their number, counted. Raises FloodError."""

        def reading(*args: Any) -> T:
            found = read(*args)
            self.received += found if isinstance(found, int) else len(found)
            if self.received > self._limit:
                self._stop()
            return found

        return reading

    def _in_frames(self, read: Callable[[int], bytes]) -> Callable[[int], bytes]:
        """The same for py-amqp, which believes any length of a frame. Raises UnexpectedFrame too."""

        def reading(size: int) -> bytes:
            if size > FRAME_LIMIT:
                from amqp.exceptions import UnexpectedFrame

                raise UnexpectedFrame(f"a frame of {megabytes(size)}")
            found = read(size)
            self.received += len(found)
            if self.received > self._limit:
                self._stop()
            return found

        return reading

    def _stop(self) -> None:
        if self._until is None:
            raise FloodError(self._limit - self._before)
        if monotonic() > self._until:
            raise TimeoutError("the look is over")


def _around(owner: Any, name: str, wrapper: Callable[[Callable[[], Any]], Any]) -> None:
    """Have `wrapper` be called with the method in its place. A driver to come that has no such private method
    is read without a bound, which is better than not at all."""
    method = getattr(owner, name, None)
    if method is not None:
        setattr(owner, name, partial(wrapper, method))


@lru_cache
def _tapped(channel: Any) -> Any:
    """kombu's kind of channel for Redis, but with every pool that it makes tapped."""

    def _get_pool(self: Any, *args: Any, **kwargs: Any) -> Any:
        pool = channel._get_pool(self, *args, **kwargs)
        self.connection.sockets.tap_pool(pool)
        return pool

    return type(channel.__name__, (channel,), {"_get_pool": _get_pool})


class _Counted:
    """A socket for redis-py."""

    def __init__(self, sock: socket.socket, sockets: Sockets) -> None:
        self._sock = sock
        self.recv = sockets.counted(sock.recv)
        self.recv_into = sockets.counted(sock.recv_into)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
