"""Every log record that a logger lets through, whoever handles it, and every event of structlog."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from pytest_celery_health.facts import Delivery
from pytest_celery_health.record import log_handlers
from pytest_celery_health.record.plain import describe, plain, shown
from pytest_celery_health.record.recording import LogRecord, LogWritten
from pytest_celery_health.record.tap import Tap

_MESSAGES = ("event", "message", "msg")


class _Local(threading.local):
    busy = False
    #: Whether the logger that is at work asked its handlers.
    asked = False
    #: What structlog is about to hand to a logger of the standard library: its name, and the event.
    event: tuple[str, dict[str, Any]] | None = None


_local = _Local()


def _install(tap: Tap) -> None:
    tap.patch(logging.Logger, "callHandlers", _told)
    tap.patch(logging.Logger, "handle", _filtered)
    structlog: Any = sys.modules.get("structlog")
    if structlog is not None:
        processors = structlog.get_config()["processors"]
        tap.change(id(processors), functools.partial(_overhear, processors))


TAP = Tap(_install)


@contextmanager
def handlers_watched() -> Iterator[None]:
    """Have records say which log handlers took them."""
    with log_handlers.watched(_given):
        yield


def _given(record: logging.LogRecord, delivery: Delivery) -> None:
    if TAP.heard:
        TAP.emit(LogWritten(record.name, _message(record), delivery, **TAP.where()))


def _told(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        _local.asked = True
        if not TAP.heard or _local.busy:
            original(logger, record)
            return
        if log_handlers.is_telling():
            with log_handlers.asking(logger, record):
                original(logger, record)
            return
        note = _read(record)
        if not log_handlers.TAP.is_held:
            TAP.emit(note)
            original(logger, record)
            return
        with log_handlers.asking(logger, record) as made:
            try:
                original(logger, record)
            finally:
                taken = any(delivery.taken for delivery in made)  # perhaps by what an SDK has put in between
                lost = "" if taken else log_handlers.why_nobody_is_asked(logger)
                TAP.emit(replace(note, deliveries=tuple(made), lost=lost))

    return call_handlers


def _filtered(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """A record that is not even passed on to handlers, where these are watched."""

    def handle(logger: logging.Logger, record: logging.LogRecord) -> None:
        if not TAP.heard or not log_handlers.TAP.is_held or _local.busy:
            original(logger, record)
            return
        outer, _local.asked = _local.asked, False
        try:
            original(logger, record)
            if not _local.asked:
                why = "the logger is disabled" if logger.disabled else "a filter of the logger refuses it"
                TAP.emit(replace(_read(record), deliveries=(), lost=why))
        finally:
            _local.asked = outer

    return handle


def _read(record: logging.LogRecord) -> LogRecord:
    _local.busy = True
    try:
        return _note(record)
    finally:
        _local.busy = False


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception as error:  # noqa: BLE001 - logging would print it, and write nothing
        return f"{shown(record.msg)} cannot be formatted: {describe(error)}"


def _note(record: logging.LogRecord) -> LogRecord:
    message = _message(record)
    fields = {name: plain(value) for name, value in log_handlers.brought_by(record).items()}
    inner: Mapping[str, Any] = record.msg if isinstance(record.msg, Mapping) else _object(message)
    name, event = _local.event or ("", {})
    if name == record.name and str(event.get("event")) in message:
        inner = event
    _local.event = None
    if inner:
        message = next((str(inner[key]) for key in _MESSAGES if key in inner), message)
        fields |= {key: plain(value) for key, value in inner.items() if key not in _MESSAGES}
    raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    return LogRecord(
        record.levelname,
        record.name,
        message,
        fields,
        describe(raised) if raised else "",
        f"{record.pathname}:{record.lineno}",
        **TAP.where(),
    )


def _object(text: str) -> dict[str, Any]:
    """The JSON object that `text` is, or {}."""
    if not text.startswith("{"):
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _overhear(processors: Any) -> Callable[[], None]:
    # In place, as loggers keep the list; before the renderer, which makes text of the event.
    if not isinstance(processors, list):
        return lambda: None
    processors.insert(max(0, len(processors) - 1), _event)
    return lambda: processors.remove(_event) if _event in processors else None


def _event(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not TAP.heard:
        return event
    if isinstance(logger, logging.Logger):
        _local.event = (logger.name, dict(event))
        return event
    told = {key: value for key, value in event.items() if key != "event"}
    level = "error" if method == "exception" else method
    raised = told.pop("exc_info", None)
    error = sys.exc_info()[1] if raised is True else raised[1] if isinstance(raised, tuple) else raised
    TAP.emit(
        LogRecord(
            str(told.pop("level", level)).upper(),
            str(told.pop("logger", "structlog")),
            str(event.get("event", "")),
            {key: plain(value) for key, value in told.items()},
            describe(error) if isinstance(error, BaseException) else "",
            **TAP.where(),
        )
    )
    return event
