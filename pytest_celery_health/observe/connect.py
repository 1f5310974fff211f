"""A connection of our own: the app's options, our bounds. Never the app's pool."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from typing import Any

from kombu.connection import Connection

from pytest_celery_health.durations import spell
from pytest_celery_health.masking import mask, masked_url, secrets_in
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.sockets import GREETING_LIMIT, LIMIT, Sockets, megabytes
from pytest_celery_health.observe.target import Target
from pytest_celery_health.observe.trouble import (
    baffled,
    hung_up,
    odd_frame,
    other_protocol,
    phrase,
    plain,
    spoke_first,
    still_at,
    unresolved,
)

#: Seconds that a connection may spend on looking what an unknown server says.
_EVIDENCE = 0.25
#: Bytes that are worth telling where no answer came.
_TELLING = 100_000


class UnreachableError(Exception):
    """No broker of the target could be reached. The message says why, passwords masked."""


class Link:
    """The look's connection, how to explain its troubles, and how to cut it from another thread."""

    def __init__(self, target: Target, deadline: Deadline) -> None:
        self.target = target
        self.deadline = deadline
        self.secrets = secrets_in(target.url, target.options, target.ssl)
        self.name = masked_url(target.url)
        #: Why nothing was heard, once the connection has been cut.
        self.late = ""
        #: Whether a broker is being connected to: nothing has been asked of it, and nothing is to be tidied.
        self.opening = False
        self.sockets = Sockets()
        self._thread = threading.get_ident()
        self._alone = True
        self.connection: Connection = self._make()

    def open(self) -> Connection:
        """Connects to the first broker that lets us. Raises UnreachableError."""
        urls = self._urls()
        self._alone = len(urls) == 1
        troubles = []
        for place, url in enumerate(urls):
            if place:
                self.connection.switch(url)
            left = self.deadline.left()
            # A little less, so that the driver's own word for it still comes within the deadline.
            self._bound((left - min(0.1, left / 10)) / (len(urls) - place))
            self.name = masked_url(self.target.url if self._alone else url)
            self._name_host()
            self.sockets.allow(GREETING_LIMIT)
            try:
                # Not connect(): it retries by a rule of its own.
                self.opening = True
                self.sockets.tap(self.connection)
                self.connection.default_channel  # noqa: B018
            except Exception as trouble:  # noqa: BLE001 - drivers raise what they like
                troubles.append(self.explain(trouble, opening=True))
                if self.deadline.passed or self.late:
                    break
            else:
                self.opening = False
                self.sockets.allow(LIMIT)
                return self.connection
        raise UnreachableError("; ".join(troubles))

    @property
    def can_broadcast(self) -> bool:
        """Whether the transport has remote control. Asks its library, not the broker."""
        return bool(self.connection.supports_exchange_type("fanout"))

    def explain(self, trouble: BaseException, *, opening: bool = False) -> str:
        """What `trouble` means for a reader, evidence first, passwords masked."""
        if self.late:
            return self.late  # what was raised is only that we shut the socket
        # Of sentinels, redis-py says only that they know no master.
        said = dict.fromkeys(self._said(each, opening) for each in self.sockets.unheard or [trouble])
        return "; ".join(said)

    def _said(self, trouble: BaseException, opening: bool) -> str:
        if unresolved(trouble):
            host = mask(str(self.connection.hostname), self.secrets)
            return f"no such host: {host} does not resolve ({self.name})"
        waited = spell(self.deadline.seconds if self._alone else round(self._seconds, 1) or self._seconds)
        text = phrase(trouble, waited, opening=opening) or self._evidence(trouble, opening=opening)
        return f"{mask(text or f'{plain(trouble)}, on', self.secrets)} {self.name}"

    def close(self) -> None:
        """Closes it, without waiting for anything that is left unsaid."""
        with suppress(Exception):
            self.connection.release()
        self.sockets.close()

    def cut(self) -> None:
        """Shuts the sockets, so that whoever waits on them in another thread stops waiting."""
        waited = spell(self.deadline.seconds)
        doing = still_at(self._thread, waited) if self.opening else ""
        if self.sockets.received > _TELLING:
            doing = f"{megabytes(self.sockets.received)} came within {waited}, and no end of it, from"
        self.late = f"{doing or f'no answer within {waited} from'} {self.name}"
        self.sockets.shut()

    def _make(self) -> Connection:
        if not self.target.url:
            raise UnreachableError("the target has no broker URL")
        options = dict(self.target.options)
        self._seconds = self.deadline.left()
        try:
            return Connection(
                self.target.url,
                ssl=self.target.ssl or False,
                login_method=self.target.login_method,
                connect_timeout=self._seconds,
                transport_options=options,
                heartbeat=0,
            )
        except Exception as trouble:  # noqa: BLE001 - kombu raises what its URL parser raises
            text = phrase(trouble, "", opening=True) or f"no broker's URL ({_refused(trouble)}):"
            raise UnreachableError(f"{mask(text, self.secrets)} {self.name}") from None

    def _urls(self) -> list[str]:
        """What to try one after the other. Sentinels are asked together, by redis-py."""
        every = [str(url) for url in self.connection.alt] or [self.target.url]
        return every[:1] if every[0].startswith("sentinel:") else every

    def _bound(self, seconds: float) -> None:
        self._seconds = seconds
        self.connection.connect_timeout = seconds
        self.connection.transport_options = {**self.target.options, **self._bounds(seconds)}

    def _name_host(self) -> None:
        """Compare the certificate's name with this URL's host.

        kombu writes the first host that it tries into the options, for all that follow, and 127.0.0.1 for
        localhost.
        """
        tls = self.connection.ssl
        if isinstance(tls, dict) and tls.get("server_hostname", "") is None:
            self.connection.ssl = {**tls, "server_hostname": self.connection.hostname or "localhost"}

    def _bounds(self, seconds: float) -> dict[str, Any]:
        try:
            kind = self.connection.transport.driver_type
        except Exception:  # noqa: BLE001 - a transport whose library is missing says so when it is opened
            kind = ""
        bounds: dict[str, Any] = {"max_retries": 0, "connect_retries_timeout": seconds}
        if kind == "amqp":
            bounds.update(read_timeout=seconds, write_timeout=seconds)
        elif kind == "redis":
            bounds.update(
                socket_timeout=seconds,
                socket_connect_timeout=seconds,
                retry_on_timeout=False,
            )
            if "master_name" in self.target.options or str(self.target.url).startswith("sentinel:"):
                bounds["sentinel_kwargs"] = self._sentinel(seconds)
        elif kind in ("memory", "filesystem"):
            bounds["polling_interval"] = min(0.01, self.target.options.get("polling_interval") or 0.01)
            bounds["store_processed"] = False
        return bounds

    def _sentinel(self, seconds: float) -> dict[str, Any]:
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        own = self.target.options.get("sentinel_kwargs") or {}
        # Without this, redis-py tries each sentinel again for four seconds.
        once = Retry(NoBackoff(), 0)
        return {**own, "socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": once}

    def _evidence(self, trouble: BaseException, *, opening: bool) -> str:
        """What a server says that hung up in the handshake: its own words are the best evidence."""
        strange = odd_frame(trouble) or (baffled(trouble) if self.sockets.received else "")
        if not opening or not (strange or hung_up(trouble)):
            return strange
        tls = self.target.ssl
        if tls or self.name.startswith(("amqps:", "rediss:")):
            if self.sockets.received:
                return strange or "connection closed by"
            own = isinstance(tls, dict) and (tls.get("certfile") or tls.get("ssl_certfile"))
            asks = "does it refuse the client certificate" if own else "does it want a client certificate"
            return f"connection closed in the TLS handshake ({asks}?) by"
        if self.connection.transport.driver_type == "amqp":
            said = self._first_bytes(min(_EVIDENCE, self.deadline.left()))
            if said and (spoke_first(trouble) or not said.startswith((b"AMQP", b"\x01"))):
                return other_protocol(said)
        return strange or "connection closed at once (does it want TLS, or is it another kind of server?) by"

    def _first_bytes(self, seconds: float) -> bytes:
        place = (self.connection.hostname or "localhost", int(self.connection.port or 5672))
        with suppress(OSError), socket.create_connection(place, timeout=seconds) as probe:
            probe.settimeout(seconds)
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(64)
        return b""


def _refused(trouble: Exception) -> str:
    """What kombu refused of a URL. What stands behind its `?` are arguments of kombu's own functions."""
    option = re.search(r"argument '(\w+)'", str(trouble)) if isinstance(trouble, TypeError) else None
    return f"kombu takes no {option[1]} behind its ?" if option else plain(trouble)
