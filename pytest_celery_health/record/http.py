"""Outgoing HTTP requests of http.client (so urllib, logging's HTTPHandler), urllib3, requests and httpx.

Each client is overheard where its own requests begin, above whatever mocks it: a request that requests-mock
or another mock answers is seen, too. The outermost client tells; what it calls is a part of it.
"""

from __future__ import annotations

import functools
import http.client
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.record import sockets
from pytest_celery_health.record.plain import cut
from pytest_celery_health.record.recording import Request
from pytest_celery_health.record.tap import Tap

_LONGEST_BODY = 1_000_000
_CLIENTS = ("httpx", "requests", "urllib3.connectionpool")
_HTTP_CLIENT, _URLLIB3, _OUTERMOST = 1, 2, 3


def _install(tap: Tap) -> None:
    connection = http.client.HTTPConnection
    tap.patch(connection, "endheaders", _endheaders)
    tap.patch(connection, "send", _send)
    tap.patch(connection, "getresponse", _getresponse)
    tap.change("import", functools.partial(watch_imports, tap, _install))
    loaded: Mapping[str, Any] = sys.modules
    # Of a module that is being imported, half is missing.
    with suppress(KeyError, AttributeError):
        tap.patch(loaded["urllib3.connectionpool"].HTTPConnectionPool, "urlopen", _urlopen)
    with suppress(KeyError, AttributeError):
        tap.patch(loaded["requests"].Session, "send", _session_send)
    with suppress(KeyError, AttributeError):
        tap.patch(loaded["httpx"].Client, "send", _httpx_send)
        tap.patch(loaded["httpx"].AsyncClient, "send", _httpx_async_send)


TAP = Tap(_install)


class _Watcher(MetaPathFinder):
    """Has a client overheard that is imported late: many a handler imports it when it is called."""

    def __init__(self, tap: Tap, install: Callable[[Tap], None]) -> None:
        self._tap = tap
        self._install = install

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in _CLIENTS:
            return None
        others = sys.meta_path[sys.meta_path.index(self) + 1 :]  # there may be another of us among them
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if self._tap.is_held:
                    self._install(self._tap)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def watch_imports(tap: Tap, install: Callable[[Tap], None]) -> Callable[[], None]:
    """Have `install` called again whenever a client has been imported; what this returns undoes it."""
    watcher = _Watcher(tap, install)
    sys.meta_path.insert(0, watcher)
    return functools.partial(sys.meta_path.remove, watcher)


class _Exchange:
    """A request under way."""

    def __init__(self, level: int, method: str, url: str, headers: Mapping[Any, Any], body: object) -> None:
        self.level = level
        self.method = method.upper()
        self.url = url
        self.headers = {_text(name): _text(value) for name, value in headers.items()}
        self.body = _body(body)
        self.at = monotonic()
        self.host = (urlsplit(url).hostname or "").lower()
        sockets.under_way.append(self.host)

    def end(self, status: int | None, error: BaseException | None = None) -> None:
        sockets.under_way.remove(self.host)
        TAP.emit(
            Request(
                self.method,
                self.url,
                self.headers,
                cut(self.body, _LONGEST_BODY),
                status,
                "" if error is None else _why(error),
                monotonic() - self.at,
                **TAP.where(self.at),
            )
        )


_active: ContextVar[_Exchange | None] = ContextVar("celery_health_exchange", default=None)


@contextmanager
def _exchange(
    level: int, method: str, url: str, headers: Mapping[Any, Any], body: object
) -> Iterator[list[int]]:
    """A request, unless it is a part of one; its statuses shall be put into the list that this gives."""
    statuses: list[int] = []
    outer = _active.get()
    part = outer and (level < outer.level or (method.upper(), url) == (outer.method, outer.url))
    if part or not TAP.heard:
        yield statuses
        return
    exchange = _Exchange(level, method, url, headers, body)
    token = _active.set(exchange)
    try:
        yield statuses
    except BaseException as error:
        exchange.end(None, error)
        raise
    else:
        exchange.end(statuses[0] if statuses else None)
    finally:
        _active.reset(token)


