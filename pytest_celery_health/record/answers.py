"""Answers to outgoing HTTP requests, given in this process: no connection is opened.

For http.client and whatever stands on it (urllib, logging's HTTPHandler, urllib3, requests), and for httpx.
"""

from __future__ import annotations

import functools
import io
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection, responses
from typing import Any

from pytest_celery_health.hosts import same_host
from pytest_celery_health.record import http
from pytest_celery_health.record.tap import Tap


@dataclass(frozen=True)
class Late:
    """An answer that comes after some seconds."""

    seconds: float
    answer: int | tuple[int, str] | str = 200


#: A status, or a status and a body, late or not; or that the server "refuses" the connection, or "hangs" for
#: ever.
Answer = int | tuple[int, str] | str | Late
REFUSES = "refuses"
HANGS = "hangs"
#: Other hosts than those named.
OTHERS = "*"

_JSON = "{}"
_Answering = Callable[[str, int | None], Answer | None]
_Waiting = Callable[[str, float | None], None]
_scripts: list[_Answering] = []
_waitings: list[_Waiting] = []
_async_waitings: list[_Waiting] = []


def check(answers: Mapping[str, Any]) -> dict[str, Answer]:
    """`answers` by host. Raises ValueError for what is no answer."""
    for host, answer in answers.items():
        status = answer[0] if isinstance(answer, (tuple, list)) and len(answer) == 2 else answer
        if answer in (REFUSES, HANGS):
            continue
        if not isinstance(status, int) or isinstance(status, bool) or not 100 <= status <= 599:
            raise ValueError(
                f"{answer!r} is no answer of {host}; write a status such as 500, a pair (200, body),"
                f" {REFUSES!r} or {HANGS!r}"
            )
    return dict(answers)


def answer_of(answers: Mapping[str, Answer], host: str) -> Answer:
    """What `host` answers: its own entry, or the nearest domain's, or that of `OTHERS`, else 200."""
    named = sorted((name for name in answers if same_host(host, name)), key=len)
    return answers[named[-1]] if named else answers.get(OTHERS, 200)


@contextmanager
def answering(script: _Answering) -> Iterator[None]:
    """Have `script(host, port)` answer; None lets a request go its own way."""
    _scripts.append(script)
    try:
        with TAP.held():
            yield
    finally:
        _scripts.remove(script)


@contextmanager
def waiting(wait: _Waiting, *, also_async: bool = False) -> Iterator[None]:
    """Have `wait(host, seconds)` called where a client would wait so long for a server that hangs; None is
    for ever. An async client waits all the same, or if `also_async` for `wait` in another thread."""
    _waitings.append(wait)
    if also_async:
        _async_waitings.append(wait)
    try:
        yield
    finally:
        _waitings.remove(wait)
        if also_async:
            _async_waitings.remove(wait)


def _wait(host: str, seconds: float | None) -> None:
    if not _waitings:
        threading.Event().wait(seconds)
    for wait in list(_waitings):
        wait(host, seconds)


async def _wait_async(host: str, seconds: float | None) -> None:
    import anyio  # type: ignore[import-not-found,unused-ignore]  # httpx needs it for whatever is async
    import anyio.to_thread  # type: ignore[import-not-found,unused-ignore]

    if not _async_waitings:
        await anyio.sleep(float("inf") if seconds is None else seconds)
    for wait in list(_async_waitings):
        await anyio.to_thread.run_sync(wait, host, seconds, abandon_on_cancel=True)


def _late(answer: Answer, timeout: float | None) -> tuple[Answer, float | None]:
    """What a client gets that waits so long, None for ever, and after how many seconds."""
    if isinstance(answer, Late):
        if timeout is None or answer.seconds < timeout:
            return answer.answer, answer.seconds
        return HANGS, timeout
    return answer, timeout if answer == HANGS else 0.0


def _install(tap: Tap) -> None:
    tap.patch(HTTPConnection, "connect", _connect)
    tap.patch(HTTPSConnection, "connect", _connect)
    tap.change("import", functools.partial(http.watch_imports, tap, _install))
    loaded: Mapping[str, Any] = sys.modules
    # Of a module that is being imported, half is missing.
    with suppress(KeyError, AttributeError):
        tap.patch(loaded["urllib3.connection"].HTTPConnection, "connect", _connect)
        tap.patch(loaded["urllib3.connection"].HTTPSConnection, "connect", _connect)
    with suppress(KeyError, AttributeError):
        tap.patch(loaded["httpx"].HTTPTransport, "handle_request", _handle)
        tap.patch(loaded["httpx"].AsyncHTTPTransport, "handle_async_request", _handle_async)


