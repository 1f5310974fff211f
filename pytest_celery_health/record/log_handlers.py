"""What log handlers make of the records that they are given."""

from __future__ import annotations

import logging
import logging.handlers
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from celery.utils.log import LoggingProxy

from pytest_celery_health.facts import Delivery
from pytest_celery_health.record.plain import cut, describe, plain
from pytest_celery_health.record.tap import Tap

STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_LONGEST = 10_000
_PYTHONS_OWN = logging.Handler.handleError

Later = Callable[[logging.LogRecord, Delivery], None]


class _Local(threading.local):
    #: The record for which a logger asks its handlers, and what they made of it so far.
    asked: tuple[logging.LogRecord, list[Delivery]] | None = None
    taking: _Taking | None = None
    #: Whether a handler tells of its failure.
    telling: bool = False


_local = _Local()
_later: list[Later] = []
#: Whether it was to be seen that a handler failed so.
_printed: dict[tuple[logging.Handler, str], bool] = {}


class _Taking:
    """A handler that is at work on a record."""

    def __init__(self, handler: logging.Handler, record: logging.LogRecord) -> None:
        self.handler = handler
        self.record = record
        self.text = ""
        self.error = ""
        self.told = True
        self.refused = ""
        #: Whether what it wrote to a stream that is a logger reached a handler.
        self.went_on = False

    def delivery(self) -> Delivery:
        if not self.refused and not self.error:
            self.refused = self._in_vain()
        brings = {} if self.text else plain(brought_by(self.record))
        name, target = name_of(self.handler), target_of(self.handler)
        text = cut(self.text, _LONGEST)
        level = self.record.levelname
        return Delivery(name, target, level, text, brings, self.error, self.told, self.refused)

    def _in_vain(self) -> str:
        if isinstance(getattr(self.handler, "stream", None), LoggingProxy) and not self.went_on:
            return "it writes to what Celery leads back to the log"
        return ""


def _install(tap: Tap) -> None:
    """Also for classes that were made since the last time."""
    for cls in [logging.Handler, *_below(logging.Handler)]:
        if cls is not logging.NullHandler:
            for name, make in (("handle", _handle), ("handleError", _handle_error), ("format", _format)):
                if name in vars(cls):
                    tap.patch(cls, name, make)


TAP = Tap(_install)


@contextmanager
def watched(later: Later) -> Iterator[None]:
    """Have handlers watched; `later` is told of what they are given otherwise than by a logger."""
    with TAP.held():
        _later.append(later)
        try:
            yield
        finally:
            _later.remove(later)


@contextmanager
def asking(logger: logging.Logger, record: logging.LogRecord) -> Iterator[list[Delivery]]:
    """What handlers make of `record` meanwhile, in this thread."""
    outer, taking = _local.asked, _local.taking
    found = list(_too_high(logger, record))
    _local.asked, _local.taking = (record, found), None
    try:
        yield found
    finally:
        _local.asked, _local.taking = outer, taking
        if taking is not None:
            taking.went_on |= any(delivery.taken for delivery in found)


def why_nobody_is_asked(logger: logging.Logger) -> str:
    """For a record that the logger lets through; "" if there is a handler."""
    asked = list(chain(logger))
    if any(handlers_of(each) for each in asked):
        return ""
    last = asked[-1]
    if last.parent is not None:
        return f"{last.name} does not propagate, and no handler is there"
    return "it has no handler" if last is logger else "neither it nor any logger above it has a handler"


def chain(logger: logging.Logger) -> Iterator[logging.Logger]:
    """The loggers whose handlers are asked for a record of `logger`."""
    each: logging.Logger | None = logger
    while each is not None:
        yield each
        each = each.parent if each.propagate else None


def handlers_of(logger: logging.Logger) -> list[logging.Handler]:
    """Those that do something."""
    return [handler for handler in logger.handlers if not isinstance(handler, logging.NullHandler)]


def name_of(handler: logging.Handler) -> str:
    return handler.name or type(handler).__name__


