"""Start the user's app as a worker does, short of connecting, and list who listens to its signals."""

from __future__ import annotations

import gc
import inspect
import os
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from types import CodeType, FrameType
from typing import Any

import celery
from celery import Celery, Task, signals
from celery.local import PromiseProxy, Proxy
from celery.utils.dispatch import Signal

from pytest_celery_health.masking import mask
from pytest_celery_health.project.child.load import load

_NAMES = {id(found): name for name, found in vars(signals).items() if isinstance(found, Signal)}
_DISPATCH = Signal.connect.__code__.co_filename
_OURS = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "")
_CELERY = os.path.join(os.path.dirname(os.path.abspath(celery.__file__)), "")
_STDLIB = os.path.join(sysconfig.get_path("stdlib"), "")
_NOT_TOLD = sys.stdlib_module_names | {"pytest_celery_health"}


def handlers(job: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Handlers`. Raises whatever the user's code raises."""
    app, worker, kept = start(job)
    seen = [call.plain(app, job["path"], code) for call, code in zip(kept, _codes(kept), strict=True)]
    del worker
    modules = [name for name in list(sys.modules) if name.partition(".")[0] not in _NOT_TOLD]
    return {"seen": seen, "modules": sorted(modules), "version": celery.__version__}


def start(job: dict[str, Any]) -> tuple[Celery, Any, list[Connect]]:
    """The app, its worker short of connecting, and what has connected to signals meanwhile. To be called
    before anything of the project is imported. Raises whatever the user's code raises."""
    calls: list[Connect] = []
    _watch(calls)
    sys.argv = ["celery", "worker"]  # some code asks it what it is run by
    app = load(job["app"], hooks=job["hooks"], target=job["target"])
    job["doing"] = f"a worker of {job['said_by']}"
    worker = _as_worker(app)
    gc.collect()
    return app, worker, [call for call in calls if not call.repeats]


def _as_worker(app: Celery) -> Any:
    """The app's worker, made but not started: it has sent celeryd_init, import_modules, worker_init and
    worker_process_init, and its boot steps exist."""
    app.loader.worker_initialized = True  # load() has imported the modules
    app.loader.on_worker_init()
    app.conf.worker_state_db = None  # the project's own may be in use

    def no_logging(self: Any, colorize: Any = None) -> bool:  # noqa: ARG001 - its files are not ours to open
        return False

    kind = type("Worker", (app.Worker,), {"setup_logging": no_logging})
    # The one pool that is told in this process what pools tell their processes.
    return kind(hostname="celery-health@localhost", pool="solo", concurrency=1, quiet=True)


class Connect:
    """One call of `Signal.connect`. It keeps neither the receiver nor the sender alive."""

    def __init__(self, signal: Signal, receiver: Any, where: str, options: dict[str, Any]) -> None:
        self.signal = signal
        self.where = where
        self.weak: bool = options["weak"] and not options["retry"]
        self.retry: bool = options["retry"]
        self.uid = options["dispatch_uid"]
        self.pending = isinstance(options["sender"], PromiseProxy)
        self.repeats = False
        self.name = _name(receiver)
        self.kind = _kind(receiver)
        self.needs, self.by_position = _parameters(receiver)
        file, line = _defined(receiver)
        self.own = is_own(file) or is_own(where.rpartition(":")[0])
        # Two imports of one file make two functions of one code. Closures and methods carry more than code.
        plain = inspect.isfunction(receiver) and not receiver.__closure__ and "<locals>" not in self.name
        self.identity = _identity(receiver)
        self.code: Any = (os.path.realpath(file), line) if plain else self.identity
        self._receiver = _reference(receiver)
        self._sender = _reference(options["sender"])
        self._for_any = options["sender"] is None
        self._entry: tuple[Any, Any] | None = None
        self._disconnected = False

    def ended(self, before: list[Any], others: list[Connect]) -> None:
        """Celery has done what it does; `before` are the signal's receivers as they were."""
        for entry in self.signal.receivers:
            if all(entry is not old for old in before):
                self._entry = entry
                self.pending = False
                return
        if not self.pending:
            self.repeats = any(self._is_like(other) for other in others)

    def disconnected(self, before: list[Any]) -> None:
        """Someone asked for it, if `before` had it alive and the signal has it no more."""
        entry = self._entry
        if entry is not None and any(entry is old for old in before) and _alive(entry):
            self._disconnected |= all(entry is not left for left in self.signal.receivers)

    def is_of(self, receiver: Any) -> bool:
        mine = self._receiver()
        return mine is receiver or (inspect.ismethod(mine) and bool(mine == receiver))

    def plain(self, app: Celery, path: list[str], code: int) -> dict[str, Any]:
        sender, sender_kind = _told(self.sender, app)
        if not sender and not self._for_any:
            sender, sender_kind = "an object that is gone", "object"
        return {
            "signal": self.signal_name,
            "name": self.name,
            "where": relative(self.where, path),
            "sender": mask(sender),
            "sender_kind": sender_kind,
            "kind": self.kind,
            "needs": self.needs,
            "by_position": self.by_position,
            "weak": self.weak,
            "retry": self.retry,
            "dispatch_uid": "" if self.uid is None else mask(str(self.uid)),
            "state": self._state(),
            "code": code,
            "own": self.own,
        }

    @property
    def signal_name(self) -> str:
        return str(_NAMES[id(self.signal)])

    @property
    def entry(self) -> tuple[Any, Any] | None:
        """Its place among the signal's receivers; None unless it is connected."""
        return self._entry if self._state() == "connected" else None

    @property
    def its_code(self) -> CodeType | None:
        """That of the function which runs in the end, whatever wraps it."""
        return getattr(inspect.unwrap(_function(self._receiver())), "__code__", None)

    @property
    def sender(self) -> Any:
        sender = self._sender()
        return sender._get_current_object() if isinstance(sender, Proxy) else sender

    def _is_like(self, other: Connect) -> bool:
        """Whether `other` is connected in our place and does the same."""
        return (
            other is not self
            and other.signal is self.signal
            and other._state() == "connected"
            and other.code == self.code
            and other.uid == self.uid
            and other.sender is self.sender
        )

    def _state(self) -> str:
        if self._entry is None:
            return "disconnected" if self.pending else "shadowed"
        if self._disconnected:
            return "disconnected"
        return "connected" if _alive(self._entry) else "collected"


def _codes(calls: list[Connect]) -> Iterator[int]:
    """A number for each call: that of an earlier one which connected the same object, or what the same
    object is when its file is imported by another name."""
    numbers: dict[Any, int] = {}
    made: dict[Any, list[Any]] = {}
    for call in calls:
        # A loop makes several of one code, by whatever name its file is imported.
        alike = made.setdefault((call.name.partition(":")[0], call.code), [])
        if call.identity not in alike:
            alike.append(call.identity)
        yield numbers.setdefault((call.code, alike.index(call.identity)), len(numbers) + 1)


def _watch(calls: list[Connect]) -> None:
    """Have every call of `connect` of Celery's signals noted in `calls`."""
    connect, disconnect = Signal.connect, Signal.disconnect

    def noted(
        signal: Signal, receiver: Any, options: dict[str, Any], do: Callable[[], Any], at: FrameType
    ) -> Any:
        before = list(signal.receivers)
        if id(signal) not in _NAMES:
            return do()
        if at.f_code.co_filename == _DISPATCH:  # the promised task that is the sender is there now
            promised = [
                call for call in calls if call.pending and call.signal is signal and call.is_of(receiver)
            ]
            result = do()
            for call in promised[:1]:
                call.pending = False
                call.ended(before, calls)
            return result
        call = Connect(signal, receiver, _where(at, receiver), options)
        calls.append(call)
        try:
            result = do()
        except BaseException:
            calls.remove(call)
            raise
        call.ended(before, calls)
        return result

    def connect_noted(signal: Signal, *args: Any, **options: Any) -> Any:
        if args and callable(args[0]):
            said = _options(*args[1:], **options)
            return noted(signal, args[0], said, partial(connect, signal, *args, **options), sys._getframe(1))
        said = _options(*args, **options)
        decorate = connect(signal, *args, **options)
        return lambda receiver: noted(signal, receiver, said, partial(decorate, receiver), sys._getframe(1))

    def disconnect_noted(signal: Signal, *args: Any, **options: Any) -> Any:
        before = list(signal.receivers)
        result = disconnect(signal, *args, **options)
        for call in calls:
            if call.signal is signal:
                call.disconnected(before)
        return result

    Signal.connect = connect_noted
    Signal.disconnect = disconnect_noted


def _options(
    sender: Any = None, weak: bool = True, dispatch_uid: Any = None, retry: bool = False
) -> dict[str, Any]:
    return {"sender": sender, "weak": weak, "dispatch_uid": dispatch_uid, "retry": retry}


def _alive(entry: tuple[Any, Any]) -> bool:
    return not isinstance(entry[1], weakref.ReferenceType) or entry[1]() is not None


def _reference(found: Any) -> Callable[[], Any]:
    """What gives it back for as long as somebody else keeps it."""
    try:
        return weakref.WeakMethod(found) if inspect.ismethod(found) else weakref.ref(found)
    except TypeError:  # a text, None, a proxy
        return lambda: found


def _identity(receiver: Any) -> Any:
    return (id(receiver.__self__), id(receiver.__func__)) if inspect.ismethod(receiver) else id(receiver)


def _function(receiver: Any) -> Any:
    """The function that is called in the end."""
    while isinstance(receiver, partial):
        receiver = receiver.func
    if inspect.ismethod(receiver):
        return receiver.__func__
    if inspect.isroutine(receiver) or inspect.isclass(receiver):
        return receiver
    return getattr(type(receiver), "__call__", receiver)  # noqa: B004 - the method is wanted


def _name(receiver: Any) -> str:
    while isinstance(receiver, partial):
        receiver = receiver.func
    named = receiver if isinstance(getattr(receiver, "__qualname__", None), str) else type(receiver)
    return f"{named.__module__}:{named.__qualname__}"


def _kind(receiver: Any) -> str:
    function = _function(receiver)
    if inspect.iscoroutinefunction(receiver) or inspect.iscoroutinefunction(function):
        return "async def"
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return "generator"
    if isinstance(receiver, partial):
        return "partial"
    if inspect.isclass(receiver):
        return "class"
    if inspect.ismethod(receiver):
        return "method"
    if inspect.isroutine(receiver):
        return "lambda" if receiver.__name__ == "<lambda>" else "function"
    return "object"


def _parameters(receiver: Any) -> tuple[list[str], list[str]]:
    """The names without a default, and those of them that no keyword fills."""
    try:
        # What a decorator wraps gets what the decorator gives it.
        signature = inspect.signature(receiver, follow_wrapped=False)
    except (TypeError, ValueError):
        return [], []
    needed = [
        parameter
        for parameter in signature.parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    by_position = [parameter.name for parameter in needed if parameter.kind is parameter.POSITIONAL_ONLY]
    return [parameter.name for parameter in needed], by_position


def _defined(receiver: Any) -> tuple[str, int]:
    code = getattr(inspect.unwrap(_function(receiver)), "__code__", None)
    if code is not None:
        return code.co_filename, code.co_firstlineno
    module = sys.modules.get(_name(receiver).partition(":")[0])
    return getattr(module, "__file__", None) or "<unknown>", 0


def _where(frame: FrameType | None, receiver: Any) -> str:
    """file:line of the call, in the code that calls `connect`."""
    while frame is not None and _is_plumbing(frame.f_code.co_filename):
        frame = frame.f_back
    if frame is None:
        return ""
    line = frame.f_lineno
    code = getattr(_function(receiver), "__code__", None)
    if sys.version_info < (3, 11) and code is not None and code.co_filename == frame.f_code.co_filename:
        # Python 3.10 calls a decorator on the line of the def.
        first = code.co_firstlineno
        body = min((at for *_, at in code.co_lines() if at is not None and at > first), default=first)
        line = first if first <= line <= body else line
    return f"{frame.f_code.co_filename}:{line}"


def _is_plumbing(file: str) -> bool:
    return file.startswith((_OURS, "<")) or (file.startswith(_STDLIB) and "-packages" not in file)


def is_own(file: str) -> bool:
    """Whether it is the project's own code, neither an installed package's nor ours."""
    return bool(file) and not _is_plumbing(file) and not file.startswith(_CELERY) and "-packages" not in file


def relative(where: str, path: list[str]) -> str:
    """`where` below the folder that it was imported from."""
    for folder in sorted(path, key=len, reverse=True):
        if where.startswith(os.path.join(folder, "")):
            return where[len(os.path.join(folder, "")) :]
    _, found, below = where.rpartition("-packages/")
    return below if found else where


def _told(sender: Any, app: Celery) -> tuple[str, str]:
    """A sender as a reader knows it, and what kind of thing it is."""
    if sender is None:
        return "", ""
    if isinstance(sender, str):
        return f'"{sender}"', "text"
    if isinstance(sender, type):
        return sender.__qualname__, "class"
    if isinstance(sender, Task):
        here = app.tasks.get(sender.name)
        # One that only another app has may be that app's affair.
        return str(sender.name), "task" if here is None or here is sender else "another app's task"
    if isinstance(sender, Celery):
        return str(sender.main or "an app"), "app"
    from celery.beat import Service
    from celery.concurrency.base import BasePool
    from celery.worker.consumer import Consumer
    from celery.worker.heartbeat import Heart
    from celery.worker.worker import WorkController

    kinds = {
        Consumer: "consumer",
        WorkController: "worker",
        BasePool: "pool",
        Heart: "heart",
        Service: "beat",
    }
    kind = next((kind for cls, kind in kinds.items() if isinstance(sender, cls)), "object")
    name = getattr(sender, "__qualname__", None)
    return (name, "function") if isinstance(name, str) else (f"a {type(sender).__qualname__}", kind)