def _session_send(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(session: Any, request: Any, **named: Any) -> Any:
        with _exchange(
            _OUTERMOST, request.method or "", request.url or "", request.headers or {}, request.body
        ) as statuses:
            try:
                response = original(session, request, **named)
            except Exception as error:
                if type(error).__name__ == "NoMockAddress":  # requests-mock's
                    parts = urlsplit(request.url or "")
                    refusal = sockets.Refused(parts.hostname or "", parts.port)
                    raise sys.modules["requests"].ConnectionError(refusal, request=request) from refusal
                raise
            # A redirect is a call of its own, within this one.
            first = (getattr(response, "history", None) or [response])[0]
            statuses.append(first.status_code)
            return response

    return send


def _httpx_body(request: Any) -> object:
    try:
        return request.content
    except Exception:  # noqa: BLE001 - httpx.RequestNotRead: a stream, which can be read but once
        return None


def _httpx_send(original: Callable[..., Any]) -> Callable[..., Any]:
    def send(client: Any, request: Any, **named: Any) -> Any:
        with _exchange(
            _OUTERMOST, request.method, str(request.url), request.headers, _httpx_body(request)
        ) as statuses:
            response = original(client, request, **named)
            statuses.append(_tell_history(response))
            return response

    return send


def _httpx_async_send(original: Callable[..., Any]) -> Callable[..., Any]:
    async def send(client: Any, request: Any, **named: Any) -> Any:
        with _exchange(
            _OUTERMOST, request.method, str(request.url), request.headers, _httpx_body(request)
        ) as statuses:
            response = await original(client, request, **named)
            statuses.append(_tell_history(response))
            return response

    return send


def _tell_history(response: Any) -> int:
    answers: list[Any] = list(response.history)
    first, *rest = [*answers, response]
    for each in rest:
        asked = each.request
        _Exchange(_OUTERMOST, asked.method, str(asked.url), asked.headers, _httpx_body(asked)).end(
            each.status_code
        )
    return int(first.status_code)


def _urlopen(original: Callable[..., Any]) -> Callable[..., Any]:
    def urlopen(
        pool: Any, method: str, url: str, body: Any = None, headers: Any = None, *args: Any, **named: Any
    ) -> Any:
        full = url if "://" in url else f"{pool.scheme}://{_place(pool.host, pool.port)}{url}"
        with _exchange(_URLLIB3, method, full, headers or {}, body) as statuses:
            response = original(pool, method, url, body, headers, *args, **named)
            statuses.append(response.status)
            return response

    return urlopen


_open: WeakKeyDictionary[http.client.HTTPConnection, _Exchange] = WeakKeyDictionary()


def _endheaders(original: Callable[..., None]) -> Callable[..., None]:
    def endheaders(connection: Any, message_body: Any = None, **named: Any) -> None:
        if not TAP.heard or _active.get() is not None:
            original(connection, message_body, **named)
            return
        exchange = _begun(connection, message_body)
        try:
            original(connection, message_body, **named)
        except BaseException as error:
            refusal = sockets.refusal_in(error)
            if refusal is None or message_body is not None or not _announced(exchange):
                exchange.end(None, error)
                raise
            connection.sock = _Sink(refusal)
        _open[connection] = exchange

    return endheaders


def _send(original: Callable[..., None]) -> Callable[..., None]:
    def send(connection: Any, data: Any) -> None:
        exchange = _open.get(connection)
        if exchange is not None:
            exchange.body += _body(data)
        original(connection, data)

    return send


def _getresponse(original: Callable[..., Any]) -> Callable[..., Any]:
    def getresponse(connection: Any, *args: Any, **named: Any) -> Any:
        exchange = _open.pop(connection, None)
        if exchange is None:
            return original(connection, *args, **named)
        try:
            response = original(connection, *args, **named)
        except BaseException as error:
            exchange.end(None, error)
            raise
        exchange.end(response.status)
        return response

    return getresponse


def settle() -> None:
    """Tell of the requests whose answer nobody asked for."""
    for connection in list(_open):
        exchange = _open.pop(connection, None)
        if exchange is not None:
            exchange.end(None, getattr(connection.sock, "refusal", None))


class _Sink:
    """Stands for the socket of a refused connection until the body, which comes later, has been seen."""

    def __init__(self, refusal: sockets.Refused) -> None:
        self.refusal = refusal

    def sendall(self, data: object) -> None:
        pass

    def makefile(self, *_: object) -> _Sink:
        return self

    def readline(self, *_: object) -> bytes:
        raise self.refusal

    def settimeout(self, seconds: float | None) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        pass


def _begun(connection: Any, message_body: object) -> _Exchange:
    """The request whose head is in the connection's buffer."""
    line, *rest = [_text(each) for each in connection._buffer]
    method, target, *_ = [*line.split(" "), "", ""]
    pairs = [each.partition(":") for each in rest if ":" in each]
    headers = {name.strip(): value.strip() for name, _, value in pairs}
    host = getattr(connection, "_tunnel_host", None) or connection.host
    port = getattr(connection, "_tunnel_port", None) or connection.port
    secure = connection.default_port == http.client.HTTPS_PORT
    url = target if "://" in target else f"{'https' if secure else 'http'}://{_place(host, port)}{target}"
    return _Exchange(_HTTP_CLIENT, method, url, headers, message_body)


def _announced(exchange: _Exchange) -> bool:
    """Whether the head says that a body comes."""
    headers = {name.lower(): value for name, value in exchange.headers.items()}
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _place(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return name if port in (None, 80, 443) else f"{name}:{port}"


def _why(error: BaseException) -> str:
    """In one word: the message of a client's error often holds the URL, and a webhook's URL is a secret."""
    return "refused" if sockets.refusal_in(error) else type(error).__name__


def _text(value: object) -> str:
    return value.decode("latin-1") if isinstance(value, (bytes, bytearray)) else str(value)


def _body(body: object) -> str:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body).decode("utf-8", "replace")
    return body if isinstance(body, str) else ""
