"""A connection of our own: the app's options, our bounds. Never the app's pool."""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from kombu.connection import Connection

from pytest_celery_health.durations import spell
from pytest_celery_health.masking import mask, masked_url, secrets_in
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.observe.target import Target

#: Seconds that a connection may spend on looking what an unknown server says.
_EVIDENCE = 0.25
_CLOSED = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, EOFError)
_CLOSED_WORDS = re.compile(r"closed (the )?connection|connection closed|reset by peer|broken pipe", re.I)


class UnreachableError(Exception):
    """No broker of the target could be reached. The message says why, passwords masked."""


class Link:
    """The look's connection, how to explain its troubles, and how to cut it from another thread."""

    def __init__(self, target: Target, deadline: Deadline) -> None:
        self.target = target
        self.deadline = deadline
        self.secrets = secrets_in(target.url, target.options, target.ssl)
        self.name = masked_url(target.url)
        self._cut = False
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
            try:
                # Not connect(): it retries by a rule of its own.
                self.connection.default_channel  # noqa: B018
            except Exception as trouble:  # noqa: BLE001 - drivers raise what they like
                troubles.append(self.explain(trouble, opening=True))
                if self.deadline.passed or self._cut:
                    break
            else:
                return self.connection
        raise UnreachableError("; ".join(troubles))

    @property
    def can_broadcast(self) -> bool:
        """Whether the transport has remote control. Asks its library, not the broker."""
        return bool(self.connection.supports_exchange_type("fanout"))

    def explain(self, trouble: BaseException, *, opening: bool = False) -> str:
        """What `trouble` means for a reader, passwords masked."""
        if self._cut:
            # What was raised is only that we shut the socket.
            return f"{self.name} did not answer within {spell(self.deadline.seconds)}"
        waited = spell(self.deadline.seconds if self._alone else round(self._seconds, 1) or self._seconds)
        text = _explain(trouble, waited, opening=opening) or self._evidence(trouble, opening=opening)
        text = text or f"failed: {_plain(trouble)}"
        if any(isinstance(each, socket.gaierror) for each in _chain(trouble)):
            return f"host {mask(str(self.connection.hostname), self.secrets)} does not resolve ({self.name})"
        return f"{self.name} {mask(text, self.secrets)}"

    def close(self) -> None:
        """Closes it, without waiting for anything that is left unsaid."""
        with suppress(Exception):
            self.connection.release()

    def cut(self) -> None:
        """Shuts the sockets, so that whoever waits on them in another thread stops waiting."""
        self._cut = True
        with suppress(Exception):
            channel: Any = self.connection._default_channel  # the public name would connect
            for pool in (channel.pool, channel.client.connection_pool):
                pool.disconnect()
        with suppress(Exception):
            driver: Any = self.connection._connection
            driver.transport.sock.shutdown(socket.SHUT_RDWR)

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
            text = _explain(trouble, "", opening=True) or f"is not a broker's URL: {_plain(trouble)}"
            raise UnreachableError(f"{self.name} {mask(text, self.secrets)}") from None

    def _urls(self) -> list[str]:
        """What to try one after the other. Sentinels are asked together, by redis-py."""
        every = [str(url) for url in self.connection.alt] or [self.target.url]
        return every[:1] if every[0].startswith("sentinel:") else every

    def _bound(self, seconds: float) -> None:
        self._seconds = seconds
        self.connection.connect_timeout = seconds
        self.connection.transport_options = {**self.target.options, **self._bounds(seconds)}

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
        elif kind == "memory":
            bounds["polling_interval"] = min(0.01, self.target.options.get("polling_interval", 0.01))
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
        if not opening or not any(_hung_up(each) or _odd_frame(each) for each in _chain(trouble)):
            return ""
        if not self.target.ssl and self.connection.transport.driver_type == "amqp":
            said = self._first_bytes(min(_EVIDENCE, self.deadline.left()))
            spoke_first = any(getattr(each, "errno", 0) == errno.EINVAL for each in _chain(trouble))
            if said and (spoke_first or not said.startswith((b"AMQP", b"\x01"))):
                return f"speaks another protocol (answered {_line(said)!r})"
        if any(_odd_frame(each) for each in _chain(trouble)):
            return "speaks another protocol"
        return "accepted the connection and closed it (does it want TLS, or is it another kind of server?)"

    def _first_bytes(self, seconds: float) -> bytes:
        place = (self.connection.hostname or "localhost", int(self.connection.port or 5672))
        with suppress(OSError), socket.create_connection(place, timeout=seconds) as probe:
            probe.settimeout(seconds)
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(64)
        return b""


