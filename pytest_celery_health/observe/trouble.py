"""What a failed connection means for a reader: short phrases, the evidence first, that end before a URL."""

from __future__ import annotations

import errno
import re
import socket
import ssl
import struct
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pytest_celery_health.observe.sockets import FloodError

#: What drivers raise at answers that are none.
BAFFLED = (RecursionError, TypeError, ValueError, AttributeError, LookupError, struct.error)

_CLOSED = (ConnectionResetError, BrokenPipeError, ConnectionAbortedError, EOFError, ssl.SSLEOFError)
_CLOSED_WORDS = re.compile(r"closed (the )?connection|connection closed|reset by peer|broken pipe", re.I)


def phrase(trouble: BaseException, waited: str, *, opening: bool) -> str:
    """The trouble in words that go on with a URL ("connection refused by"); "" if there are none but its own.

    waited: how long was waited, in words.
    """
    for each in chain(trouble):
        said = _one(each, waited, opening=opening)
        if said:
            return said
    return ""


def still_at(thread: int, waited: str) -> str:
    """What that thread waits for in `Link.open` at this moment, in words that go on with a URL."""
    at = sys._current_frames().get(thread)
    functions: set[str] = set()
    while at is not None and at.f_code.co_name != "open":
        functions.add(at.f_code.co_name)
        at = at.f_back
    return _waiting(functions, waited)


def chain(trouble: BaseException | None) -> Iterator[BaseException]:
    """The trouble, and what led to it."""
    seen: set[int] = set()
    while trouble is not None and id(trouble) not in seen:
        seen.add(id(trouble))
        yield trouble
        trouble = trouble.__cause__ or trouble.__context__


def plain(trouble: BaseException) -> str:
    """The trouble's own words."""
    text = " ".join(str(trouble).split())
    return f"{type(trouble).__name__}: {text[:300]}" if text else type(trouble).__name__


def unresolved(trouble: BaseException) -> bool:
    """Whether a host's name does not resolve."""
    return any(isinstance(each, socket.gaierror) for each in chain(trouble))


def hung_up(trouble: BaseException) -> bool:
    """Whether the server closed the connection."""
    return any(_hung_up(each) for each in chain(trouble))


def spoke_first(trouble: BaseException) -> bool:
    """Whether the server had closed the socket, or spoken, before py-amqp set the socket's options."""
    return any(getattr(each, "errno", 0) == errno.EINVAL for each in chain(trouble))


def odd_frame(trouble: BaseException) -> str:
    """In words that what came was no AMQP."""
    for each in chain(trouble):
        if type(each).__name__ in ("UnexpectedFrame", "FrameSyntaxError") or "0xCE" in str(each):
            return f"another protocol spoken ({plain(each)}) by"
    return ""


def baffled(trouble: BaseException) -> str:
    """In words that a driver failed at what it read: it takes for granted that its protocol is spoken."""
    return "another protocol spoken (its answers make no sense) by" if isinstance(trouble, BAFFLED) else ""


def other_protocol(said: bytes) -> str:
    """What a server is that began so."""
    if said.startswith((b"\x15\x03", b"\x16\x03")):
        return "TLS wanted by"
    line = said.splitlines()[0].decode("latin-1")[:60] if said.splitlines() else ""
    return f"another protocol spoken (answered {line!r}) by"


def _one(trouble: BaseException, waited: str, *, opening: bool) -> str:
    name, text = type(trouble).__name__, str(trouble)
    if isinstance(trouble, FloodError):
        return f"{text}, from"
    if isinstance(trouble, ConnectionRefusedError):
        return "connection refused by"
    if isinstance(trouble, ssl.SSLCertVerificationError):
        return f"certificate not trusted ({(trouble.verify_message or text).rstrip('.')}) of"
    if isinstance(trouble, ssl.SSLError) and not isinstance(trouble, (TimeoutError, ssl.SSLEOFError)):
        return _tls(trouble)
    if isinstance(trouble, TimeoutError):
        return _timeout(trouble, waited, opening=opening)
    if isinstance(trouble, (FileNotFoundError, PermissionError)):
        where = f" {trouble.filename}," if trouble.filename else ""
        return f"{trouble.strerror}:{where}"
    if isinstance(trouble, OSError) and trouble.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH):
        return f"{trouble.strerror}:"
    if isinstance(trouble, ImportError):
        return f"a library is not installed ({text}) for"
    known = _SAID.get(name)
    if known is not None:
        return str(known(text) if callable(known) else known.format(text=text))
    if name in ("ResponseError", "ValueError", "KeyError", "OperationalError"):
        for sign, meaning in _WORDS.items():
            if sign in text:
                return meaning.format(text=text.strip("'\""))
    if not opening and _hung_up(trouble):
        return "connection closed by"
    return ""


