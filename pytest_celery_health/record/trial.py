"""One handler of one signal, called with everything that is hard on it, in a process of its own.

Every HTTP request is answered here, and a server that hangs is not waited for: what its client would have
waited is added to the time that the call took.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from celery import Celery, Task

from pytest_celery_health.facts import Call, Leak
from pytest_celery_health.observe.clock import Deadline
from pytest_celery_health.project.child.handlers import Connect, relative
from pytest_celery_health.record import answers, payloads
from pytest_celery_health.record import signals as recorded
from pytest_celery_health.record.hostile import EXCEPTION, PLAIN, Payload
from pytest_celery_health.record.hostile import payloads as hostile_payloads
from pytest_celery_health.record.in_process import CelerySignals
from pytest_celery_health.record.recorder import Recorder
from pytest_celery_health.record.recording import (
    Entry,
    HandlerCall,
    LogRecord,
    MetricChange,
    Recording,
    Request,
    SignalCall,
    one_line,
)
from pytest_celery_health.record.sockets import refusal_in

Tell = Callable[[str, Mapping[str, Any]], None]

#: What the alert server does, and how that is told.
_FAULTS: Mapping[answers.Answer, str] = {
    answers.REFUSES: "refuses",
    answers.HANGS: "hangs",
    404: "answers 404",
    429: "answers 429",
    500: "answers 500",
}
#: Enough for most clients: Slack's, PagerDuty's and those that want JSON at all.
_WELL = (200, '{"ok": true, "status": "success", "message": "ok", "id": "1"}')
_CLIENTS = ("httpx", "requests", "urllib3.connection")
_SIGNAL_LOGGER = "celery.utils.dispatch.signal"
#: Signals whose sender is the worker's consumer.
_OF_CONSUMER = ("task_received", "task_rejected", "task_unknown")
_OF_PUBLISHER = ("before_task_publish", "after_task_publish")
_MOST_REPRESENTATIVES = 3
_MOST_RETRIES = 20
#: Numbers of retries that do not come, and that a handler may wait for all the same.
_BEYOND = 10
#: Seconds that threads which a handler set to work get to come to rest.
_REST = 1.0
#: Seconds that a call may take here beside its waiting.
_NOISE = 0.5
#: How often they must be seen at the same place for that, a little while apart.
_ALIKE = 5
#: Of database drivers and clients of brokers, whose servers are not here.
_UNREACHABLE = {"OperationalError", "InterfaceError", "ServerSelectionTimeoutError", "AutoReconnect"}


#: A call without anything special, its task, and the hosts that it asked.
_Plain = tuple[Call, Task, tuple[str, ...]]


class _Forever(BaseException):
    """The call would never end."""


@dataclass
class Trying:
    """connect: the handler. tasks: whose signals it is called for. consumer: the worker's. secrets: names of
    secret arguments. path: of the project's code."""

    connect: Connect
    app: Celery
    tasks: Sequence[Task]
    consumer: Any
    secrets: frozenset[str]
    path: list[str]

    def run(self, tell: Tell) -> None:
        """Call the handler with every payload. The signal's other receivers are gone afterwards.

        tell: is told of each call at its "begin", of the "call" at its end, and "idle" of a handler that was
        not seen to do anything.
        """
        self.tell = tell
        self.signal = self.connect.signal_name
        self._waited = 0.0
        self._unbounded: list[str] = []
        self._script: dict[str, answers.Answer] = {}
        self._asked: tuple[str, ...] = ()
        self._doubted: set[type[BaseException]] = set()
        self._refusals = _Refusals()
        rest = self._rest
        self.connect.signal.receivers = [self.connect.entry]
        self.connect.signal.connect(rest, weak=False)
        recorded.not_told_of(rest)
        with ExitStack() as stack:
            self._celery = stack.enter_context(CelerySignals())
            # What the seal lets through is none of the recorder's business.
            for endpoint in os.environ.get("CELERY_HEALTH_SEAL", "").split():
                self._celery.allow(endpoint)
            stack.enter_context(answers.waiting(self._wait))
            self._recorder = stack.enter_context(Recorder())
            self._matrix()

    def _matrix(self) -> None:
        plain: list[_Plain] = []
        for task in self.tasks:
            for retries in self._retries(task):
                call = self._call(task, retries=retries)
                plain.append((call, task, self._asked))
        for call, task, hosts in _representatives(plain):
            for payload in hostile_payloads(self.signal, self.secrets):
                self._call(task, payload, retries=call.retries)
            for host in hosts:
                for answer in _FAULTS:
                    self._call(task, retries=call.retries, host=host, answer=answer)
            if call.most is not None:
                for retries in range(call.most, call.most + _BEYOND):
                    self._call(task, retries=retries)
        if not any(call.does for call, _, _ in plain):
            self._idle()

    def _retries(self, task: Task) -> list[int | None]:
        """The numbers that its signal tells, as far as handlers may care."""
        if self.signal != "task_retry":
            return [None]
        most = _most_retries(task)
        if most is None:
            return [*range(4), 10, 100]
        return sorted({*range(min(most, _MOST_RETRIES)), *range(max(most - 1, 0), most)})

    def _idle(self) -> None:
        """Tell which line of the handler never runs, and for what name of a task it would do something."""
        code = self.connect.its_code
        if code is None:
            return
        seen: set[int] = set()

        def line(frame: FrameType, *_: object) -> Any:
            seen.add(frame.f_lineno)
            return line

        def trace(frame: FrameType, *_: object) -> Any:
            return line if frame.f_code is code else None

        sys.settrace(trace)
        try:
            for task in self.tasks:
                for retries in self._retries(task):
                    self._fire(Call(), task, PLAIN, retries)
        finally:
            sys.settrace(None)
        left = {number for _, _, number in code.co_lines() if number} - {code.co_firstlineno} - seen
        if not left:
            return
        would = ""
        for task in self.tasks:
            short = task.name.rpartition(".")[2]
            if short != task.name and self._fire(Call(), _called(task, short), PLAIN, None).does:
                would = short
                break
        where = relative(f"{code.co_filename}:{min(left)}", self.path)
        self.tell("idle", {"skipped": where, "would": would})

    def _call(
        self,
        task: Task,
        payload: Payload = PLAIN,
        *,
        retries: int | None = None,
        host: str = "",
        answer: answers.Answer = 200,
    ) -> Call:
        words = f"{host} {_FAULTS[answer]}" if host else payload.words
        most = None if retries is None else _most_retries(task)
        rare = bool(payload.without)
        call = Call(task.name, words, rare, retries=retries, most=most, at_fault=host)
        self._script = {host: answer} if host else {}
        self.tell("begin", asdict(call))
        call = self._fire(call, task, payload, retries)
        self._script = {}
        self.tell("call", asdict(call))
        return call

    def _fire(self, call: Call, task: Task, payload: Payload, retries: int | None) -> Call:
        """`call` with what came of it."""
        for _ in range(2):
            loaded = {name for name in _CLIENTS if name in sys.modules}
            entries, raised = self._sent(task, payload, retries)
            # Nobody answered for a client that the handler was the first to import.
            if loaded == {name for name in _CLIENTS if name in sys.modules}:
                break
        return self._told(call, payload, entries, raised)

    def _sent(
        self, task: Task, payload: Payload, retries: int | None
    ) -> tuple[list[Entry], BaseException | None]:
        given = dict(payload.given)
        if retries is not None:
            given["request"] = {**given.get("request", {}), "retries": retries}
        sender: Any = task
        if self.signal in _OF_CONSUMER:
            given = payloads.build(self.signal, task, given)[1]
            sender = self.consumer
        self._waited = 0.0
        self._unbounded = []
        self._refusals.forget()
        entries = self._recorder.memory.entries
        entries.clear()
        raised: BaseException | None = None
        with answers.answering(self._answer):
            try:
                self._celery.fire(
                    self.signal, sender=sender, without=payload.without, handler_errors="record", **given
                )
            except BaseException as error:  # noqa: BLE001 - SystemExit, and what else Celery lets through
                raised = error
        self._recorder.checkpoint()
        return list(entries), raised

    def _answer(self, host: str, port: int | None) -> answers.Answer | None:
        del port
        return self._script.get(host, _WELL)

    def _wait(self, host: str, seconds: float | None) -> None:
        if seconds is None:
            self._unbounded.append(host)
            raise _Forever
        if threading.current_thread() is threading.main_thread():
            self._waited += seconds

    def _rest(self, **_: object) -> None:
        """Let the threads that the handler set to work come to where they wait for more."""
        before: object = None
        alike, deadline, pause = 0, Deadline(_REST), threading.Event()
        mine = threading.get_ident()
        while alike < _ALIKE and not deadline.passed:
            frames = sys._current_frames().items()
            at = {thread: (id(frame), frame.f_lasti) for thread, frame in frames if thread != mine}
            if not at:
                return
            alike = alike + 1 if at == before and not _is_busy() else 0
            before = at
            pause.wait(0.002)

    def _told(self, call: Call, payload: Payload, entries: list[Entry], raised: BaseException | None) -> Call:
        handled = [e for e in entries if isinstance(e, HandlerCall) and e.signal == self.signal]
        requests = [e for e in entries if isinstance(e, Request) and e.method]
        logs = [e for e in entries if isinstance(e, LogRecord) and e.logger != _SIGNAL_LOGGER]
        self._asked = tuple(dict.fromkeys(request.host for request in requests))
        error, doubt = "", ""
        if handled and handled[0].error and not isinstance(handled[0].exception, _Forever):
            exception = handled[0].exception
            said = f"raised {handled[0].error}" if exception else handled[0].error
            error = one_line(Recording(tuple(entries)).masked(said))
            doubt = self._doubt(call, exception, entries, requests)
            if refusal_in(exception):  # its words are for whoever writes a test
                error = f"raised {type(exception).__name__}"
        elif not handled and raised is not None:
            error = f"was not called: {one_line(str(raised))}"
        took = handled[0].duration if handled else 0.0
        if self._waited:
            # A client's timeout is exact; what little the rest took is this machine's affair.
            took = self._waited + (took if took > _NOISE else 0.0)
        return replace(
            call,
            does=tuple(_does(entries, requests, logs, self.signal)),
            failed=tuple(host for host in self._asked if not any(_is_good(r, host) for r in requests)),
            took=took,
            unbounded=tuple(self._unbounded),
            error=error,
            doubt=doubt,
            logged=any(_level(record) >= logging.WARNING for record in logs),
            leaks=tuple(dict.fromkeys(_leaks(payload.secrets, requests, logs))),
        )

    def _doubt(
        self,
        call: Call,
        error: BaseException | None,
        entries: Sequence[Entry],
        requests: Sequence[Request],
    ) -> str:
        if error is None:
            return ""
        addresses = [e.url.removeprefix("tcp://") for e in entries if isinstance(e, Request) and not e.method]
        addresses += self._refusals.new()
        if addresses:
            return f"{addresses[0]} is not to be reached; allow it in [tool.celery-health.sandbox]"
        if not requests and _is_unreachable(error):
            return "what it wants to reach is not here"
        if requests and requests[-1].status is not None and requests[-1].status < 300:
            if not call.payload:
                self._doubted.add(type(error))
            if type(error) in self._doubted:
                return f"{requests[-1].host} may answer otherwise than {_WELL[1]}"
        return ""


