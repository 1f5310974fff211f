"""Every log record that a logger lets through, whoever handles it, and every event of structlog."""

from __future__ import annotations

import functools
import json
import logging
import sys
import threading
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from pytest_celery_health.record.plain import describe, plain, shown
from pytest_celery_health.record.recording import LogRecord
from pytest_celery_health.record.tap import Tap

_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_MESSAGES = ("event", "message", "msg")


class _Local(threading.local):
    busy = False
    #: What structlog is about to hand to a logger of the standard library: its name, and the event.
    event: tuple[str, dict[str, Any]] | None = None


_local = _Local()


def _install(tap: Tap) -> None:
    tap.patch(logging.Logger, "callHandlers", _told)
    structlog: Any = sys.modules.get("structlog")
    if structlog is not None:
        processors = structlog.get_config()["processors"]
        tap.change(id(processors), functools.partial(_overhear, processors))


TAP = Tap(_install)


def _told(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
        if TAP.heard and not _local.busy:
            _local.busy = True
            try:
                _note(record)
            finally:
                _local.busy = False
        original(logger, record)

    return call_handlers


def _note(record: logging.LogRecord) -> None:
    try:
        message = record.getMessage()
    except Exception as error:  # noqa: BLE001 - logging would print it, and write nothing
        message = f"{shown(record.msg)} cannot be formatted: {describe(error)}"
    fields = {name: plain(value) for name, value in vars(record).items() if name not in _STANDARD}
    inner: Mapping[str, Any] = record.msg if isinstance(record.msg, Mapping) else _object(message)
    name, event = _local.event or ("", {})
    if name == record.name and str(event.get("event")) in message:
        inner = event
    _local.event = None
    if inner:
        message = next((str(inner[key]) for key in _MESSAGES if key in inner), message)
        fields |= {key: plain(value) for key, value in inner.items() if key not in _MESSAGES}
    raised = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    TAP.emit(
        LogRecord(
            record.levelname,
            record.name,
            message,
            fields,
            describe(raised) if raised else "",
            f"{record.pathname}:{record.lineno}",
            **TAP.where(),
        )
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
