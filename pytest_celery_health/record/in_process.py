"""What the fixture `celery_signals` gives a test: a task or a signal in this process, recorded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Literal

from celery import Celery, Task, _state
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.canvas import Signature
from celery.exceptions import Ignore, Reject
from celery.local import Proxy

from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.project import this_process
from pytest_celery_health.record import payloads, signals, sockets, threads
from pytest_celery_health.record.nowhere import detached
from pytest_celery_health.record.plain import describe
from pytest_celery_health.record.recorder import TAPS, Recorder
from pytest_celery_health.record.recording import HandlerCall, HandlerError, Recording
from pytest_celery_health.record.tap import Tap

Raises = type[BaseException] | tuple[type[BaseException], ...]
#: Seconds that a read from a socket may take when the code under test set no timeout.
_PATIENCE = 10.0
#: Seconds that threads which the task started, and which are no daemons, get to end.
_SETTLE = 1.0
_MOST_RUNS = 1000


class CelerySignals:
    """Runs tasks and fires signals in this process, and records what handlers do.

    app: names the app of shared tasks that have none yet, as `celery -A` would; "" for none.
    """

    def __init__(self, app: Callable[[], str] = str) -> None:
        self._app = app
        self._stack = ExitStack()

    def __enter__(self) -> CelerySignals:
        # For the whole test: a thread that outlives a run must not reach the network either, and to change
        # classes for each run would cost most of a run's time.
        for tap in (*TAPS, sockets.BOUNDS, threads.STARTS):
            self._stack.enter_context(tap.held())
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def allow(self, *endpoints: str) -> None:
        """Let connections to "host:port" leave this machine, until the test ends. Raises ValueError."""
        for endpoint in endpoints:
            self._stack.enter_context(sockets.allowing(endpoint))

    def run(
        self,
        signature: Signature,
        *,
        raises: Raises | None = None,
        handler_errors: Literal["raise", "record"] = "raise",
        loglevel: int | str = logging.INFO,
        then: Callable[[], object] | None = None,
    ) -> Recording:
        """Run a task as a worker would, retries included, with the app's own handlers.

        raises: what the task shall raise at last. handler_errors: "record" leaves errors of handlers to the
        recording. loglevel: of the root logger meanwhile, as `celery worker -l`. then: called while the
        recording still goes on, such as the flush() of a client that sends from a thread.

        Nothing is published and no result is stored outside of this process; no retry waits. Raises
        HandlerError, and AssertionError when the task does not end as told.
        """
        __tracebackhide__ = True
        task = self._task_of(signature)
        with Recorder() as recorder, _worker_like(task.app, task, loglevel):
            ended = _through_retries(task, signature)
            if then is not None:
                then()
        recording = replace(recorder.recording, task=task.name, **ended)
        _judge_end(recording, raises)
        if handler_errors == "raise":
            _judge_handlers(recording)
        return recording

    def fire(
        self,
        signal: str,
        /,
        *,
        sender: Any = None,
        without: Collection[str] = (),
        handler_errors: Literal["raise", "record"] = "raise",
        **payload: Any,
    ) -> Recording:
        """Send a signal with what a worker would have sent; `payload` are the arguments that matter.

        sender: the task whose signal it is. For `request`, a mapping such as {"retries": 2} is enough.
        without: arguments that Celery sometimes leaves out, such as the `reason` of task_retry.

        Raises LookupError for a signal and TypeError for an argument that Celery never sends, AssertionError
        when nobody listens, and HandlerError.
        """
        __tracebackhide__ = True
        payloads.check(signal, payload)
        if isinstance(sender, Proxy):
            sender = sender._get_current_object()
        if isinstance(sender, Task):
            task, sender = self._of_an_app(sender), None
        else:
            app = self._default_app()
            task = payloads.stand_in() if app is None else payloads.stand_in(app)
        made, arguments, request = payloads.build(signal, task, payload, without)
        with (
            Recorder() as recorder,
            _worker_like(task.app, task, logging.INFO),
            _current(task, request),
        ):
            source = made if sender is None else sender
            signals.SIGNALS[signal].send(sender=source, **arguments)
        recording = replace(recorder.recording, task=task.name)
        if not any(call.signal == signal for call in recording.handlers):
            raise AssertionError(_unheard(signal, recording))
        if handler_errors == "raise":
            _judge_handlers(recording)
        return recording

    def _task_of(self, signature: Signature) -> Task:
        if not isinstance(signature, Signature):
            raise TypeError(f"run() takes a task's signature, not {signature!r}: write run(task.s(...))")
        if type(signature) is not Signature:
            raise TypeError(f"run() takes one task, not a {signature.task.rpartition('.')[2]}: run its tasks")
        return self._of_an_app(signature.type)

    def _of_an_app(self, task: Task) -> Task:
        """The task in the user's app, which is loaded: a shared task may not have met it yet."""
        if not this_process.is_fallback(task.app):
            this_process.load_modules(task.app)
            return task
        app = self._default_app()
        if app is None:
            raise LookupError(
                f"{task.name} has no app: import yours in the test, or name it in [tool.celery-health]"
            )
        return app.tasks[task.name]

    def _default_app(self) -> Celery | None:
        app = this_process.app_of(self._app())
        if app is not None:
            this_process.load_modules(app)
        return app


