"""What is rigged in a drill's worker: it records, and its tasks come to the end that their message names."""

from __future__ import annotations

import functools
import importlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import current_app
from celery.worker import state
from kombu import Exchange, Queue

from pytest_celery_health.record import answers, log_tries, logs, signals
from pytest_celery_health.record.log_setup import Loaded
from pytest_celery_health.record.recorder import JsonLines, Recorder
from pytest_celery_health.record.recording import Entry, HandlerCall, SignalCall
from pytest_celery_health.sandbox.children.child import Task
from pytest_celery_health.sandbox.children.door import serve
from pytest_celery_health.sandbox.children.loop import Loop
from pytest_celery_health.sandbox.drills.bodies import Call
from pytest_celery_health.sandbox.drills.ends import DRILL_TASK, HEADER
from pytest_celery_health.sandbox.drills.rig_files import ANSWERS, door, records

if TYPE_CHECKING:
    from celery import Celery

_for_good = ExitStack()


def rig(app: Celery, task: Task, own: Iterable[Callable[..., None]]) -> None:
    """To be called when the app is loaded, before its worker starts. `own` receivers are not recorded."""
    asked = task.asked
    app.conf.update(asked["rig"]["conf"])
    # The project may have Celery refuse queues that it does not declare.
    for name in asked["queues"]:
        app.amqp.queues.add(Queue(name, Exchange(name, type="direct"), routing_key=name))
    app.task(name=DRILL_TASK, bind=True, shared=False)(_drill)
    for name, registered in app.tasks.items():
        if not name.startswith("celery."):
            registered.run = _scripted(registered, registered.run)
    for receiver in own:
        signals.not_told_of(receiver)
    loaded = Loaded()
    _record(task)
    loop = Loop()
    signals.not_told_of(loop.ready)
    serve(door(task.folder, task.name), lambda ask: _obey(ask, loop, loaded))
    task.tell("rigged", serializer=app.conf.task_serializer)


def _drill(task: Any, *_: Any, **__: Any) -> None:
    """The task of drills that name none; its body is its message's."""


def _scripted(task: Any, original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def run(*args: Any, **kwargs: Any) -> Any:
        said = getattr(task.request, HEADER, None)
        if said is None:
            return original(*args, **kwargs)
        module, _, name = said["body"].partition(":")
        return getattr(importlib.import_module(module), name)(Call(task, said, args, kwargs, original))

    return run


class _Sink:
    """Writes down every entry, and after each signal and handler which metrics it changed."""

    def __init__(self, path: Path) -> None:
        self.recorder = Recorder(self)
        self._lines = JsonLines(path)
        self._lock = threading.Lock()
        os.register_at_fork(after_in_child=self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def add(self, entry: Entry) -> None:
        self._lines.add(entry)
        if isinstance(entry, (SignalCall, HandlerCall)) and self._lock.acquire(blocking=False):
            try:
                self.recorder.checkpoint()
            finally:
                self._lock.release()


def _record(task: Task) -> None:
    said = task.folder / ANSWERS  # of the drill under way; before the first, nobody has said anything
    allow = [endpoint.rpartition(":") for endpoint in task.asked["rig"]["allow"]]

    def script(host: str, port: int | None) -> answers.Answer | None:
        if any(host == each and by in (str(port), "*") for each, _, by in allow):
            return None
        return answers.answer_of(json.loads(said.read_text(encoding="utf-8")) if said.exists() else {}, host)

    _for_good.enter_context(answers.answering(script))
    _for_good.enter_context(signals.announced())
    _for_good.enter_context(logs.handlers_watched())
    _for_good.enter_context(_Sink(records(task.folder, task.name)).recorder)


def _obey(ask: dict[str, Any], loop: Loop, loaded: Loaded) -> dict[str, Any]:
    if ask["do"] == "log":  # outside of tasks, as the main process does
        log_tries.write(current_app, ask["loggers"], 0, in_task=False)
        log_tries.tell(gone=loaded.gone())
        return {}
    if ask["do"] == "grow":
        done: list[int] = []
        loop.calls(functools.partial(_grow, ask["by"], loop, done))
        loop.turns()  # by which the pool starts or ends the process
        return {"grown": bool(done)}
    if ask["do"] == "set":  # options of a task, for as long as a drill needs them
        task = current_app.tasks[ask["task"]]
        before = {name: getattr(task, name) for name in ask["options"]}
        loop.calls(functools.partial(_set, task, ask["options"], loop))
        return before
    if ask["do"] in _REQUESTS:
        try:
            return _REQUESTS[ask["do"]](ask)
        except Exception as error:  # noqa: BLE001 - it may be the user's code
            return {"error": f"{type(error).__name__}: {error}"}
    idle = loop.turns()
    while True:
        try:
            return {
                "idle": idle,
                "known": list(state.requests),
                "revoked": ask.get("id", "") in state.revoked,
            }
        except RuntimeError:  # it changed while it was listed
            continue


def _scrape(_: dict[str, Any]) -> dict[str, Any]:
    from prometheus_client import REGISTRY, generate_latest

    return {"text": generate_latest(REGISTRY).decode()}


def _declare(ask: dict[str, Any]) -> dict[str, Any]:
    with current_app.connection_for_write() as connection:
        for name in ask["queues"]:
            current_app.amqp.queues[name](connection.default_channel).declare()
    return {}


_REQUESTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "scrape": _scrape,
    "declare": _declare,
    "environ": lambda ask: {"value": os.environ.get(ask["name"])},
}


def _grow(by: int, loop: Loop, done: list[int]) -> None:
    """As the remote control commands pool_grow and pool_shrink do."""
    change = loop.consumer.pool.grow if by > 0 else loop.consumer.pool.shrink
    with suppress(ValueError):  # that all processes are busy
        change(abs(by))
        loop.consumer._update_prefetch_count(by)
        done.append(by)


def _set(task: Any, options: dict[str, Any], loop: Loop) -> None:
    for name, value in options.items():
        setattr(task, name, value)
    loop.consumer.update_strategies()  # which know the options as they were
