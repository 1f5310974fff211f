"""Logging as a process has it: its handlers, and the loggers that matter in a worker."""

from __future__ import annotations

import gc
import inspect
import logging
import logging.handlers
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from types import CodeType, FunctionType, ModuleType
from typing import Any

from celery import Celery
from celery.signals import setup_logging

from pytest_celery_health.facts import LogHandler
from pytest_celery_health.project.child.describe import own_tasks
from pytest_celery_health.project.child.handlers import is_own
from pytest_celery_health.record import signals
from pytest_celery_health.record.log_handlers import chain, handlers_of, name_of, target_of
from pytest_celery_health.record.plain import describe

#: Seconds that a queue gets to be emptied by whoever takes records from it.
_PATIENCE = 1.0
_TICK = 0.005
#: The loggers whose handlers Celery takes away.
_TAKEN = {"root", "celery", "celery.task", "celery.redirected"}
#: Celery's own loggers, the best known first: one is tried for all whose records go its way.
_CELERYS = ("celery.app.trace", "celery.worker.request", "celery.worker.strategy", "celery.task", "celery")


@dataclass(frozen=True)
class Used:
    """A logger whose records are tried.

    modules: those of the app that use it. alike: how many others it stands for.
    """

    name: str
    modules: tuple[str, ...] = ()
    alike: int = 0


@dataclass(frozen=True)
class Structlog:
    """A logger of structlog that a module has; None for a module that makes one when it needs it."""

    module: str
    logger: Any = None


# Loggers.


def loggers(app: Celery, further: Iterable[str] = ()) -> list[Used]:
    """Those of the app's own modules, of `further` those that there are, and Celery's."""
    own: dict[str, list[str]] = {}
    modules = list(_own_modules())
    for module in modules:
        for name in _loggers_of(module):
            own.setdefault(name, []).append(module.__name__)
    for name in _below([module.__name__ for module in modules]):
        own.setdefault(name, [name])
    with_tasks = {type(task).__module__ for task in own_tasks(app)}
    for module in modules:
        if module.__name__ in with_tasks and "logging" in vars(module) and not any(_loggers_of(module)):
            own.setdefault(module.__name__, [module.__name__])
    found = [Used(name, tuple(used_by)) for name, used_by in sorted(own.items())]
    # To make one would change the parents of those below it.
    found += [Used(name) for name in further if name not in own and _existing(name) is not None]
    return [*found, *_celerys({each.name for each in found})]


def structlogs() -> list[Structlog]:
    """What the app's own modules have of structlog."""
    found = []
    structlog = sys.modules.get("structlog")
    for module in _own_modules() if structlog is not None else ():
        values = list(vars(module).values())
        made = [each for each in values if _is_bound(each)]
        found += [Structlog(module.__name__, each) for each in made[:1]]
        functions = (structlog, getattr(structlog, "get_logger", None))
        if not made and any(each is function for each in values for function in functions):
            found.append(Structlog(module.__name__))
    return found


def binds_context(app: Celery) -> bool:
    """Whether the app's own code, its signal handlers apart, binds context variables of structlog."""
    known = [_code(each) for signal in signals.SIGNALS.values() for each in signals.receivers_of(signal)]
    functions = [task.run for task in own_tasks(app)]
    for module in _own_modules():
        values = list(vars(module).values())
        for cls in [each for each in values if _is_a(each, type)]:
            values += vars(cls).values()
        functions += [each for each in values if _is_a(each, FunctionType)]
    codes = [code for each in functions if (code := _code(each)) is not None and code not in known]
    return any("bind_contextvars" in code.co_names for code in _with_inner(codes))


def _own_modules() -> Iterator[ModuleType]:
    for module in list(sys.modules.values()):
        if _is_a(module, ModuleType) and is_own(getattr(module, "__file__", None) or ""):
            yield module


def _loggers_of(module: ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        logger = value.logger if _is_a(value, logging.LoggerAdapter) else value
        if _is_a(logger, logging.Logger) and logger is not logging.root:
            yield logger.name


def _below(modules: Sequence[str]) -> Iterator[str]:
    """The loggers that somebody has made for these modules' packages."""
    packages = {name.partition(".")[0] for name in modules}
    for name in sorted(logging.root.manager.loggerDict):
        if name.partition(".")[0] in packages and _existing(name) is not None:
            yield name


def _existing(name: str) -> logging.Logger | None:
    found = logging.root.manager.loggerDict.get(name)
    return found if isinstance(found, logging.Logger) else None


def _celerys(without: set[str]) -> Iterator[Used]:
    ways: dict[object, list[str]] = {}
    names = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "celery"]
    for name in [*_CELERYS, *sorted(names)]:
        logger = _existing(name)
        if logger is not None and name not in without:
            same = ways.setdefault(_way(logger), [])
            if name not in same:
                same.append(name)
    for first, *others in ways.values():
        yield Used(first, alike=len(others))
    yield Used("root")


def _way(logger: logging.Logger) -> object:
    """What decides where its records go."""
    handlers = [id(handler) for each in chain(logger) for handler in handlers_of(each)]
    filters = [id(each) for each in logger.filters]
    return logger.getEffectiveLevel(), logger.disabled, tuple(filters), tuple(handlers)