def _tls(trouble: ssl.SSLError) -> str:
    reason = trouble.reason or str(trouble)
    if "WRONG_VERSION" in reason or "WRONG_VERSION" in str(trouble):
        return f"no TLS spoken ({reason}) by"
    if reason == "KEY_VALUES_MISMATCH":
        return "key and cert do not belong together, for"
    if reason in ("NO_CERTIFICATE_OR_CRL_FOUND", "NO_START_LINE", "PEM_LIB", "PEM lib"):
        return f"a file of ca, cert or key holds none ({reason}), for"
    if "CERTIFICATE_REQUIRED" in reason:
        return "client certificate wanted by"
    if "ALERT" in reason and ("CERTIFICATE" in reason or "UNKNOWN_CA" in reason):
        return f"client certificate refused ({reason}) by"
    return f"TLS refused ({reason}) by"


def _protocol(text: str) -> str:
    answer = re.search(r"b(['\"])(.*)\1", text, re.S)
    return f"another protocol spoken (answered {(answer.group(2) if answer else text)[:60]!r}) by"


_SAID: Mapping[str, Any] = {
    "AuthenticationError": "password rejected by",
    "AuthenticationWrongNumberOfArgsError": "password rejected by",
    "AccessRefused": "password rejected by",
    "NotAllowed": lambda text: _vhost(text),
    "NoPermissionError": "not permitted ({text}) by",
    "BusyLoadingError": "data still being loaded by",
    "InvalidResponse": _protocol,
    "MasterNotFoundError": lambda text: _master(text),
    "SlaveNotFoundError": lambda text: _master(text),
    "ReadOnlyError": "read-only replica:",
}
_WORDS: Mapping[str, str] = {
    "NOAUTH": "password wanted by",
    "Authentication required": "password wanted by",
    "WRONGPASS": "password rejected by",
    "invalid username-password": "password rejected by",
    "DB index is out of range": "no such database (DB index is out of range) on",
    "Database is int between": "no database's number ({text}) in",
    "unknown command 'SENTINEL'": "no sentinel:",
    "No such transport": "no transport that kombu knows ({text}):",
    "'master_name'": "no master_name in broker_transport_options for",
    "NOPERM": "not permitted ({text}) by",
    "Bad response from PING": "another protocol spoken ({text}) by",
    "Invalid Database": "another protocol spoken ({text}) by",
}


def _vhost(text: str) -> str:
    found = re.search(r"vhost '?([^\s']+)'? not found", text)
    return f"no vhost {found.group(1)!r} on" if found else f"vhost refused ({text.split(' - ')[-1]}) by"


def _master(text: str) -> str:
    found = re.search(r"'([^']*)'", text)
    # What follows is a repr of clients: addresses and reasons, but also arguments.
    reasons = sorted(set(re.findall(r"(?:refused|Timeout|[Nn]ame or service not known|no master)", text)))
    because = f" ({', '.join(reasons).lower()})" if reasons else ""
    return f"no master {found.group(1) if found else ''!r}{because} known to"


def _timeout(trouble: BaseException, waited: str, *, opening: bool) -> str:
    if not opening:
        return f"no more answers ({waited}) from"
    functions = set()
    for each in chain(trouble):
        at = each.__traceback__
        while at is not None:
            functions.add(at.tb_frame.f_code.co_name)
            at = at.tb_next
    return _waiting(functions, waited) or f"no answer ({waited}), though the connection was accepted, from"


def _waiting(functions: set[str], waited: str) -> str:
    """What was waited for in these functions of a driver, while it connected."""
    if "do_handshake" in functions:
        return f"no TLS handshake ({waited}; is it a plain port?) from"
    # redis-py reads certificates between the two.
    connecting = "_connect" in functions and "_wrap_socket_with_ssl" not in functions
    return f"no connection ({waited}) to" if connecting else ""


def _hung_up(trouble: BaseException) -> bool:
    # EINVAL: see spoke_first().
    if isinstance(trouble, OSError) and trouble.errno == errno.EINVAL:
        return True
    return isinstance(trouble, _CLOSED) or bool(_CLOSED_WORDS.search(str(trouble)))