class _Refusals:
    """What the seal refused in this process, by its own log."""

    def __init__(self) -> None:
        self._log = Path(os.environ.get("CELERY_HEALTH_SEAL_LOG", os.devnull))
        self._at = 0

    def forget(self) -> None:
        with suppress(FileNotFoundError):
            self._at = self._log.stat().st_size

    def new(self) -> list[str]:
        try:
            data = self._log.read_bytes()[self._at :]
        except FileNotFoundError:
            return []
        lines = [json.loads(line) for line in data.decode().splitlines() if line.endswith("}")]
        return [str(line["address"]) for line in lines if line["pid"] == os.getpid()]


def tasks_of(connect: Connect, tasks: Sequence[Task]) -> list[Task]:
    """Those whose signals reach the handler."""
    sender = connect.sender
    if connect.signal_name in _OF_CONSUMER:
        # What it tells of is no task that the app knows, or is told by the task's name in a message.
        return list(tasks) if connect.signal_name == "task_received" else list(tasks[:1])
    if sender is None:
        return list(tasks)
    if connect.signal_name in _OF_PUBLISHER:
        return [task for task in tasks if task.name == sender]
    return [task for task in tasks if task is sender]


def _representatives(plain: Iterable[_Plain]) -> list[_Plain]:
    """A call of each kind of doing, those first that do the most."""
    kinds: dict[tuple[str, ...], _Plain] = {}
    for each in plain:
        kinds.setdefault(each[0].does, each)
    return sorted(kinds.values(), key=lambda each: -len(each[0].does))[:_MOST_REPRESENTATIVES]


