"""What was recorded, as plain data, and the assertions on it. Standard library only."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import KW_ONLY, asdict, dataclass, field, fields
from typing import Any, TypeVar
from urllib.parse import unquote_plus, urlsplit

from pytest_celery_health.facts import Delivery
from pytest_celery_health.facts.logs import nobody
from pytest_celery_health.hosts import same_host
from pytest_celery_health.masking import HIDDEN, mask
from pytest_celery_health.record.plain import cut

_SECRET = re.compile(
    r"""((?:password|passwd|secret|token|credential|key)["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[^\s&,;}"']+)""",
    re.IGNORECASE,
)
_LINE = 120


@dataclass(frozen=True, repr=False)
class Entry:
    """One thing that was seen, and where.

    at: seconds of the machine's monotonic clock, comparable between its processes.
    process: "main" for the process that began to record, "child" for one that was forked from it.
    task, task_id: the task that this thread was running, or "".
    """

    _: KW_ONLY
    at: float = 0.0
    process: str = "main"
    pid: int = 0
    task: str = ""
    task_id: str = ""

    def line(self) -> str:
        """What it is in one line, for a message: neither arguments nor secrets."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {one_line(self.line())}>"


@dataclass(frozen=True, repr=False)
class SignalCall(Entry):
    """A signal was sent, with these arguments. `receivers` is how many handlers were called."""

    signal: str
    sender: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    receivers: int = 0

    def line(self) -> str:
        state = f" {self.arguments['state']}" if self.arguments.get("state") else ""
        return f"{self.signal}{state} from {self.sender}, {_count(self.receivers, 'handler')}"


@dataclass(frozen=True, repr=False)
class HandlerCall(Entry):
    """A handler was called.

    handler: "module:qualname". where: "file:line".
    error: what it raised, or why it did nothing; "" when neither. duration: seconds.
    exception: what it raised, in the process where it was raised.
    """

    signal: str
    handler: str
    where: str = ""
    result: Any = None
    error: str = ""
    traceback: str = ""
    duration: float = 0.0
    exception: BaseException | None = field(default=None, compare=False, metadata={"plain": False})

    def line(self) -> str:
        ended = f" raised {self.error}" if self.exception or self.traceback else f" {self.error}"
        return f"{self.handler} on {self.signal}{ended if self.error else ''}"


@dataclass(frozen=True, repr=False)
class LogRecord(Entry):
    """A log record that a logger let through.

    level: its name, such as "ERROR". message: formatted; the event of structlog or of a JSON line.
    fields: what `extra`, structlog's context or the JSON line brought. exception: its description, or "".
    deliveries: what log handlers made of it; None where that was not watched, as it is in drills.
    lost: why no handler was asked; "" if one was.
    """

    level: str
    logger: str
    message: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    exception: str = ""
    where: str = ""
    deliveries: tuple[Delivery, ...] | None = None
    lost: str = ""

    def __post_init__(self) -> None:
        if self.deliveries is not None:
            object.__setattr__(self, "deliveries", tuple(_delivery(each) for each in self.deliveries))

    def line(self) -> str:
        return f"{self.level} {self.logger}: {self.message}"

    @property
    def nobody(self) -> str:
        """Why nobody took it; "" if somebody did, or that was not watched."""
        return nobody(self.lost, self.deliveries or ())


@dataclass(frozen=True, repr=False)
class LogWritten(Entry):
    """A log handler was given a record by another handler, or from a queue."""

    logger: str
    message: str
    delivery: Delivery

    def __post_init__(self) -> None:
        object.__setattr__(self, "delivery", _delivery(self.delivery))

    def line(self) -> str:
        return f"{self.delivery.title} takes of {self.logger}: {self.message}"


@dataclass(frozen=True, repr=False)
class LogSetup(Entry):
    """Logging as a process has it: what `record.log_setup` saw, as plain data."""

    setup: Mapping[str, Any]

    def line(self) -> str:
        return f"logging of process {self.pid}"


@dataclass(frozen=True, repr=False)
class Request(Entry):
    """An outgoing request.

    method: "" for a connection whose protocol is not HTTP; its URL is then "tcp://host:port".
    body: as it was sent, or "" where it was streamed. status: None when there was no answer; `error` says
    why. duration: seconds.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    status: int | None = None
    error: str = ""
    duration: float = 0.0

    @property
    def host(self) -> str:
        return (urlsplit(self.url).hostname or "").lower()

    @property
    def text(self) -> str:
        """The body as text; JSON without its escapes, a form without its percent signs."""
        kind = next((value for name, value in self.headers.items() if name.lower() == "content-type"), "")
        if "urlencoded" in kind:
            return unquote_plus(self.body)
        try:
            return json.dumps(json.loads(self.body), ensure_ascii=False)
        except ValueError:
            return self.body

    def json(self) -> Any:
        """The body's JSON. Raises ValueError."""
        return json.loads(self.body)

    @property
    def place(self) -> str:
        """The URL without what may be a secret: its user, the end of its path, its query."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        first, *rest = parts.path.strip("/").split("/")
        path = f"/{first}" + ("/…" if rest else "") if first else ""
        return f"{parts.scheme}://{host}{path}"

    def line(self) -> str:
        answer = self.status if self.status is not None else self.error or "no answer"
        return f"{self.method} {self.place} ({answer}) {self.text}".strip()


@dataclass(frozen=True, repr=False)
class MetricChange(Entry):
    """A sample of Prometheus' default registry changed. `before` is None when it was not there."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    before: float | None = None
    after: float = 0.0

    @property
    def by(self) -> float:
        return self.after - (self.before or 0.0)

    def line(self) -> str:
        labels = ", ".join(f'{name}="{value}"' for name, value in self.labels.items())
        return f"{self.name}{{{labels}}} by {self.by:+g} to {self.after:g}"


_KINDS: dict[str, type[Entry]] = {
    kind.__name__: kind
    for kind in (SignalCall, HandlerCall, LogRecord, LogWritten, LogSetup, Request, MetricChange)
}
_E = TypeVar("_E", bound=Entry)


@dataclass(frozen=True, repr=False)
class Recording:
    """What happened, in order, and how the task ended.

    entries: everything, in the order in which it began.
    state: the task's last state, such as "SUCCESS"; "" when no task was run, or it was ended from outside.
    runs: how often it was run, retries included. result, exception: what it returned or raised at last.
    lost: weakly connected handlers that were gone when the recording began, by signal.
    """

    entries: tuple[Entry, ...] = ()
    _: KW_ONLY
    task: str = ""
    state: str = ""
    runs: int = 0
    result: Any = None
    exception: BaseException | None = None
    lost: Mapping[str, int] = field(default_factory=dict)

    @property
    def signals(self) -> tuple[SignalCall, ...]:
        return self._of(SignalCall)

    @property
    def handlers(self) -> tuple[HandlerCall, ...]:
        return self._of(HandlerCall)

    @property
    def errors(self) -> tuple[HandlerCall, ...]:
        """The handlers' calls that raised, or whose body never ran."""
        return tuple(call for call in self.handlers if call.error)

    @property
    def logs(self) -> tuple[LogRecord, ...]:
        return self._of(LogRecord)

    @property
    def requests(self) -> tuple[Request, ...]:
        return self._of(Request)

    @property
    def metrics(self) -> tuple[MetricChange, ...]:
        return self._of(MetricChange)

    def requests_to(self, host: str) -> tuple[Request, ...]:
        """The requests to `host` or to a subdomain of it."""
        return tuple(request for request in self.requests if same_host(request.host, host))

    def expect_request(
        self, host: str, *, containing: str = "", method: str = "", count: int | None = None
    ) -> Request:
        """The first request to `host` (or a subdomain) whose text holds `containing`.

        count: how many there must be; None for at least one. Raises AssertionError.
        """
        __tracebackhide__ = True

        def fits(request: Request) -> bool:
            return (
                same_host(request.host, host)
                and (containing in request.text or containing in request.body)
                and method.upper() in ("", request.method)
            )

        wanted = _words(f"{method.upper()} request".strip(), f"to {host}", _containing(containing))
        return self._expect(self.requests, fits, wanted, "request", count)

    def expect_log(
        self,
        *,
        level: str = "",
        logger: str = "",
        containing: str = "",
        count: int | None = None,
        **fields: Any,
    ) -> LogRecord:
        """The first log record of this level, logger (or one below it), text and fields.

        fields: what `extra`, structlog or a JSON line brought, and `task`, `task_id`. Raises AssertionError.
        """
        __tracebackhide__ = True

        def fits(record: LogRecord) -> bool:
            brought = {**record.fields, "task": record.task, "task_id": record.task_id}
            return (
                level.upper() in ("", record.level)
                and (not logger or f"{record.logger}.".startswith(f"{logger}."))
                and (containing in record.message or containing in record.exception)
                and all(name in brought and brought[name] == value for name, value in fields.items())
            )

        wanted = _words(
            f"{level.upper()} log record".strip(),
            logger and f"of {logger}",
            _containing(containing),
            fields and "with " + ", ".join(f"{name}={value!r}" for name, value in fields.items()),
        )
        return self._expect(self.logs, fits, wanted, "log record", count)

    def expect_signal(self, signal: str, *, count: int | None = None) -> SignalCall:
        """The first time that `signal` was sent. Raises AssertionError."""
        __tracebackhide__ = True
        return self._expect(
            self.signals, lambda call: call.signal == signal, f"signal {signal}", "signal", count
        )

    def expect_handler(self, handler: str, *, signal: str = "", count: int | None = None) -> HandlerCall:
        """The first call of `handler`, "module:qualname" or its last part. Raises AssertionError."""
        __tracebackhide__ = True

        def fits(call: HandlerCall) -> bool:
            named = f".{call.handler.replace(':', '.')}".endswith(f".{handler.replace(':', '.')}")
            return named and signal in ("", call.signal)

        wanted = _words(f"call of {handler}", signal and f"on {signal}")
        return self._expect(self.handlers, fits, wanted, "handler's call", count)

    def expect_metric(self, name: str, /, *, by: float | None = None, **labels: str) -> MetricChange:
        """The change of the sample `name` that has these labels. Raises AssertionError."""
        __tracebackhide__ = True

        def fits(change: MetricChange) -> bool:
            labelled = all(change.labels.get(label) == value for label, value in labels.items())
            return change.name == name and labelled and by in (None, change.by)

        wanted = _words(
            f"change of {name}",
            labels and "with " + ", ".join(f"{label}={value!r}" for label, value in labels.items()),
            "" if by is None else f"by {by:+g}",
        )
        return self._expect(self.metrics, fits, wanted, "change", None)

    def masked(self, text: str) -> str:
        """`text` without what secrets can be told: those by name, and the paths of the recorded URLs."""
        for request in self.requests:
            parts = urlsplit(request.url)
            for secret in (parts.query, parts.path if "…" in request.place else ""):
                if len(secret) > 3:
                    text = text.replace(secret, HIDDEN)
        return _SECRET.sub(rf"\1{HIDDEN}", mask(text))

    def listing(self, entries: Iterable[Entry]) -> str:
        """One line for each entry."""
        return "\n".join(f"  {one_line(self.masked(entry.line()))}" for entry in entries)

    def __repr__(self) -> str:
        kinds = [
            (self.signals, "signal"),
            (self.handlers, "handler's call"),
            (self.logs, "log record"),
            (self.requests, "request"),
            (self.metrics, "metric's change"),
        ]
        held = ", ".join(_count(len(found), word) for found, word in kinds if found)
        of = "".join(f" {word}" for word in (self.task, self.state) if word)
        return f"<Recording{of}: {held or 'nothing'}>"

    def _of(self, kind: type[_E]) -> tuple[_E, ...]:
        return tuple(entry for entry in self.entries if isinstance(entry, kind))

    def _expect(
        self,
        seen: tuple[_E, ...],
        fits: Callable[[_E], bool],
        wanted: str,
        word: str,
        count: int | None,
    ) -> _E:
        __tracebackhide__ = True
        if count is not None and count < 1:
            raise ValueError("count must be 1 or more; assert that a list is empty to expect none")
        found = [entry for entry in seen if fits(entry)]
        if found and count in (None, len(found)):
            return found[0]
        told = f"{len(found)} of {_count(len(seen), word)}" if found else _count(len(seen), word, "no")
        times = "" if count is None else f", {_count(count, 'time')}"
        told = f"saw {told}; wanted {'an' if wanted[0] in 'AEIO' else 'a'} {wanted}{times}"
        raise AssertionError("\n".join(filter(None, (self.masked(told), self.listing(seen)))))


class HandlerError(AssertionError):
    """A handler raised, or its body never ran, and Celery would have swallowed it."""

    def __init__(self, message: str, recording: Recording) -> None:
        super().__init__(message)
        self.recording = recording


def to_json(entry: Entry) -> str:
    """An entry as one line of JSON. What is not plain data is left out or becomes its repr."""
    told = {
        each.name: getattr(entry, each.name) for each in fields(entry) if each.metadata.get("plain", True)
    }
    return json.dumps({"kind": type(entry).__name__, **told}, default=_plain)


def from_json(line: str) -> Entry:
    """The entry that `to_json` wrote."""
    told = json.loads(line)
    return _KINDS[told.pop("kind")](**told)


def _plain(value: object) -> Any:
    return asdict(value) if isinstance(value, Delivery) else repr(value)


def _delivery(told: Delivery | Mapping[str, Any]) -> Delivery:
    return told if isinstance(told, Delivery) else Delivery(**told)


def one_line(text: str) -> str:
    return cut(" ".join(text.split()), _LINE)


def _count(number: int, word: str, none: str = "0") -> str:
    return f"{number or none} {word}{'' if number == 1 else 's'}"


def _words(*words: str | bool | Mapping[str, Any]) -> str:
    return " ".join(str(word) for word in words if word)


def _containing(text: str) -> str:
    return f"containing {text!r}" if text else ""