def _is_a(value: Any, cls: type) -> bool:
    """As isinstance, which would wake up a lazy proxy of Celery, Django or Flask."""
    return issubclass(type(value), cls)


def _is_bound(value: Any) -> bool:
    return type(value).__module__.split(".")[0] == "structlog" and "bind" in dir(type(value))


def _code(function: Any) -> CodeType | None:
    inner = inspect.unwrap(function) if callable(function) else function
    return getattr(getattr(inner, "__func__", inner), "__code__", None)


def _with_inner(codes: Iterable[CodeType]) -> Iterator[CodeType]:
    for code in codes:
        yield code
        yield from _with_inner(each for each in code.co_consts if isinstance(each, CodeType))


# Handlers.

#: What Python gives to those who name no format.
_FORMATS_OF_NOBODY = (logging.BASIC_FORMAT, "%(message)s")
_STUCK = "nobody takes records from its queue"
_found_stuck: set[logging.Handler] = set()


class Loaded:
    """The handlers that there are when the app is loaded, before its worker sets up logging."""

    def __init__(self) -> None:
        self._had = _attached()
        self._taken = [each for each, names in self._had.items() if _TAKEN.intersection(names)]

    def gone(self) -> list[dict[str, Any]]:
        """Those that Celery took away, and nobody put back, as fields of `LogHandler`."""
        if signals.receivers_of(setup_logging):  # then it leaves logging to them
            return []
        now = _attached()
        alike = {_alike(handler) for handler in now}
        alike |= {(target_of(handler), type(handler)) for handler in now}
        left = [each for each in self._taken if each not in now and _alike(each) not in alike]
        passed_on = _listeners_handlers() if left else ()
        return [
            {**_told(handler, self._had[handler]), "error": _fails(handler)}
            for handler in left
            if handler not in passed_on
        ]


def handlers() -> list[dict[str, Any]]:
    """Those of this process, as fields of `LogHandler`."""
    attached = _attached()
    if any(isinstance(each, logging.handlers.QueueHandler) for each in attached):
        attached |= {each: attached.get(each, []) for each in _listeners_handlers()}
    return [_told(handler, names) for handler, names in attached.items()]


def _attached() -> dict[logging.Handler, list[str]]:
    found: dict[logging.Handler, list[str]] = {}
    for logger in [logging.root, *logging.root.manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            for handler in handlers_of(logger):
                found.setdefault(handler, []).append(logger.name)
    return found


def _listeners_handlers() -> list[logging.Handler]:
    """The handlers to which threads of this process hand what they take from queues."""
    found: list[logging.Handler] = []
    for each in gc.get_objects():
        if issubclass(type(each), logging.handlers.QueueListener):
            thread = getattr(each, "_thread", None)
            if thread is not None and thread.is_alive():
                found += each.handlers
    return found


def _alike(handler: logging.Handler) -> object:
    """What another handler has, too, that does the same."""
    formatter = handler.formatter
    form = getattr(formatter, "_fmt", None)
    if type(formatter) is logging.Formatter and form in _FORMATS_OF_NOBODY:
        return target_of(handler), type(handler)
    return name_of(handler), target_of(handler), type(handler), type(formatter), form


def _told(handler: logging.Handler, names: Sequence[str]) -> dict[str, Any]:
    formatter = handler.formatter
    told = LogHandler(
        name_of(handler),
        target_of(handler),
        type(handler).__name__,
        logging.getLevelName(handler.level) if handler.level else "",
        "" if formatter is None else type(formatter).__name__,
        tuple(names),
        file=isinstance(handler, logging.FileHandler) and not target_of(handler).startswith("/dev/"),
        rotates=_rotates(handler),
        stock=type(handler) is logging.StreamHandler and type(formatter) in (type(None), logging.Formatter),
        stuck=_stuck(handler),
    )
    return asdict(told)


def _rotates(handler: logging.Handler) -> bool:
    if not isinstance(handler, logging.handlers.BaseRotatingHandler):
        return False
    roll_over = getattr(type(handler), "doRollover", None)
    if getattr(roll_over, "__module__", "") != "logging.handlers":  # it may know of other processes
        return False
    if isinstance(handler, logging.handlers.RotatingFileHandler):
        return handler.maxBytes > 0 and handler.backupCount > 0
    return True


def _stuck(handler: Any) -> str:
    if not isinstance(handler, logging.handlers.QueueHandler):
        return ""
    empty = getattr(handler.queue, "empty", None)
    if handler in _found_stuck:
        return _STUCK
    over = time.monotonic() + _PATIENCE
    try:
        while empty is not None and not empty():
            if time.monotonic() > over:
                _found_stuck.add(handler)
                return _STUCK
            time.sleep(_TICK)
    except (OSError, ValueError) as error:
        return f"its queue is closed: {describe(error)}"
    return ""


def _fails(handler: logging.Handler) -> str:
    record = logging.LogRecord("celery.worker", logging.INFO, __file__, 1, "%s ready.", ("w1@sandbox",), None)
    try:
        handler.format(record)
    except Exception as error:  # noqa: BLE001 - it is the user's code
        return describe(error)
    return ""