def _most_retries(task: Task) -> int | None:
    """How often Celery retries it at most; None for no end, or where its own code says another number."""
    code = getattr(inspect.unwrap(getattr(task, "_orig_run", task.run)), "__code__", None)
    names = [name for const in getattr(code, "co_consts", ()) if isinstance(const, tuple) for name in const]
    if "max_retries" in names:
        return None
    options = getattr(task, "retry_kwargs", None) or {}
    most: int | None = options.get("max_retries", task.max_retries)
    return most


def _called(task: Task, name: str) -> Task:
    """As the task, under another name. Copying would give the registered task back."""
    other: Task = object.__new__(type(task))
    vars(other).update(vars(task))
    other.name = name
    return other


def _does(
    entries: Sequence[Entry], requests: Sequence[Request], logs: Sequence[LogRecord], signal: str
) -> Iterator[str]:
    words = [request.host for request in requests]
    words += [f"log {record.level}" for record in logs if _level(record) >= logging.INFO]
    for entry in entries:
        if isinstance(entry, MetricChange):
            words.append(f"metric {entry.name}")
        if isinstance(entry, SignalCall) and entry.signal != signal and entry.signal in _OF_PUBLISHER:
            words.append("a task")
    yield from dict.fromkeys(words)


def _is_good(request: Request, host: str) -> bool:
    return request.host == host and request.status is not None and request.status < 400


