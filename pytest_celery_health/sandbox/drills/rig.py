"""What is rigged in a drill's worker: it records, and its tasks come to the end that their message names."""

from __future__ import annotations

import functools
import importlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery import current_app
from celery.signals import worker_ready
from celery.worker import state
from kombu import Exchange, Queue

from pytest_celery_health.record import answers, log_tries, logs, signals
from pytest_celery_health.record.log_setup import Loaded
from pytest_celery_health.record.recorder import JsonLines, Recorder
from pytest_celery_health.record.recording import Entry, HandlerCall, SignalCall
from pytest_celery_health.sandbox.child import Task
from pytest_celery_health.sandbox.drills.bodies import Call
from pytest_celery_health.sandbox.drills.ends import DRILL_TASK, HEADER
from pytest_celery_health.sandbox.drills.rig_files import ANSWERS, door, records

if TYPE_CHECKING:
    from celery import Celery

#: Seconds that the event loop and the pool get to show that they are not busy.
_PATIENCE = 1.0

_for_good = ExitStack()


def rig(app: Celery, task: Task, own: Iterable[Callable[..., None]]) -> None:
    """To be called when the app is loaded, before its worker starts. `own` receivers are not recorded."""
    asked = task.asked
    app.conf.update(asked["drill"]["conf"])
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
    _answer(door(task.folder, task.name), loaded)
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
        return getattr(importlib.import_module(module), name)(Call(task, said, args, kwargs))

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
    allow = [endpoint.rpartition(":") for endpoint in task.asked["drill"]["allow"]]

    def script(host: str, port: int | None) -> answers.Answer | None:
        if any(host == each and by in (str(port), "*") for each, _, by in allow):
            return None
        return answers.answer_of(json.loads(said.read_text(encoding="utf-8")) if said.exists() else {}, host)

    _for_good.enter_context(answers.answering(script))
    _for_good.enter_context(signals.announced())
    _for_good.enter_context(logs.handlers_watched())
    _for_good.enter_context(_Sink(records(task.folder, task.name)).recorder)


def _answer(path: Path, loaded: Loaded) -> None:
    """Tell drills, from a thread, what the main process knows: its event loop may hang in a handler."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    listening.listen(8)
    loop = _Loop()

    def serve() -> None:
        while True:
            with suppress(OSError, ValueError):
                client, _ = listening.accept()
                with client, client.makefile("rw") as lines:
                    lines.write(json.dumps(_obey(json.loads(lines.readline()), loop, loaded)) + "\n")

    threading.Thread(target=serve, daemon=True).start()


def _obey(ask: dict[str, Any], loop: _Loop, loaded: Loaded) -> dict[str, Any]:
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


def _grow(by: int, loop: _Loop, done: list[int]) -> None:
    """As the remote control commands pool_grow and pool_shrink do."""
    change = loop.consumer.pool.grow if by > 0 else loop.consumer.pool.shrink
    with suppress(ValueError):  # that all processes are busy
        change(abs(by))
        loop.consumer._update_prefetch_count(by)
        done.append(by)


def _set(task: Any, options: dict[str, Any], loop: _Loop) -> None:
    for name, value in options.items():
        setattr(task, name, value)
    loop.consumer.update_strategies()  # which know the options as they were


class _Loop:
    """The main process' event loop and the threads of its pool, once the worker is ready."""

    def __init__(self) -> None:
        self._woken, self._wake = socket.socketpair()
        self._woken.setblocking(False)
        self.consumer: Any = None
        self._hub: Any = None
        worker_ready.connect(self._ready, weak=False)
        signals.not_told_of(self._ready)

    def _ready(self, sender: Any, **_: Any) -> None:
        self.consumer = sender
        self._hub = getattr(sender, "hub", None)
        if self._hub is not None:
            self._listen()

    def _listen(self) -> None:
        self._hub.add_reader(self._woken.fileno(), self._drain)

    def _drain(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)

    def turns(self) -> bool:
        """Whether whatever was begun when this was asked is done, signals and their handlers included."""
        executor = getattr(self._pool, "executor", None)  # of the pool of threads
        if executor is not None:
            try:
                executor.submit(int).result(_PATIENCE)
            except FutureTimeout:
                return False
        return self.calls(self._turn)

    def calls(self, function: Callable[[], None]) -> bool:
        """Call a function in the loop's own thread; False if the loop is too busy for it."""
        called = threading.Event()
        if self._hub is None:
            if self.consumer is not None:
                function()
            return self.consumer is not None

        def call() -> None:
            function()
            called.set()

        self._hub.call_soon(call)
        self._wake.send(b".")
        return called.wait(_PATIENCE)

    @property
    def _pool(self) -> Any:
        return getattr(self.consumer, "pool", None)

    def _turn(self) -> None:
        # A child's pipe tells of its end a little too soon: then Celery looks again after five seconds only.
        maintain = getattr(getattr(self._pool, "_pool", None), "maintain_pool", None)
        if maintain is not None:
            maintain()
        if self._hub is not None and self._woken.fileno() not in self._hub.readers:
            self._listen()  # again: after the loss of the broker the loop begins anew