def target_of(handler: Any) -> str:
    """Where it writes, as a reader knows it and without what may be a secret."""
    if isinstance(handler, logging.FileHandler):
        return str(handler.baseFilename)
    if isinstance(handler, logging.handlers.SocketHandler):
        return f"{handler.host}:{handler.port}"
    if isinstance(handler, logging.handlers.MemoryHandler):
        return target_of(handler.target) if handler.target is not None else ""
    stream = getattr(handler, "stream", None)
    if stream is not None:
        return stream_name(stream)
    place = getattr(handler, "host", None) or getattr(handler, "mailhost", None)
    place = place or getattr(handler, "address", "")
    return ":".join(map(str, place)) if isinstance(place, tuple) else str(place)


def brought_by(record: logging.LogRecord) -> Mapping[str, Any]:
    """What is on a record beside what Python puts there."""
    return {name: value for name, value in vars(record).items() if name not in STANDARD}


def is_telling() -> bool:
    """Whether this thread is where a handler tells of its failure: under Celery, line by line to the log."""
    return _local.telling


def is_logger(stream: object) -> bool:
    """Whether it is what Celery puts in the place of stdout and stderr."""
    return isinstance(stream, LoggingProxy)


def stream_name(stream: Any) -> str:
    if isinstance(stream, LoggingProxy):
        return str(stream.logger.name)
    try:
        known = {1: "stdout", 2: "stderr"}.get(stream.fileno())
    except (AttributeError, OSError, ValueError):
        known = None
    name = getattr(stream, "name", None)
    return known or (name if isinstance(name, str) else type(stream).__name__)


def _below(cls: type) -> Iterator[type]:
    each: type
    for each in cls.__subclasses__():
        yield each
        yield from _below(each)


def _too_high(logger: logging.Logger, record: logging.LogRecord) -> Iterator[Delivery]:
    for each in chain(logger):
        for handler in handlers_of(each):
            if record.levelno < handler.level:
                name, target = name_of(handler), target_of(handler)
                refused = f"it takes {logging.getLevelName(handler.level)} and above"
                yield Delivery(name, target, record.levelname, refused=refused)


def _handle(original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def handle(handler: logging.Handler, record: logging.LogRecord) -> Any:
        outer = _local.taking
        if not TAP.is_held:
            return original(handler, record)
        if outer is not None and outer.handler is handler:  # of a class that calls its base
            result = original(handler, record)
            outer.refused = "" if result else "its filter refuses it"
            return result
        taking = _local.taking = _Taking(handler, record)
        try:
            result = original(handler, record)
            if not result and original.__module__ == logging.__name__:
                taking.refused = "its filter refuses it"
        except BaseException as error:
            taking.error = f"{describe(error)}, raised where it was logged"
            raise
        finally:
            _local.taking = outer
            _note(taking)
        return result

    return handle


def _note(taking: _Taking) -> None:
    if taking.handler is logging.lastResort:  # which prints bare text, where nobody is there to take it
        return
    delivery = taking.delivery()
    asked = _local.asked
    if asked is not None and asked[0] is taking.record:
        asked[1].append(delivery)
        return
    for later in _later:
        later(taking.record, delivery)


def _handle_error(original: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def handle_error(handler: logging.Handler, record: logging.LogRecord) -> None:
        taking = _local.taking
        if taking is None or taking.handler is not handler or taking.error:
            original(handler, record)
            return
        error = sys.exc_info()[1]
        taking.error = describe(error) if error is not None else "it says that it failed"
        if original is not _PYTHONS_OWN:
            original(handler, record)
            return
        # Once: under Celery each line of what it prints may be a record that fails in turn.
        known = (handler, taking.error)
        if known not in _printed:
            _printed[known] = False
            _printed[known] = _prints(original, taking)
        taking.told = _printed[known]

    return handle_error


def _prints(original: Callable[[Any, Any], None], taking: _Taking) -> bool:
    """Whether what Python prints of a failure is to be seen anywhere."""
    taking.went_on = False
    outer, _local.telling = _local.telling, True
    try:
        original(taking.handler, taking.record)
    finally:
        _local.telling = outer
    on_stderr = logging.raiseExceptions and sys.stderr is not None
    return on_stderr and (not is_logger(sys.stderr) or taking.went_on)


def _format(original: Callable[[Any, Any], str]) -> Callable[[Any, Any], str]:
    def format(handler: logging.Handler, record: logging.LogRecord) -> str:  # noqa: A001
        text = original(handler, record)
        taking = _local.taking
        if taking is not None and taking.handler is handler and isinstance(text, str):
            taking.text = text
        return text

    return format
