"""Every signal of `celery.signals`, and every handler that it calls.

`Signal.send` is bound by other modules when they are imported, and Celery does not even call it for a
signal that has no receiver. So a receiver that is never called is connected to each signal, and
`Signal._live_receivers`, which `send` asks for whom to call, hands out the receivers wrapped.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import ReferenceType

from celery import signals
from celery.app.task import Task
from celery.utils.dispatch import Signal

from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.record.plain import describe, plain, shown, traced
from pytest_celery_health.record.recording import HandlerCall, SignalCall
from pytest_celery_health.record.tap import Tap

#: Every signal by name.
SIGNALS: dict[str, Signal] = {
    name: value for name, value in vars(signals).items() if isinstance(value, Signal)
}
#: Deprecated, and sent only when somebody listens: to listen would change what is sent.
_ONLY_IF_HEARD = {"task_sent"}
_SEND = Signal.send.__code__


def _stay(**_: object) -> None:
    """The receiver for whose sake Celery sends. It is never called."""


def _install(tap: Tap) -> None:
    tap.change("gone", _remember)
    for name, signal in SIGNALS.items():
        if name not in _ONLY_IF_HEARD and all(receiver is not _stay for _, receiver in signal.receivers):
            signal.connect(_stay, weak=False)
            tap.change(name, functools.partial(_disconnecting, signal))
    tap.patch(Signal, "_live_receivers", _wrapped)


def _disconnecting(signal: Signal) -> Callable[[], None]:
    return functools.partial(signal.disconnect, _stay)


TAP = Tap(_install)
_impatient: list[None] = []
_announced: list[None] = []
_not_told_of: list[Callable[..., Any]] = []

#: What a call's `error` says from its beginning until its end, while calls are `announced`.
RUNNING = "was still running"


def not_told_of(receiver: Callable[..., Any]) -> None:
    """Have the calls of a receiver of our own not recorded."""
    _not_told_of.append(receiver)


@contextmanager
def announced() -> Iterator[None]:
    """A handler's call is noted at its beginning, too, for whoever reads of a handler that hangs."""
    _announced.append(None)
    try:
        yield
    finally:
        _announced.pop()


@contextmanager
def called_once() -> Iterator[None]:
    """Handlers that were connected with retry=True are called once, and what they raise is told."""
    _impatient.append(None)
    try:
        yield
    finally:
        _impatient.pop()


_gone: Counter[str] = Counter()


def _remember() -> Callable[[], None]:
    # Celery forgets them when another receiver, such as ours, is connected.
    _gone.update(_dead())
    return _gone.clear


def _dead() -> Counter[str]:
    return Counter(
        name
        for name, signal in SIGNALS.items()
        for _, receiver in signal.receivers
        if isinstance(receiver, ReferenceType) and receiver() is None
    )


def lost() -> dict[str, int]:
    """How many weakly connected receivers of each signal are gone, as far as can be told."""
    return dict(_gone + _dead())


def receivers_of(signal: Signal) -> list[Any]:
    """Whoever listens to `signal`, from whatever sender."""
    found = [ref() if isinstance(ref, ReferenceType) else ref for _, ref in signal.receivers]
    return [receiver for receiver in found if receiver is not None and receiver is not _stay]


def _wrapped(original: Callable[[Signal, object], list[Any]]) -> Callable[[Signal, object], list[Any]]:
    def live_receivers(signal: Signal, sender: object) -> list[Any]:
        receivers = [each for each in original(signal, sender) if each is not _stay]
        caller = sys._getframe(1)
        if caller.f_code is not _SEND or signal.name not in SIGNALS or not TAP.heard:
            return receivers
        arguments = {name: _told(value) for name, value in caller.f_locals["named"].items()}
        heard = [each if _is_ours(each) else _Receiver(each, signal.name) for each in receivers]
        handlers = sum(isinstance(each, _Receiver) for each in heard)
        TAP.emit(SignalCall(signal.name, _sender(sender), arguments, handlers, **TAP.where()))
        return heard

    return live_receivers


def _is_ours(receiver: object) -> bool:
    return any(receiver is each for each in _not_told_of)


class _Receiver:
    """A handler whose call is noted. It shows itself as the handler: Celery logs it when it raises."""

    def __init__(self, handler: Callable[..., Any], signal: str) -> None:
        self._handler = handler
        self._signal = signal

    def __repr__(self) -> str:
        return shown(self._handler)

    def __call__(self, **named: Any) -> Any:
        at = monotonic()
        handler = self._handler
        if _impatient and _waits(handler):
            handler = _inside(handler)
        if _announced:
            self._note(at, None, RUNNING)
        try:
            result = handler(**named)
        except BaseException as error:
            self._note(at, None, describe(error), traced(error), error)
            raise
        never = _never_ran(result)
        self._note(at, None if never else result, never)
        return result

    def _note(
        self,
        at: float,
        result: object,
        error: str = "",
        traceback: str = "",
        exception: BaseException | None = None,
    ) -> None:
        module, name, where = named(self._handler)
        TAP.emit(
            HandlerCall(
                self._signal,
                f"{module}:{name}",
                where,
                _told(result),
                error,
                traceback,
                monotonic() - at,
                exception,
                **TAP.where(at),
            )
        )


def _never_ran(result: object) -> str:
    """Why the handler's body did not run, judging by what the call gave; "" if it did."""
    if inspect.iscoroutine(result):
        result.close()
        return "never ran: it is async def, and nobody awaits it"
    if isinstance(result, (types.GeneratorType, types.AsyncGeneratorType)):
        return "never ran: it is a generator, and nobody iterates over it"
    return ""


def named(handler: Callable[..., Any]) -> tuple[str, str, str]:
    """Module, qualified name and file:line of a handler, also of one that is wrapped."""
    function: Any = handler
    for _ in range(20):
        inner = _inside(function)
        if inner is None:
            break
        function = inner
    if not hasattr(function, "__qualname__"):
        function = type(function)
    code = getattr(function, "__code__", None)
    if code is None and isinstance(function, type):
        code = getattr(vars(function).get("__call__"), "__code__", None)
    where = f"{_relative(code.co_filename)}:{code.co_firstlineno}" if code else ""
    return str(getattr(function, "__module__", "")), str(function.__qualname__), where


def _waits(function: Any) -> bool:
    """Whether it is what Celery makes of connect(retry=True): it waits and calls until all is well."""
    return str(getattr(function, "__qualname__", "")).endswith("._try_receiver_over_time")


def _inside(function: Any) -> Any:
    if isinstance(function, functools.partial):
        return function.func
    if inspect.ismethod(function):
        return function.__func__
    if _waits(function):
        return inspect.getclosurevars(function).nonlocals.get("retry_fun")
    return getattr(function, "__wrapped__", None)


def _relative(path: str) -> str:
    try:
        return _relative_to(path, os.getcwd())
    except (ValueError, OSError):
        return path


@functools.lru_cache(maxsize=500)
def _relative_to(path: str, folder: str) -> str:
    relative = os.path.relpath(path, folder)
    return path if relative.startswith("..") else relative


def _sender(sender: object) -> str:
    return "anybody" if sender is None else sender if isinstance(sender, str) else str(_told(sender))


def _told(value: object) -> Any:
    return value.name if isinstance(value, Task) else plain(value)