TAP = Tap(_install)


def _answer(host: str, port: int | None) -> Answer | None:
    for script in reversed(_scripts):
        found = script(host.lower(), port)
        if found is not None:
            return found
    return None


def _connect(original: Callable[[Any], None]) -> Callable[[Any], None]:
    def connect(connection: Any) -> None:
        host = getattr(connection, "_tunnel_host", None) or connection.host
        answer = _answer(host, getattr(connection, "_tunnel_port", None) or connection.port)
        if answer is None:
            original(connection)
            return
        if answer == REFUSES:
            raise ConnectionRefusedError(f"{host} refuses, as this test has it")
        connection.sock = _Socket(host.lower(), answer, connection.timeout)
        connection.is_verified = True  # or urllib3 warns of a certificate that it did not see

    return connect


class _Socket:
    """Stands for the socket of a server that has its answer ready."""

    def __init__(self, host: str, answer: Answer, timeout: Any) -> None:
        self._host = host
        self._answer = answer
        self._timeout: float | None = None
        self.settimeout(timeout)

    def settimeout(self, timeout: Any) -> None:
        known = timeout is None or isinstance(timeout, (int, float))
        self._timeout = timeout if known else socket.getdefaulttimeout()

    def gettimeout(self) -> float | None:
        return self._timeout

    def sendall(self, data: object) -> None:
        pass

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_Reply(self._host, self._answer, self._timeout))

    def setsockopt(self, *_: object) -> None:
        pass

    def shutdown(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


class _Reply(io.RawIOBase):
    """What such a server sends, once it is read: http.client counts on having a file before."""

    def __init__(self, host: str, answer: Answer, timeout: float | None) -> None:
        self._host = host
        self._answer = answer
        self._timeout = timeout
        self._sent: io.BytesIO | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        if self._sent is None:
            self._sent = io.BytesIO(self._send())
        return self._sent.readinto(into)

    def _send(self) -> bytes:
        answer, seconds = _late(self._answer, self._timeout)
        if seconds != 0.0:
            _wait(self._host, seconds)
        if answer == HANGS:
            raise TimeoutError("timed out")
        status, body = _status_and_body(answer)
        reason = responses.get(status, "")
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        data = body.encode()
        return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def _status_and_body(answer: Answer) -> tuple[int, str]:
    if isinstance(answer, int):
        return answer, _JSON
    assert isinstance(answer, (tuple, list))
    return int(answer[0]), str(answer[1])


def _handle(original: Callable[..., Any]) -> Callable[..., Any]:
    def handle_request(transport: Any, request: Any) -> Any:
        answer = _answer(request.url.host, request.url.port)
        if answer is None:
            return original(transport, request)
        answer, seconds = _late(answer, _read_timeout(request))
        if seconds != 0.0:
            _wait(request.url.host.lower(), seconds)
        return _response(request, answer)

    return handle_request


def _handle_async(original: Callable[..., Any]) -> Callable[..., Any]:
    async def handle_async_request(transport: Any, request: Any) -> Any:
        answer = _answer(request.url.host, request.url.port)
        if answer is None:
            return await original(transport, request)
        answer, seconds = _late(answer, _read_timeout(request))
        if seconds != 0.0:
            await _wait_async(request.url.host.lower(), seconds)
        return _response(request, answer)

    return handle_async_request


def _read_timeout(request: Any) -> float | None:
    timeout: float | None = request.extensions.get("timeout", {}).get("read")
    return timeout


def _response(request: Any, answer: Answer) -> Any:
    httpx: Any = sys.modules["httpx"]
    if answer == HANGS:
        raise httpx.ReadTimeout("timed out", request=request)
    if answer == REFUSES:
        raise httpx.ConnectError(f"{request.url.host} refuses, as this test has it", request=request)
    status, body = _status_and_body(answer)
    headers = {"content-type": "application/json"}
    # A stream of both kinds, which both kinds of client can close.
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(body.encode()))
