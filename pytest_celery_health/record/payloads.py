"""Payloads of signals, made up as a worker would have built them."""

from __future__ import annotations

import difflib
import functools
import inspect
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import celery
from billiard.einfo import ExceptionInfo
from celery import Celery, Task
from celery.app.task import Context
from celery.exceptions import NotRegistered, Retry
from celery.utils.nodenames import default_nodename
from kombu import Message
from kombu.serialization import dumps, loads
from kombu.utils.uuid import uuid

from pytest_celery_health.signal_table import SIGNALS

#: What a worker of this machine is called, unless it is told.
node = functools.lru_cache(maxsize=1)(functools.partial(default_nodename, None))


def arguments_of(signal: str, version: str = celery.__version__) -> tuple[str, ...]:
    """The arguments that a Celery of this version sends with `signal`.

    Raises LookupError, with the nearest name, for one that Celery never sends.
    """
    if signal not in SIGNALS:
        raise LookupError(f"Celery never sends {signal!r}{_nearest(signal, SIGNALS)}")
    return SIGNALS[signal].by(version)


def check(signal: str, given: Iterable[str], version: str = celery.__version__) -> None:
    """Raise LookupError for a signal, TypeError for an argument, that Celery never sends."""
    known = arguments_of(signal, version)
    for name in given:
        if name not in known:
            since = SIGNALS[signal].since.get(name)
            why = f" before {since} (this is {version})" if since else _nearest(name, known)
            raise TypeError(
                f"Celery never sends {name!r} with {signal}{why};"
                f" it sends {', '.join(known) or 'nothing but the sender'}"
            )


