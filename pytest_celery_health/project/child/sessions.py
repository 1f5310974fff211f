"""A process that has loaded the app, and forks another for each session: one in which nothing of the project
has been called yet, as in the process that serves it when that has just begun.

Parent and forks talk through a socket each, a line of JSON each way; `project/sessions.py` is the other half.
"""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import inspect
import json
import os
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from types import FrameType
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from celery import Celery

from pytest_celery_health.project.child.handlers import relative
from pytest_celery_health.project.child.tell import tell

#: Seconds after faulthandler, so that who asks where a call is reads this.
_AFTER = 0.05


class Serves(Protocol):
    """What a session does with what it is asked."""

    @property
    def do(self) -> Callable[..., Mapping[str, Any]]:
        """Called with what `Session.ask` was given, `do` and all. Returns what JSON can be made of."""
        ...


def serve(job: dict[str, Any], told: Mapping[str, Any], prepare: Callable[..., Callable[[], Serves]]) -> None:
    """Say that all is loaded, and fork until the parent has gone. Then end, with all forks.

    job: of the parent, with its "control_fd". told: what it is to know of what was loaded.
    prepare: given what a session was opened with, loads what it needs, before the fork, so that it is loaded
        once; what it returns makes, in the fork, what answers there.
    """
    faulthandler.cancel_dump_traceback_later()
    with socket.socket(fileno=job["control_fd"]) as control:
        _say(control, told)
        while (asked := _asked(control)) is not None:
            what, line, output = asked
            with line:
                _open(job, control, prepare, what, line, output)
            os.close(output)
    # Not by returning: a process that ends by itself leaves its forks to themselves.
    os.killpg(0, signal.SIGKILL)


def _asked(control: socket.socket) -> tuple[dict[str, Any], socket.socket, int] | None:
    """What a session is opened with, its end of a line, and the file that it writes to; None at the end."""
    data, descriptors = b"", []
    while not data.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not part:
            return None
        data += part
        descriptors += more
    line, output = descriptors
    os.set_inheritable(line, False)
    os.set_inheritable(output, False)
    return json.loads(data), socket.socket(fileno=line), output


def _open(
    job: dict[str, Any],
    control: socket.socket,
    prepare: Callable[..., Callable[[], Serves]],
    what: dict[str, Any],
    line: socket.socket,
    output: int,
) -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    try:
        session = prepare(**what)
    except BaseException as error:  # noqa: BLE001 - the user's code, SystemExit too
        with suppress(OSError):  # of a parent that waits no more
            _say(line, {"error": tell(error, job)})
        return
    # What is garbage here may wait for what a fork does not have, when it is collected there.
    gc.freeze()
    with warnings.catch_warnings():
        # Of our thread that waits for the parent's end, which the fork can do without.
        warnings.simplefilter("ignore", DeprecationWarning)
        forked = os.fork() == 0
    if forked:
        try:
            control.close()
            _serve_session(session, line, output)
        finally:
            os._exit(0)


def import_clients(app: Celery) -> None:
    """Have what a connection imports be imported: it is no part of a call, and each fork would pay for it."""
    with suppress(Exception):
        app.connection_for_write().transport  # noqa: B018 - it imports
    with suppress(Exception):
        app.backend  # noqa: B018


@dataclass
class Called:
    """What a function of the project returned or raised, and the seconds that it took."""

    found: Any
    error: BaseException | None
    took: float
    cpu: float

    def text(self) -> str:
        """What it raised, in one line."""
        return f"{type(self.error).__name__}: {' '.join(str(self.error).split())}".removesuffix(": ")

    def at(self, path: list[str]) -> str:
        """Where of the project's own code, found by `path`, it raised; "" if nowhere."""
        frames = traceback.extract_tb(None if self.error is None else self.error.__traceback__)
        return own_place(((frame.filename, frame.lineno) for frame in reversed(frames)), path)


def own_place(places: Iterable[tuple[str, int | None]], path: list[str]) -> str:
    """The first file:line of these in the project's own code, found by `path`; "" if none is."""
    folders = tuple(os.path.join(folder, "") for folder in path)
    for file, line in places:
        if file.startswith(folders) and "site-packages" not in file:
            return relative(f"{file}:{line}", path)
    return ""


def call(function: Callable[[], Any], gives_up: float) -> Called:
    """Call it. After `gives_up` seconds the session's output tells the parent where it is."""
    faulthandler.dump_traceback_later(gives_up, file=2)
    telling = _loop().call_later(gives_up + _AFTER, _tell_where)
    began, cpu = time.monotonic(), time.process_time()
    found, error = None, None
    try:
        found = awaited(function())
    except BaseException as raised:  # noqa: BLE001 - SystemExit, too
        error = raised
    took, cpu = time.monotonic() - began, time.process_time() - cpu
    faulthandler.cancel_dump_traceback_later()
    telling.cancel()
    return Called(found, error, took, cpu)


def awaited(found: Any) -> Any:
    """What a function returned, waited for if it is async."""
    return _loop().run_until_complete(_result_of(found)) if inspect.isawaitable(found) else found


async def _result_of(found: Awaitable[Any]) -> Any:
    return await found


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """One for all calls in this process, as a server has: an async client that is kept belongs to its loop,
    and a thread that a call gave up holds nobody up."""
    loop = asyncio.new_event_loop()
    loop.set_task_factory(_numbered)
    return loop


_numbers: WeakKeyDictionary[asyncio.Task[Any], int] = WeakKeyDictionary()


def _numbered(loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> asyncio.Task[Any]:
    task = asyncio.Task(coroutine, loop=loop, **more)
    _numbers[task] = max(_numbers.values(), default=0) + 1
    return task


def _tell_where() -> None:
    """As faulthandler does, where coroutines wait, which is on no thread's stack. The newest task first: that
    of an endpoint is made by its middleware."""
    lines = [
        f'  File "{frame.f_code.co_filename}", line {frame.f_lineno} in {frame.f_code.co_name}\n'
        for task in sorted(asyncio.all_tasks(_loop()), key=lambda task: -_numbers.get(task, 0))
        for frame in stack_of(task.get_coro())
    ]
    os.write(2, "".join(["Timeout (async)!\nThread 0x0 (most recent call first):\n", *lines]).encode())


def stack_of(waiting: Any) -> list[FrameType]:
    """Of a coroutine, or a generator, the innermost first."""
    frames: list[FrameType] = []
    while waiting is not None:
        kind = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), "")
        frame = getattr(waiting, f"{kind}_frame", None)
        if frame is None:
            break
        frames.insert(0, frame)
        waiting = getattr(waiting, "gi_yieldfrom" if kind == "gi" else f"{kind}_await")
    return frames


def _serve_session(session: Callable[[], Serves], line: socket.socket, output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    _loop()  # its sockets are no call's
    serves = session()
    _say(line, {"pid": os.getpid()})
    with line.makefile("r") as asks:
        for ask in asks:
            _say(line, serves.do(**json.loads(ask)))


def _say(line: socket.socket, what: Mapping[str, Any]) -> None:
    line.sendall(json.dumps(what).encode() + b"\n")
