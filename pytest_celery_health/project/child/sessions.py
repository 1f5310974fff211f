"""A process that has loaded the app, and forks another for each session: one in which nothing of the project
has been called yet, as in the process that serves it when that has just begun.

Parent and forks talk through a Unix socket, a line of JSON each way; `project/sessions.py` is the other half.
"""

from __future__ import annotations

import asyncio
import faulthandler
import inspect
import json
import os
import socket
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from celery import Celery

from pytest_celery_health.project.child.handlers import relative
from pytest_celery_health.project.child.tell import tell


class Serves(Protocol):
    """What a session does with what it is asked."""

    @property
    def do(self) -> Callable[..., Mapping[str, Any]]:
        """Called with what `Session.ask` was given, `do` and all. Returns what JSON can be made of."""
        ...


def serve(job: dict[str, Any], told: Mapping[str, Any], prepare: Callable[..., Callable[[], Serves]]) -> None:
    """Say that all is loaded, and fork until the parent has enough.

    job: of the parent, with the path of its "socket". told: what it is to know of what was loaded.
    prepare: given what a session was opened with, loads what it needs, before the fork, so that it is loaded
        once; what it returns makes, in the fork, what answers there.
    """
    faulthandler.cancel_dump_traceback_later()
    with _connected(job["socket"]) as line:
        _say(line, told)
        with line.makefile("r") as asks:
            for ask in asks:
                _open(job, line, prepare, **json.loads(ask))


def _open(
    job: dict[str, Any],
    line: socket.socket,
    prepare: Callable[..., Callable[[], Serves]],
    output: str,
    what: dict[str, Any],
) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    try:
        session = prepare(**what)
    except BaseException as error:  # noqa: BLE001 - the user's code, SystemExit too
        with _connected(job["socket"]) as other:
            _say(other, {"error": tell(error, job)})
        return
    with warnings.catch_warnings():
        # Of our thread that waits for the parent's end, which the fork can do without.
        warnings.simplefilter("ignore", DeprecationWarning)
        forked = os.fork() == 0
    if forked:
        try:
            line.close()
            _serve_session(job["socket"], output, session)
        finally:
            os._exit(0)


def import_clients(app: Celery) -> None:
    """Have what a connection imports be imported: it is no part of a call, and each fork would pay for it."""
    with suppress(Exception):
        app.connection_for_write().transport  # noqa: B018 - it imports
    with suppress(Exception):
        app.backend  # noqa: B018


def called(function: Callable[[], Any], path: list[str], gives_up: float) -> tuple[Any, dict[str, Any]]:
    """What the function of the project returned, and how: "ended" ("returned" or "raised"), "took" in
    seconds, and for what it raised "error" and "at".

    After `gives_up` seconds the session's output tells the parent where it is.
    """
    faulthandler.dump_traceback_later(gives_up, file=2)
    began = time.monotonic()
    found = None
    said: dict[str, Any] = {"ended": "returned"}
    try:
        found = awaited(function())
    except BaseException as error:  # noqa: BLE001 - SystemExit, too
        text = " ".join(str(error).split())
        said = {"ended": "raised", "error": f"{type(error).__name__}: {text}".removesuffix(": ")}
        said["at"] = _where(error, path)
    said["took"] = time.monotonic() - began
    faulthandler.cancel_dump_traceback_later()
    return found, said


def awaited(found: Any) -> Any:
    """What a function returned, waited for if it is async."""
    if not inspect.isawaitable(found):
        return found

    async def wait() -> Any:
        return await found

    return asyncio.run(wait())


def _where(error: BaseException, path: list[str]) -> str:
    folders = tuple(os.path.join(folder, "") for folder in path)
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(folders) and "site-packages" not in frame.filename
    ]
    return relative(f"{own[-1].filename}:{own[-1].lineno}", path) if own else ""


def _serve_session(path: str, output: str, session: Callable[[], Serves]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    serves = session()
    with _connected(path) as line:
        _say(line, {"pid": os.getpid()})
        with line.makefile("r") as asks:
            for ask in asks:
                _say(line, serves.do(**json.loads(ask)))


def _connected(path: str) -> socket.socket:
    line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    line.connect(path)
    return line


def _say(line: socket.socket, what: Mapping[str, Any]) -> None:
    line.sendall(json.dumps(what).encode() + b"\n")