def _level(record: LogRecord) -> int:
    level = logging.getLevelName(record.level)
    return level if isinstance(level, int) else 0


def _leaks(
    secrets: Mapping[str, str], requests: Sequence[Request], logs: Sequence[LogRecord]
) -> Iterator[Leak]:
    for value, key in secrets.items():
        for request in requests:
            if any(value in text for text in (request.url, request.body, *request.headers.values())):
                yield Leak(key, request.host)
        # Celery itself logs the texts of exceptions.
        if key != EXCEPTION and any(
            value in text
            for record in logs
            for text in (record.message, json.dumps(record.fields, default=str), record.exception)
        ):
            yield Leak(key)


def _is_busy() -> bool:
    """Whether another thread of this process has work to do and waits for a processor, where Linux tells."""
    mine = str(threading.get_native_id())
    try:
        threads = [thread for thread in os.listdir("/proc/self/task") if thread != mine]
        states = [Path(f"/proc/self/task/{thread}/stat").read_text() for thread in threads]
    except OSError:
        return False
    return any(state.rpartition(") ")[2][:1] == "R" for state in states)


def _is_unreachable(error: BaseException | None) -> bool:
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        if isinstance(error, (ConnectionError, TimeoutError)) or type(error).__name__ in _UNREACHABLE:
            return True
        seen.append(error)
        error = error.__cause__ or error.__context__
    return False