def _nearest(name: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {found[0]!r}?" if found else ""


def stand_in(app: Celery | None = None) -> Task:
    """The task that payloads are of when no task is named; it is registered nowhere."""

    class StandIn(Task):  # type: ignore[misc]
        name = "celery_health.stand_in"

        def run(self, *_: object, **__: object) -> None:
            """Does nothing."""

    StandIn.bind(app or Celery("celery_health", broker="memory://", set_as_current=False))
    return StandIn()


def build(
    signal: str, task: Task, given: Mapping[str, Any], without: Collection[str] = ()
) -> tuple[Any, dict[str, Any], dict[str, Any] | None]:
    """Sender, arguments, and the request that the task's context would hold (None outside of a task).

    given: arguments that are not to be made up. without: those that are left out.
    Raises LookupError and TypeError as `check` does.
    """
    check(signal, given)
    for name in without:
        if name not in SIGNALS[signal].may_lack:
            raise TypeError(f"Celery never sends {signal} without {name!r}")
    if "exception" in given and not isinstance(given["exception"], BaseException):
        raise TypeError(f"exception is {given['exception']!r}; Celery sends an exception")
    payload = _Payload(signal, task, given)
    arguments = {name: payload.argument(name) for name in arguments_of(signal) if name not in without}
    in_task = signal in _IN_TASK
    return payload.sender(), arguments, payload.request_dict if in_task else None


_IN_TASK = {"task_prerun", "task_postrun", "task_success", "task_retry", "task_failure"}
_OF_TASK = {*_IN_TASK, "task_internal_error", "task_revoked"}
_BY_NAME = {"before_task_publish", "after_task_publish", "task_sent"}
_BY_NODE = {"celeryd_init", "celeryd_after_setup", "worker_process_init", "worker_process_shutdown"}
_BY_NOBODY = {"setup_logging", "after_setup_logger", "after_setup_task_logger"}


@dataclass(frozen=True, eq=False)
class Part:
    """Stands for a worker, a consumer or beat, of which a handler may read these."""

    app: Celery
    hostname: str
    pid: int = 0


class _Payload:
    """One signal's arguments, made of each other where they belong together."""

    def __init__(self, signal: str, task: Task, given: Mapping[str, Any]) -> None:
        self.signal = signal
        self.task = task
        self.app: Celery = task.app
        self.given = dict(given)
        request = self.given.get("request")
        if isinstance(request, Mapping):
            self.request_dict = _request_dict(task, {**self._identity(), **request})
            del self.given["request"]
        else:
            self.request_dict = _request_dict(task, self._identity())

    def _identity(self) -> dict[str, Any]:
        names = {"task_id": "id", "args": "args", "kwargs": "kwargs"}
        return {ours: self.given[name] for name, ours in names.items() if name in self.given}

    def sender(self) -> Any:
        if self.signal in _OF_TASK:
            return self.task
        if self.signal in _BY_NAME:
            return self.task.name
        if self.signal in _BY_NODE:
            return node()
        if self.signal == "import_modules":
            return self.app
        return None if self.signal in _BY_NOBODY else self._part()

    def _part(self) -> Part:
        return Part(self.app, node())

    def argument(self, name: str) -> Any:
        if name in self.given:
            return self.given[name]
        make = getattr(self, f"_{name}", None)
        value = make() if make is not None else _PLAIN.get((self.signal, name), _PLAIN.get(("", name)))
        self.given[name] = value
        return value

    def _task(self) -> Any:
        return self.task.name if self.signal == "task_sent" else self.task

    def _task_id(self) -> str:
        return str(self.request_dict["id"])

    _id = _task_id

    def _name(self) -> str:
        return str(self.task.name)

    def _args(self) -> Any:
        return self.request_dict["args"]

    def _kwargs(self) -> Any:
        return self.request_dict["kwargs"]

    def _exception(self) -> BaseException:
        return RuntimeError("fired by celery_signals")

    def _einfo(self) -> Any:
        error = self.argument("reason" if self.signal == "task_retry" else "exception")
        return _einfo(error)

    def _traceback(self) -> Any:
        self.argument("einfo")
        return self.argument("exception").__traceback__

    def _reason(self) -> Retry:
        return Retry(exc=RuntimeError("fired by celery_signals"), when=self.task.default_retry_delay)

    def _request(self) -> Any:
        if self.signal in ("task_received", "task_revoked"):
            from celery.worker.request import Request

            return Request(self._message(), app=self.app, task=self.task, hostname=node())
        if self.signal == "task_internal_error":
            return self.request_dict
        return Context(self.request_dict)

    def _exc(self) -> Any:
        return NotRegistered(self.task.name) if self.signal == "task_unknown" else None

    def _message(self) -> Message:
        if self.signal == "task_rejected":
            return Message(body=b"{}", content_type="application/json", content_encoding="utf-8")
        content_type, encoding, body = dumps(self._body(), "json")
        return Message(
            body=body,
            content_type=content_type,
            content_encoding=encoding,
            headers=self._headers(),
            properties=self._properties(),
            delivery_info=self.request_dict["delivery_info"],
        )

    def _body(self) -> Any:
        embed = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
        return self.request_dict["args"], self.request_dict["kwargs"], embed

    def _headers(self) -> dict[str, Any]:
        ours = ("args", "kwargs", "delivery_info", "hostname", "is_eager", "properties")
        return {name: value for name, value in self.request_dict.items() if name not in ours}

    def _properties(self) -> dict[str, Any]:
        return {"correlation_id": self.request_dict["id"], "reply_to": "", "delivery_mode": 2, "priority": 0}

    def _exchange(self) -> str:
        return str(self.request_dict["delivery_info"]["exchange"])

    def _routing_key(self) -> str:
        return str(self.request_dict["delivery_info"]["routing_key"])

    def _retry_policy(self) -> dict[str, Any]:
        return dict(self.app.conf.task_publish_retry_policy)

    def _instance(self) -> Any:
        return self._part()

    def _conf(self) -> Any:
        return self.app.conf

    def _app(self) -> Celery:
        return self.app

    def _logger(self) -> logging.Logger:
        return logging.getLogger("celery.task" if self.signal == "after_setup_task_logger" else None)

    def _format(self) -> str:
        task = self.signal == "after_setup_task_logger"
        return str(self.app.conf.worker_task_log_format if task else self.app.conf.worker_log_format)


_PLAIN: dict[tuple[str, str], Any] = {
    ("", "state"): "SUCCESS",
    ("", "runtime"): 0.01,
    ("", "terminated"): False,
    ("", "expired"): False,
    ("", "loglevel"): logging.INFO,
    ("", "colorize"): False,
    ("", "pid"): 0,
    ("worker_process_shutdown", "exitcode"): 0,
    ("worker_shutting_down", "exitcode"): 0,
    ("", "sig"): "SIGTERM",
    ("", "how"): "Warm",
    ("", "target"): print,
}


def _einfo(error: BaseException) -> ExceptionInfo:
    """As of an exception that was raised, which gets a traceback if it has none."""
    if error.__traceback__ is None:
        try:
            raise error
        except type(error):
            pass
    return ExceptionInfo((type(error), error, error.__traceback__))


def request_of(task: Task, args: Any, kwargs: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """The request that a worker would have made of a message for `task`, built and encoded by Celery.

    Raises kombu's EncodeError for arguments that the task's serializer cannot encode, as sending them would.
    """
    app: Celery = task.app
    known = _parameters(type(app.amqp).as_task_v2)
    told = {name: value for name, value in options.items() if name in known}
    told |= {"callbacks": _listed(options.get("link")), "errbacks": _listed(options.get("link_error"))}
    # When to run is not for this process to say.
    for name in ("countdown", "eta", "expires", "headers", "name", "args", "kwargs", "task_id"):
        told.pop(name, None)
    limits = {"time_limit": task.time_limit, "soft_time_limit": task.soft_time_limit}
    ignores = {"ignore_result": options.get("ignore_result", task.ignore_result)}
    message = app.amqp.as_task_v2(
        options.get("task_id") or uuid(), task.name, args, kwargs, **{**limits, **ignores, **told}
    )
    serializer = options.get("serializer") or task.serializer or app.conf.task_serializer
    content_type, encoding, body = dumps(message.body, serializer)
    decoded_args, decoded_kwargs, embed = loads(body, content_type, encoding, accept={content_type})
    return {
        **message.headers,
        **(options.get("headers") or {}),
        **embed,
        "args": decoded_args,
        "kwargs": decoded_kwargs,
        "properties": message.properties,
        "correlation_id": message.properties["correlation_id"],
        "reply_to": message.properties["reply_to"],
        "hostname": node(),
        "is_eager": bool(app.conf.task_always_eager),
        "delivery_info": _delivery_info(task, options),
    }


@functools.lru_cache(maxsize=10)
def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters)


def _request_dict(task: Task, told: Mapping[str, Any]) -> dict[str, Any]:
    request = request_of(task, (), {}, {})
    return {**request, "args": [], "kwargs": {}, **told}


def _delivery_info(task: Task, options: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: options[name] for name in ("queue", "exchange", "routing_key") if options.get(name)}
    routed = task.app.amqp.router.route(asked, task.name)
    queue = routed.get("queue")
    key = routed.get("routing_key") or getattr(queue, "name", None) or task.app.conf.task_default_queue
    exchange = routed.get("exchange") or ""
    return {"exchange": str(exchange), "routing_key": key, "priority": 0, "redelivered": False}


def _listed(link: Any) -> Any:
    return link if link is None or isinstance(link, (list, tuple)) else [link]
