"""Records of ours, written through the loggers that matter in a worker: whom they reach is recorded."""

from __future__ import annotations

import logging
import os
import re
import sys
import types
import warnings
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from celery import Celery

from pytest_celery_health.facts import Delivery
from pytest_celery_health.record import log_handlers, log_setup, logs
from pytest_celery_health.record.log_setup import Structlog, Used
from pytest_celery_health.record.recording import Entry, LogRecord, LogSetup

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_TRIED = re.compile(r"celery-health tries (?P<logger>.+) at (?P<level>[A-Z]+), turn (?P<turn>\d+)")
PRINT = "print"
#: By process: the next turns try no logger that came to be by the first.
_used: dict[int, list[Used]] = {}
STRUCTLOG = "structlog of "


def tried(message: str) -> tuple[str, str, int] | None:
    """Logger, level and turn of a record of ours."""
    found = _TRIED.search(message)
    return None if found is None else (found["logger"], found["level"], int(found["turn"]))


def _words(logger: str, level: str, turn: int) -> str:
    return f"celery-health tries {logger} at {level}, turn {turn}"


class TriedError(Exception):
    """What some of our records bring."""


def write(
    app: Celery, further: Iterable[str], turn: int, *, levels: Iterable[str] = LEVELS, in_task: bool = True
) -> None:
    """Write records at these levels; in a task, print and events of structlog, too."""
    levels = list(levels)
    with log_handlers.TAP.held(), logs.TAP.held():  # of what was made since the worker began
        used = _used.get(os.getpid()) or log_setup.loggers(app, further)
        _used[os.getpid()] = used
        for each in used:
            for level in levels:
                _log(each.name, level, turn)
        if in_task:
            _print(turn)
            for structlog in log_setup.structlogs():
                for level in levels:
                    _event(structlog, level, turn)
    tell(used)


def tell(used: Iterable[Used] = (), **more: Any) -> None:
    """Record how logging is set up in this process."""
    told = [{"name": each.name, "own": bool(each.modules), "alike": each.alike} for each in used]
    setup = {"loggers": told, "handlers": log_setup.handlers(), **more}
    logs.TAP.emit(LogSetup(setup, **logs.TAP.where()))


def bind(app: Celery, task_id: str) -> None:
    """Bind a context variable of structlog, if the app's own code does so."""
    structlog = sys.modules.get("structlog")
    if structlog is not None and log_setup.binds_context(app):
        structlog.contextvars.bind_contextvars(celery_health=task_id)


def _log(name: str, level: str, turn: int) -> None:
    logger = logging.getLogger(None if name == "root" else name)
    number = logging.getLevelName(level)
    words = _words(name, level, turn)
    if not logger.isEnabledFor(number):
        where = logs.TAP.where()
        logs.TAP.emit(LogRecord(level, name, words, deliveries=(), lost=_why_not(logger, number), **where))
        return
    error = TriedError(words)
    with suppress(Exception):  # of a handler that lets it through, which is recorded
        if level == "CRITICAL":
            logger.critical(error)
        elif level == "ERROR":
            logger.error("%s", words, exc_info=error)
        else:
            logger.log(number, "%s", words)


def _why_not(logger: logging.Logger, number: int) -> str:
    if logger.disabled:
        return "the logger is disabled"
    if logger.manager.disable >= number:
        return "logging.disable() is in force"
    each: logging.Logger | None = logger
    while each is not None and not each.level and each.parent is not None:
        each = each.parent
    assert each is not None
    return f"the level of {each.name} is {logging.getLevelName(each.level)}"


def _print(turn: int) -> None:
    if not log_handlers.is_logger(sys.stdout):
        return  # as it goes to where the worker's stdout goes
    level = logging.getLevelName(getattr(sys.stdout, "loglevel", logging.WARNING))
    print(_words(PRINT, level, turn))  # noqa: T201
    with warnings.catch_warnings(), suppress(Exception):
        warnings.simplefilter("always")
        warnings.warn(_words("py.warnings", "WARNING", turn), stacklevel=1)


def _event(found: Structlog, level: str, turn: int) -> None:
    """An event as the module would write it: structlog names a logger after the module of its caller."""
    name = STRUCTLOG + found.module
    words = _words(name, level, turn)
    seen: list[LogRecord] = []

    def see(entry: Entry) -> None:
        if isinstance(entry, LogRecord) and words in entry.message:
            seen.append(entry)

    say = types.FunctionType(_say.__code__, {"__name__": found.module, "__builtins__": __builtins__})
    logger = found.logger if found.logger is not None else sys.modules["structlog"].get_logger()
    error = ""
    with logs.TAP.listen(see):
        try:
            say(logger, level.lower(), words)
        except Exception as raised:  # noqa: BLE001 - processors are the user's code
            error = f"{type(raised).__name__}: {raised}, raised where it was logged"
    events = [entry for entry in seen if entry.deliveries is None]
    if len(events) < len(seen):  # it went to logging, which has recorded the rest
        return
    deliveries: tuple[Delivery, ...] = ()
    lost = ""
    if error:
        deliveries = (Delivery("structlog", level=level, error=error),)
    elif events:
        deliveries = (Delivery("structlog", _target(logger), level, brings=events[0].fields),)
    else:
        lost = "its level, or one of its processors, drops it"
    where = logs.TAP.where()
    logs.TAP.emit(LogRecord(level, name, words, deliveries=deliveries, lost=lost, **where))


def _say(logger: Any, method: str, words: str) -> None:
    getattr(logger, method)(words)


def _target(logger: Any) -> str:
    """Where a logger of structlog that is none of Python's writes."""
    with suppress(Exception):
        inner = logger.bind()._logger
        return log_handlers.stream_name(inner._file)
    return ""
