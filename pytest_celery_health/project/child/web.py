"""A request to a WSGI or ASGI application, called as its server would call it: no socket, no server."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote
from wsgiref.util import setup_testing_defaults

#: Seconds that an application gets to end its lifespan, which no probe waits for.
_FAREWELL = 1.0


@dataclass
class Response:
    """What came back. error: what the application raised instead, which its server answers with 500."""

    status_code: int = 500
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    error: BaseException | None = None


def ask_wsgi(app: Callable[..., Any], path: str, headers: Mapping[str, str]) -> Response:
    """The answer to GET `path`."""
    place, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": unquote(place),
        "QUERY_STRING": query,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
    }
    for name, value in headers.items():
        environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
    setup_testing_defaults(environ)
    response = Response()
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: Any = None) -> Callable[[bytes], None]:
        response.status_code, response.headers = int(status.split()[0]), headers
        return written.append

    try:
        chunks = app(environ, start_response)
        try:
            written.extend(chunks)
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
    except Exception as error:  # noqa: BLE001 - the application's own
        return Response(error=error)
    response.body = b"".join(written)
    return response


async def ask_asgi(app: Callable[..., Awaitable[None]], path: str, headers: Mapping[str, str]) -> Response:
    """The answer to GET `path`, within a lifespan of the application's own."""
    state: dict[str, Any] = {}
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    said: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    asked.put_nowait({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    living = asyncio.ensure_future(app(scope, asked.get, said.put))
    started = asyncio.ensure_future(said.get())
    try:
        await asyncio.wait({living, started}, return_when=asyncio.FIRST_COMPLETED)
        begun = started.done()
        if begun and started.result()["type"] == "lifespan.startup.failed":
            why = started.result().get("message") or "its lifespan did not start"
            return Response(error=RuntimeError(why.strip().rpartition("\n")[2]))
        response = await _request(
            app, path, headers, state
        )  # one without a lifespan raises: then it has none
        if begun and not living.done():
            asked.put_nowait({"type": "lifespan.shutdown"})
            await asyncio.wait({living}, timeout=_FAREWELL)
        return response
    finally:
        for each in (started, living):
            each.cancel()
            with suppress(BaseException):
                await each


async def _request(
    app: Callable[..., Awaitable[None]], path: str, headers: Mapping[str, str], state: dict[str, Any]
) -> Response:
    place, _, query = path.partition("?")
    every = {"host": "127.0.0.1", **{name.lower(): value for name, value in headers.items()}}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": unquote(place),
        "raw_path": place.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in every.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 80),
        "state": dict(state),
        "extensions": {},
    }
    response = Response()
    body: list[bytes] = []
    begun, answered = False, asyncio.Event()
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await answered.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        nonlocal begun
        if message["type"] == "http.response.start":
            begun = True
            response.status_code = message["status"]
            response.headers = [(n.decode("latin-1"), v.decode("latin-1")) for n, v in message["headers"]]
        elif message["type"] == "http.response.body":
            body.append(message.get("body", b""))
            if not message.get("more_body"):
                answered.set()

    try:
        await app(scope, receive, send)
    except Exception as error:  # noqa: BLE001 - the application's own
        if not begun:  # else it has answered with 500 itself, and tells its server
            return Response(error=error)
    response.body = b"".join(body)
    return response