@contextmanager
def _worker_like(app: Celery, task: Task, loglevel: int | str) -> Iterator[None]:
    with (
        threads.family() as family,
        _LEVEL.held(),
        detached(app, task),
        signals.called_once(),
        sockets.bounded(_PATIENCE),
    ):
        level = logging.getLevelName(loglevel.upper()) if isinstance(loglevel, str) else loglevel
        _LEVEL.change(level, lambda: _lowered(level))
        yield
        _settle(family)


_LEVEL = Tap(lambda _: None)


def _lowered(level: int) -> Callable[[], None]:
    root = logging.getLogger()
    before = root.level
    root.setLevel(min(before, level))
    return lambda: root.setLevel(before)


def _settle(family: set[threading.Thread]) -> None:
    deadline = Deadline(_SETTLE)
    for thread in family - {threading.current_thread()}:
        if thread.ident is not None and not thread.daemon:
            thread.join(deadline.left())


def _through_retries(task: Task, signature: Signature) -> dict[str, Any]:
    args, kwargs, options = signature.args, signature.kwargs, {**signature.options}
    options.setdefault("task_id", None)
    for runs in range(1, _MOST_RUNS + 1):
        request = payloads.request_of(task, args, kwargs, options)
        tracer = build_tracer(task.name, task, app=task.app, hostname=request["hostname"])
        try:
            traced = tracer(request["id"], request["args"], request["kwargs"], request)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told by `exception`
            return {"runs": runs, "exception": error}
        if traced.info is None:
            return {"runs": runs, "state": "SUCCESS", "result": traced.retval}
        if traced.info.state != "RETRY":
            return {"runs": runs, "state": traced.info.state, "exception": traced.info.retval}
        again = traced.info.retval.sig
        args, kwargs = again.args, again.kwargs
        options = {**again.options, "task_id": request["id"]}
    raise AssertionError(f"{task.name} was run {_MOST_RUNS:,} times and retries still; wanted an end")


@contextmanager
def _current(task: Task, request: dict[str, Any] | None) -> Iterator[None]:
    """Have `task` be the one that runs, where the signal is sent within a task."""
    if request is None:
        yield
        return
    _state._task_stack.push(task)
    task.request_stack.push(Context(request, called_directly=False))
    try:
        yield
    finally:
        task.request_stack.pop()
        _state._task_stack.pop()


def _judge_end(recording: Recording, raises: Raises | None) -> None:
    __tracebackhide__ = True
    error = recording.exception
    if raises is None:
        if error is not None and not isinstance(error, (Ignore, Reject)):
            raise AssertionError(
                f"{recording.task} raised {_told(recording, error)};"
                f" wanted a return (raises={type(error).__name__} expects it)"
            ) from error
        return
    wanted = " or ".join(each.__name__ for each in (raises if isinstance(raises, tuple) else (raises,)))
    if error is None:
        raise AssertionError(f"{recording.task} ended as {recording.state}; wanted it to raise {wanted}")
    if not isinstance(error, raises):
        raise AssertionError(f"{recording.task} raised {_told(recording, error)}; wanted {wanted}") from error


def _judge_handlers(recording: Recording) -> None:
    __tracebackhide__ = True
    if recording.errors:
        first = recording.errors[0]
        lines = [_swallowed(recording, call) for call in recording.errors]
        raise HandlerError("\n".join(dict.fromkeys(lines)), recording) from first.exception


def _swallowed(recording: Recording, call: HandlerCall) -> str:
    raised = f"raised {call.error}" if call.exception else call.error
    where = f" ({call.where})" if call.where else ""
    refusal = sockets.refusal_in(call.exception)
    if refusal is not None:
        raised = f"raised {type(call.exception).__name__}: {refusal.strerror}"
    line = f"{call.handler} {recording.masked(raised)} on {call.signal}{where}; Celery would swallow it"
    return line if refusal is None else f"{line}\n  mock an answer, or have the handler catch the error"


def _told(recording: Recording, error: BaseException) -> str:
    return recording.masked(describe(error))


def _unheard(signal: str, recording: Recording) -> str:
    connected = signals.receivers_of(signals.SIGNALS[signal])
    sent = next((call.sender for call in recording.signals if call.signal == signal), "anybody")
    if connected:
        who = ", ".join(":".join(signals.named(each)[:2]) for each in connected)
        return f"nobody listens to {signal} from {sent}; {who} does, but to another sender"
    gone = recording.lost.get(signal)
    if gone:
        return (
            f"nobody listens to {signal} any more: {gone} weakly connected"
            f" handler{' is' if gone == 1 else 's are'} gone; connect with weak=False"
        )
    heard = [name for name, each in signals.SIGNALS.items() if signals.receivers_of(each)]
    return f"nobody listens to {signal}; there are handlers of {', '.join(heard) or 'no signal'}"
