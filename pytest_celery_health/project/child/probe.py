"""The process that has loaded the app, and forks a process for whoever asks to call a health check of its.

Each fork is a session: a process in which the check has not been called yet, as one that serves the project
when it has begun. The parent asks through a socket of its own, a line of JSON each way.
"""

from __future__ import annotations

import faulthandler
import gc
import inspect
import json
import logging
import os
import socket
import stat
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from celery import Celery

from pytest_celery_health.masking import mask, secrets_in
from pytest_celery_health.project.child import web
from pytest_celery_health.project.child.describe import describe
from pytest_celery_health.project.child.handlers import relative
from pytest_celery_health.project.child.load import LoadError, attribute, load, set_up_django
from pytest_celery_health.project.child.sessions import awaited, import_clients
from pytest_celery_health.project.child.verdicts import body_of, figures, meaning

#: Priorities over which messages are spread: those of which kombu makes a key each on Redis.
_PRIORITIES = (0, 3, 6, 9)
#: Above the layer of this module, and asked for by name.
_FILLING = "pytest_celery_health.sandbox.filling:Filling"
_LONGEST = 300


def serve(job: dict[str, Any]) -> None:
    """Load, say so, and fork until the parent has enough. Raises whatever the user's code raises."""
    app = load(job["app"], hook=job["hook"], target=job["target"])
    set_up_django()
    import_clients(app)
    faulthandler.cancel_dump_traceback_later()
    described = describe(app, job["app"])
    callers: dict[str, Callable[[], Any]] = {}
    control = socket.socket(fileno=job["control"])
    control.set_inheritable(False)
    _say(control, {key: described[key] for key in _TOLD})
    while True:
        probe, descriptors = _asked(control)
        if probe is None:
            return
        line, output = socket.socket(fileno=descriptors[0]), descriptors[1]
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        key = json.dumps(probe)
        try:
            if key not in callers:  # here, and not in each session: imports are no part of a call
                callers[key] = _caller(probe)
        except BaseException as error:  # noqa: BLE001 - the user's code, SystemExit too
            _say(line, {"error": mask(_why(error))})
        else:
            if os.fork() == 0:
                control.close()
                try:
                    _serve_session(app, callers[key], {**job, **probe}, line, output)
                finally:
                    os._exit(0)
        line.close()
        os.close(output)


def _asked(control: socket.socket) -> tuple[Any, list[int]]:
    """The next line of JSON, and the open files that came with it; None at the end."""
    data, descriptors = b"", []
    while not data.endswith(b"\n"):
        part, more, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not part:
            return None, []
        data += part
        descriptors += more
    return json.loads(data), descriptors


def _why(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, LoadError) else f"{type(error).__name__}: {said}"


_TOLD = ("default_queue", "queues", "control_exchange", "event_exchange", "broker_transport_options")


def _say(line: socket.socket, what: dict[str, Any]) -> None:
    line.sendall(json.dumps(what).encode() + b"\n")


def _caller(probe: dict[str, Any]) -> Callable[[], Any]:
    """What calls the health check, and returns or raises what it does."""
    if probe["wsgi"] or probe["asgi"]:
        path = probe["wsgi"] or probe["asgi"]
        found = attribute(path.removesuffix("()"))
        found = found() if path.endswith("()") else found  # a factory
        ask = web.ask_wsgi if probe["wsgi"] else web.ask_asgi
        return lambda: ask(found, probe["path_info"], probe["headers"])
    found, given = attribute(probe["call"]), probe["given"]
    if inspect.isclass(found):
        return lambda: _checked(found(**given))
    if not callable(found):
        return lambda: _checked(found)
    return lambda: awaited(found(**given))


def _checked(instance: Any) -> Any:
    """What an instance with `check_status()` says: by its errors, by what that returns, or by raising."""
    for name in ("run_check", "check_status", "check", "__call__"):
        method = getattr(instance, name, None)
        if method is not None:
            said = awaited(method())
            errors = getattr(instance, "errors", None)
            if errors:
                return {"healthy": False, "errors": "; ".join(map(str, errors))}
            return said
    raise TypeError(f"{type(instance).__name__} has neither run_check() nor check_status()")


def _serve_session(
    app: Celery, call: Callable[[], Any], job: dict[str, Any], line: socket.socket, output: int
) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)
    session = _Session(app, call, job)
    _say(line, {"pid": os.getpid()})
    with line.makefile("r") as asks:
        for ask in asks:
            _say(line, session.do(**json.loads(ask)))