def _chain(trouble: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while trouble is not None and id(trouble) not in seen:
        seen.add(id(trouble))
        yield trouble
        trouble = trouble.__cause__ or trouble.__context__


def _explain(trouble: BaseException, waited: str, *, opening: bool) -> str:
    """The trouble in words, "" when there is no better word than its own."""
    for each in _chain(trouble):
        said = _one(each, waited, opening=opening)
        if said:
            return said
    return ""


def _one(trouble: BaseException, waited: str, *, opening: bool) -> str:
    name, text = type(trouble).__name__, str(trouble)
    if isinstance(trouble, ConnectionRefusedError):
        return "refused the connection"
    if isinstance(trouble, socket.gaierror):
        return "has a host that does not resolve"
    if isinstance(trouble, ssl.SSLCertVerificationError):
        return f"shows a certificate that is not trusted ({trouble.verify_message or text})"
    if isinstance(trouble, ssl.SSLError) and not isinstance(trouble, TimeoutError):
        reason = trouble.reason or text
        return f"does not speak TLS ({reason})" if "WRONG_VERSION" in text else f"refused TLS ({reason})"
    if isinstance(trouble, TimeoutError):
        return _timeout(trouble, waited, opening=opening)
    if isinstance(trouble, (FileNotFoundError, PermissionError)):
        return f"cannot be opened ({trouble.strerror})"
    if isinstance(trouble, OSError) and trouble.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"cannot be reached ({trouble.strerror})"
    if isinstance(trouble, ImportError):
        return f"needs a library that is not installed ({text})"
    known = _SAID.get(name)
    if known is not None:
        return str(known(text) if callable(known) else known.format(text=text))
    if name in ("ResponseError", "ValueError", "KeyError", "OperationalError"):
        for sign, meaning in _WORDS.items():
            if sign in text:
                return meaning.format(text=text.strip("'\""))
    if not opening and (isinstance(trouble, _CLOSED) or _CLOSED_WORDS.search(text)):
        return "closed the connection"
    return ""


def _protocol(text: str) -> str:
    answer = re.search(r"b(['\"])(.*)\1", text, re.S)
    return f"speaks another protocol (answered {(answer.group(2) if answer else text)[:60]!r})"


_SAID: Mapping[str, Any] = {
    "AuthenticationError": "rejected the password",
    "AuthenticationWrongNumberOfArgsError": "rejected the password",
    "AccessRefused": "rejected the password",
    "NotAllowed": lambda text: _vhost(text),
    "NoPermissionError": "does not permit it ({text})",
    "BusyLoadingError": "is still loading its data",
    "InvalidResponse": _protocol,
    "MasterNotFoundError": lambda text: _master(text),
    "SlaveNotFoundError": lambda text: _master(text),
    "ReadOnlyError": "is a read-only replica",
}
_WORDS: Mapping[str, str] = {
    "NOAUTH": "wants a password",
    "Authentication required": "wants a password",
    "WRONGPASS": "rejected the password",
    "invalid username-password": "rejected the password",
    "DB index is out of range": "has no such database (DB index is out of range)",
    "Database is int between": "names no database ({text})",
    "unknown command 'SENTINEL'": "is not a sentinel",
    "No such transport": "is of no transport that kombu knows ({text})",
    "'master_name'": "needs master_name in broker_transport_options",
    "NOPERM": "does not permit it ({text})",
}


def _vhost(text: str) -> str:
    found = re.search(r"vhost '?([^\s']+)'? not found", text)
    return f"has no vhost {found.group(1)!r}" if found else f"refused the vhost ({text.split(' - ')[-1]})"


def _master(text: str) -> str:
    found = re.search(r"'([^']*)'", text)
    # What follows is a repr of clients: addresses and reasons, but also arguments.
    reasons = sorted(set(re.findall(r"(?:refused|Timeout|[Nn]ame or service not known|no master)", text)))
    because = f" ({', '.join(reasons).lower()})" if reasons else ""
    return f"gave no master {found.group(1) if found else ''!r}{because}"


def _timeout(trouble: BaseException, waited: str, *, opening: bool) -> str:
    if not opening:
        return f"stopped answering ({waited})"
    frames = set()
    for each in _chain(trouble):
        at = each.__traceback__
        while at is not None:
            frames.add(at.tb_frame.f_code.co_name)
            at = at.tb_next
    if "do_handshake" in frames:
        return f"never answered the TLS handshake ({waited}): is it a plain port?"
    if "_connect" in frames:
        return f"did not accept the connection within {waited}"
    return f"accepted the connection and never answered ({waited})"


def _hung_up(trouble: BaseException) -> bool:
    # EINVAL: the server had closed the socket, or spoken first, when py-amqp set the socket's options.
    if isinstance(trouble, OSError) and trouble.errno == errno.EINVAL:
        return True
    return isinstance(trouble, _CLOSED) or bool(_CLOSED_WORDS.search(str(trouble)))


def _odd_frame(trouble: BaseException) -> bool:
    return type(trouble).__name__ in ("UnexpectedFrame", "FrameSyntaxError") or "0xCE" in str(trouble)


def _line(said: bytes) -> str:
    return said.splitlines()[0].decode("latin-1")[:60] if said.splitlines() else ""


def _plain(trouble: BaseException) -> str:
    text = " ".join(str(trouble).split())
    return f"{type(trouble).__name__}: {text[:300]}" if text else type(trouble).__name__
