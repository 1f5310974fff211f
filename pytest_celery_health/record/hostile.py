"""Payloads of signals about tasks that Celery does send, and handlers are seldom written for."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from celery.exceptions import InvalidTaskError, Retry, WorkerLostError
from kombu import Message

from pytest_celery_health.record.payloads import arguments_of
from pytest_celery_health.signal_table import SIGNALS as SENT

#: Signals about tasks. The others tell of processes, and are sent with what only a real one has.
SIGNALS = (
    "before_task_publish",
    "after_task_publish",
    "task_received",
    "task_prerun",
    "task_postrun",
    "task_success",
    "task_retry",
    "task_failure",
    "task_internal_error",
    "task_revoked",
    "task_rejected",
    "task_unknown",
)
#: A key of `Payload.secrets` that stands for the exception's text.
EXCEPTION = "exception"

_ENORMOUS = 1_000_000
_TRACEBACK = """Traceback (most recent call last):
  File "worker.py", line 1, in wait_for
billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 9 (SIGKILL) Job: 1.
"""


@dataclass(frozen=True)
class Payload:
    """words: what is special about it. given: the arguments that are not made up. without: those that are
    left out. secrets: values that must not leave, with what they are the values of."""

    words: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()


PLAIN = Payload()


class _Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("the text of the task's exception cannot be had")


class _Lock:
    """Neither JSON nor pickle can hold it."""

    def __reduce__(self) -> str:
        raise TypeError("cannot pickle it")

    def __repr__(self) -> str:
        return "<a lock>"


def payloads(signal: str, keys: frozenset[str]) -> Iterator[Payload]:
    """Those of `signal`, without the plain one. keys: names of arguments whose values are secret."""
    known = arguments_of(signal)
    if "exception" in known:
        for words, error in _exceptions():
            yield Payload(words, {"exception": error})
        yield from _text("exception", lambda error: error)
        yield Payload(
            "a traceback that is text",
            {"exception": WorkerLostError("Worker exited prematurely."), "traceback": _TRACEBACK},
        )
    if "reason" in known:
        for words, error in _exceptions():
            yield Payload(words, {"reason": _retry(error)})
        yield from _text("reason", _retry)
        yield Payload("a retry that names no exception", {"reason": Retry("try again", when=1)})
    for name in SENT[signal].may_lack:
        yield Payload(f"no {name}, as of a task that its worker cancels", {"einfo": None}, without=(name,))
    if "einfo" in known:
        error = _raised(RuntimeError("the task failed"))
        about = {"exception": error} if "exception" in known else {"reason": _retry(error)}
        yield Payload("no einfo", {**about, "einfo": None})
    if "state" in known:
        yield Payload("state None", {"state": None, "retval": None})
        yield Payload("state FAILURE", {"state": "FAILURE", "retval": RuntimeError("the task failed")})
    for name in ("result", "retval"):
        if name in known:
            yield Payload(f"a {name} that JSON and pickle cannot hold", {name: _awkward(_Lock())})
    if signal == "task_revoked":
        yield Payload("an expired task", {"expired": True})
        yield Payload("a task that is ended while it runs", {"terminated": True, "signum": "SIGKILL"})
    if signal == "task_rejected":
        yield Payload("a reason", {"exc": InvalidTaskError("Task keyword arguments must be a mapping")})
        yield Payload("a body of bytes", {"message": _message(b"\xff\xfe\x00", "application/data")})
    yield from _arguments(signal, known, keys)


def _arguments(signal: str, known: tuple[str, ...], keys: frozenset[str]) -> Iterator[Payload]:
    words = "arguments that JSON and pickle cannot hold"
    # What came by message was encoded once; kombu's JSON gives dates and decimals back as such.
    sent = signal in ("task_received", "task_revoked", "task_unknown")
    awkward = _awkward(None if sent else _Lock())
    secrets = {f"{uuid4().hex[:12]}": key for key in sorted(keys)}
    hidden = {key: value for value, key in secrets.items()}
    for what, args, kwargs, values in (
        (words.replace(" and pickle", "") if sent else words, [awkward], {"order": awkward}, {}),
        ("secrets in its arguments", [17, hidden], {**hidden, "account": hidden}, secrets),
    ):
        if "args" in known:
            yield Payload(what, {"args": args, "kwargs": kwargs}, values)
        elif "request" in known:
            yield Payload(what, {"request": {"args": args, "kwargs": kwargs}}, values)
        elif "body" in known:
            embed = dict.fromkeys(("callbacks", "errbacks", "chain", "chord"))
            yield Payload(what, {"body": (tuple(args), kwargs, embed)}, values)
        elif signal == "task_unknown" and values:
            body = json.dumps([args, kwargs, {}]).encode()
            yield Payload(what, {"message": _message(body, "application/json")}, values)


def _exceptions() -> Iterator[tuple[str, Exception]]:
    yield "an exception whose __str__ raises", _Unspeakable()
    yield "an exception whose text is a megabyte", RuntimeError("x" * _ENORMOUS)
    yield "an exception without a text", RuntimeError()


def _text(name: str, wrap: Any) -> Iterator[Payload]:
    value = uuid4().hex[:12]
    error = RuntimeError(f"login failed: password={value}")
    yield Payload("a secret in its exception's text", {name: wrap(error)}, {value: EXCEPTION})


def _raised(error: Exception) -> Exception:
    """With a traceback."""
    try:
        raise error
    except Exception as raised:  # noqa: BLE001 - it is the one
        return raised


def _retry(error: Exception) -> Retry:
    return Retry(exc=error, when=1)


def _awkward(more: object) -> dict[str, Any]:
    return {
        "at": datetime(2026, 1, 15, 12, tzinfo=timezone.utc),
        "price": Decimal("9.90"),
        "id": UUID(int=1),
        **({} if more is None else {"lock": more}),
    }


def _message(body: bytes, content_type: str) -> Message:
    return Message(body=body, content_type=content_type, content_encoding="utf-8", headers={}, properties={})