class _Session:
    def __init__(self, app: Celery, call: Callable[[], Any], job: dict[str, Any]) -> None:
        self.app = app
        self._call = call
        self._job = job
        urls = (os.environ.get("CELERY_BROKER_URL", ""), os.environ.get("CELERY_RESULT_BACKEND", ""))
        self._secrets = [each for each in secrets_in(*urls) if len(each) > 3]
        self._logged: list[str] = []
        self._filling: Any = None
        logging.getLogger().addHandler(_Kept(self._logged))

    def do(self, do: str, **what: Any) -> dict[str, Any]:
        """What is asked, done."""
        if do == "call":
            return self.call(**what)
        try:
            getattr(self, do)(**what)
        except Exception as error:  # noqa: BLE001 - told to the parent
            return {"error": mask(f"{type(error).__name__}: {error}", self._secrets)}
        return {}

    def call(self, give_up: float, queue: str) -> dict[str, Any]:
        """What one call of the health check gave."""
        self._logged.clear()
        written = os.fstat(1).st_size
        faulthandler.dump_traceback_later(give_up, file=2)
        began, cpu = time.monotonic(), time.process_time()
        found, error = None, None
        try:
            found = self._call()
        except BaseException as raised:  # noqa: BLE001 - SystemExit, too
            error = raised
        took, cpu = time.monotonic() - began, time.process_time() - cpu
        faulthandler.cancel_dump_traceback_later()
        said: dict[str, Any] = {"took": took, "cpu": cpu}
        if error is None:
            means = meaning(found)
            said |= {"verdict": means.verdict, "kind": means.kind, "said": self._short(means.said)}
            said["figures"] = figures(body_of(found), queue)
        else:
            text = f"{type(error).__name__}: {error}".removesuffix(": ")
            said |= {"verdict": "raised", "said": self._short(text), "where": self._where(error)}
        said["shows"] = [*self._shows(found, error, written)]
        if self._job["gauge"]:
            said["gauge"] = [*_samples(self._job["gauge"], queue)]
        del found, error
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        return {**said, "threads": threads, "sockets": _sockets()}

    def _short(self, text: str) -> str:
        text = " ".join(mask(text, self._secrets).split())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."

    def _where(self, error: BaseException) -> str:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if self._is_own(frame.filename)]
        return relative(f"{own[-1].filename}:{own[-1].lineno}", self._job["path"]) if own else ""

    def _is_own(self, file: str) -> bool:
        return "site-packages" not in file and file.startswith(tuple(f"{e}/" for e in self._job["path"]))

    def _shows(self, found: Any, error: BaseException | None, written: int) -> Iterator[str]:
        """Where the broker's password is to be read."""
        texts = {"answer": self._all_of(found), "log": "\n".join(self._logged)}
        if error is not None:
            texts["exception"] = "".join(traceback.format_exception_only(type(error), error))
        sys.stdout.flush()
        sys.stderr.flush()
        texts["output"] = os.pread(1, os.fstat(1).st_size - written, written).decode(errors="replace")
        for what, text in texts.items():
            if any(secret in text for secret in self._secrets):
                yield what

    def _all_of(self, found: Any) -> str:
        headers = getattr(found, "headers", "")
        with suppress(Exception):
            return f"{body_of(found)!r} {found!r} {headers!r}"
        return ""

    # What the world of the probe needs to be done by the app's own means.

    def fill(self, queue: str, count: int) -> None:
        """Have every queue of the app's be there, one of them with messages, over all priorities."""
        self._filling = attribute(_FILLING)(self.app)
        spread = {each: len(range(index, count, len(_PRIORITIES))) for index, each in enumerate(_PRIORITIES)}
        for name in {*describe(self.app, "")["queues"], queue}:
            self._filling.put(
                name,
                ready=spread if name == queue else {},
                unacked=0,
                unacked_for=0.0,
                task="celery_health.waits",
                args=(),
                kwargs={},
                eta=None,
                expires=None,
            )

    def empty(self) -> None:
        """Have them all be gone."""
        self._filling.close()


class _Kept(logging.Handler):
    def __init__(self, kept: list[str]) -> None:
        super().__init__()
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it as a reader would see it."""
        with suppress(Exception):
            self._kept.append(logging.Formatter().format(record))


def _samples(name: str, queue: str) -> Iterator[float | None]:
    """What a metric of this process says of a queue; None for not a number."""
    from prometheus_client import REGISTRY

    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name == name and (queue in sample.labels.values() or not sample.labels):
                yield None if sample.value != sample.value else sample.value


def _sockets() -> int:
    """How many sockets this process has open."""
    count = 0
    for entry in os.listdir("/dev/fd"):
        with suppress(OSError, ValueError):
            count += stat.S_ISSOCK(os.fstat(int(entry)).st_mode)
    return count
