"""A function of the project that publishes, called in sessions of their own."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from celery import Celery
from kombu import Producer

from pytest_celery_health.project.child.describe import describe
from pytest_celery_health.project.child.load import LoadError, attribute, load, set_up_django
from pytest_celery_health.project.child.redirect import redirect
from pytest_celery_health.project.child.sessions import call, import_clients, own_place, serve, stack_of

_NO_BACKEND = ("", "disabled", "disabled://")
_DEFAULT_PORT = 6379
#: Whose code talks to brokers.
_CLIENTS = {"amqp", "kombu", "librabbitmq", "pika", "redis"}
_TICK = 0.01
#: Seconds beyond its own after which a wait for others is held up by one of them.
_HELD_UP = 0.3


def publisher(job: dict[str, Any]) -> None:
    """Serve sessions in which a `function` and what publishes `then` can be called.

    The parent is told the "queues" that the app knows, and of its result "backend", which a publisher has
    to do with: "none", "broker" if that is the same server, or "other".
    """
    own: list[str] = []
    app = load(
        job["app"], hooks=job["hooks"], target=job["target"], found_is=lambda it: own.append(_backend(it))
    )
    set_up_django()
    if own == ["none"]:
        # The sandbox gives every app a backend. Publishers that have none have nothing to do with it.
        os.environ.pop("CELERY_RESULT_BACKEND", None)
        redirect(app, os.environ["CELERY_BROKER_URL"], "")
    import_clients(app)
    loaded: dict[str, Callable[[], Any]] = {}

    def prepare(**names: str) -> Callable[[], _Publishes]:
        for name in filter(None, names.values()):
            if name not in loaded:
                loaded[name] = _function(job, name)
        functions = {which: loaded[name] for which, name in names.items() if name}
        return lambda: _Publishes(app, functions, job["path"])

    serve(job, {"queues": describe(app, job["app"])["queues"], "backend": own[0]}, prepare)


def _backend(app: Celery) -> str:
    found = app.conf["result_backend"]
    if found is None or str(found) in _NO_BACKEND:
        return "none"
    if os.environ.get("CELERY_RESULT_BACKEND", "").startswith("rpc") and not str(found).startswith("rpc"):
        return "none"  # of a kind that this sandbox has not
    broker = app.conf["broker_write_url"] or app.conf["broker_url"]
    return "broker" if _place(str(found)) == _place(str(broker)) else "other"


def _place(url: str) -> tuple[str, int]:
    place = urlsplit(url)
    return place.hostname or "", place.port or _DEFAULT_PORT


def _function(job: dict[str, Any], name: str) -> Callable[[], Any]:
    job["doing"] = f"loading {name}"
    found = attribute(name)
    if not callable(found):
        raise LoadError(f"{name} is a {type(found).__name__}, which nobody can call")
    function: Callable[[], Any] = found
    return function


class _Publishes:
    def __init__(self, app: Celery, functions: Mapping[str, Callable[[], Any]], path: list[str]) -> None:
        self._app = app
        self._functions = functions
        self._path = path
        self._begun = 0
        self._count_publishing()

    def _count_publishing(self) -> None:
        publish = Producer.publish

        @wraps(publish)
        def counted(*args: Any, **kwargs: Any) -> Any:
            self._begun += 1
            return publish(*args, **kwargs)

        Producer.publish = counted

    def do(self, do: str, **what: Any) -> dict[str, Any]:
        """Call "function" or "then"; "rest", or say what has "begun"."""
        if do == "rest":
            return self._rest(**what)
        if do == "begun":
            return {"begun": self._begun}
        return self._call(do, **what)

    def _call(self, do: str, gives_up: float) -> dict[str, Any]:
        if do == "function":
            self._begun = 0
        called = call(self._functions[do], gives_up)
        said: dict[str, Any] = {"ended": "returned", "took": called.took}
        if called.error is not None:
            said |= {"ended": "raised", "error": called.text(), "at": called.at(self._path)}
        elif refused := _refused(called.found):
            said |= {"ended": "refused", "error": refused}
        return {**said, "queues": self._queues()}

    def _queues(self) -> list[str]:
        """Those too that a call has made up on its way."""
        return [str(queue) for queue in self._app.amqp.queues]

    def _rest(self, gives_up: float, kept: int) -> dict[str, Any]:
        """Until no more than `kept` of the threads and asyncio tasks of calls are left, or time is over.

        The parent is told how many are "left"; those that are "at" the broker, by the line of the project's
        own; and how many messages were "begun" to be published since the function was called.
        """
        over = time.monotonic() + gives_up
        rest = call(lambda: self._at_rest(over, kept), gives_up + _HELD_UP).found
        # A task that has ended the loop, as sys.exit() does, is none that is left.
        return {"left": 0, "at": [], **(rest or {}), "begun": self._begun, "queues": self._queues()}

    async def _at_rest(self, over: float, kept: int) -> dict[str, Any]:
        while len(stacks := [*_others()]) > kept and time.monotonic() < over:
            await asyncio.sleep(_TICK)
        at = [
            own_place(((frame.f_code.co_filename, frame.f_lineno) for frame in stack), self._path)
            for stack in stacks
            if any(map(_is_client, stack))
        ]
        return {"left": len(stacks), "at": at}


def _others() -> Iterator[list[FrameType]]:
    """Of each thread but this one, and of each asyncio task but this one, the frames, the innermost first."""
    frames = sys._current_frames()
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            yield [*_outwards(frames.get(thread.ident or 0))]
    for task in asyncio.all_tasks():
        if task is not asyncio.current_task():
            yield stack_of(task.get_coro())


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_client(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _CLIENTS


def _refused(found: Any) -> str:
    """How what was returned says that nothing was sent; "" if it does not."""
    if found is False:
        return "False"
    if isinstance(found, tuple) and len(found) > 1:  # Flask: body and status
        found = found[1]
    status = found if type(found) is int else getattr(found, "status_code", None)
    return f"HTTP {status}" if isinstance(status, int) and 400 <= status < 600 else ""
