"""What the fixture `celery_faults` gives a test: faults, held for code in the test's own process."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from celery import Celery

from pytest_celery_health.checks.words import listed
from pytest_celery_health.durations import spell
from pytest_celery_health.masking import mask
from pytest_celery_health.record.plain import describe
from pytest_celery_health.sandbox import SandboxError
from pytest_celery_health.sandbox.faults import FAULTS, Fault, known
from pytest_celery_health.sandbox.here import pointed
from pytest_celery_health.sandbox.world import Held, World

if TYPE_CHECKING:
    from typing_extensions import Self

#: Seconds that the code under test gets, from the moment that the fault is there.
WITHIN = 10.0

_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parents[2])


class OverdueError(AssertionError):
    """The code under test had not come back when the fault's time was over. The message says where it was."""


class NeverLeftError(AssertionError):
    """A fault was still entered when `celery_faults` ended. The message names it, and the remedy."""


class CeleryFaults:
    """Every fault of `FAULTS` is a method: `with celery_faults.broker_hangs_after(5): ...`.

    Until the end `app` points at the broker and the result backend of `world`, through its proxies. Use it as
    a context manager. env: variables that shall hold the broker's URL.
    """

    def __init__(self, world: World, app: Celery, env: Iterable[str] = ()) -> None:
        self.world = world
        self.app = app
        self._env = tuple(env)
        self._stack = ExitStack()
        self._entered: list[_Holding] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.callback(self._purge)
            stack.enter_context(self._pointed(self._env))
            stack.callback(setattr, self.world, "follow", nullcontext)
            self.world.follow = self._pointed
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        never_left = [*self._entered]
        for holding in never_left:
            self._stack.callback(holding.end)
        self._stack.close()
        if never_left and kind is None:
            names = listed([str(each.held) for each in never_left])
            calls = ", ".join(map(_call_of, never_left))
            were = "was" if len(never_left) == 1 else "were"
            raise NeverLeftError(f"{names} {were} entered and never left; write `with {calls}:`")

    def __repr__(self) -> str:
        return f"<celery_faults of {self.world!r}>"

    @property
    def url(self) -> str:
        """The broker's URL, for the code under test. Faults are in the way to it."""
        return self.world.url

    @property
    def result(self) -> str:
        """The result backend's URL, for the code under test."""
        return self.world.result

    def start(self, *needs: str) -> None:
        """Start "workers" or "beat" now. Else the first fault that needs them does."""
        self.world.start(*needs)

    def __getattr__(self, name: str) -> Callable[..., AbstractContextManager[Held]]:
        if name.startswith("_"):
            raise AttributeError(name)
        return partial(self.__call__, known(name))

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FAULTS]

    def __call__(
        self, fault: str | Fault, /, *args: Any, within: float = WITHIN, **named: Any
    ) -> AbstractContextManager[Held]:
        """Hold a fault, by its name or of your own, and put everything back.

        within: seconds that the body may take. Then the fault ends by itself, what the code under test has
        connected to broker and backend is reset, so that it comes back with an error, and OverdueError fails
        the test.

        Raises FaultError when the fault is not possible, SandboxError when what it needs does not start.
        """
        return _Holding(partial(self.world.enter, fault, *args, **named), within, self._entered)

    def _pointed(self, env: Iterable[str] = ()) -> AbstractContextManager[None]:
        world = self.world
        return pointed(self.app, world.url, world.result, options=world.options, env=env)

    def _purge(self) -> None:
        """Workers of a later test shall not run what this one sent."""
        self.world.purge([*self.app.amqp.queues])


class _Holding:
    """A fault with a deadline, as a context manager. It is among `entered` until it is left."""

    def __init__(self, enter: Callable[[], Held], within: float, entered: list[_Holding]) -> None:
        self._enter = enter
        self._within = within
        self._entered = entered

    def __enter__(self) -> Held:
        __tracebackhide__ = True
        self.held = self._enter()
        self._found = ""
        self._watched = threading.get_ident()
        self._back = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="celery-health deadline", daemon=True)
        self._thread.start()
        self._entered.append(self)
        return self.held

    def end(self) -> None:
        """End the fault and its deadline. Doing it twice does no harm."""
        self._back.set()
        self._thread.join()
        self.held.end()
        if self in self._entered:
            self._entered.remove(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        if self not in self._entered:
            return
        self.end()
        if self._found and (error is None or isinstance(error, Exception)):
            then = "it came back" if error is None else f"it raised {mask(describe(error))}"
            # What it raises then is of our making.
            raise OverdueError(f"{self._found}, upon which {then}") from None

    def _watch(self) -> None:
        if self._back.wait(self._within):
            return
        frames = sys._current_frames()
        where = _where(frames.pop(self._watched, None), frames.values())
        self._found = (
            f"the code under test did not come back within {spell(self._within)} of {self.held}:"
            f" {where}; then the fault was ended, and its connections were reset"
        )
        try:
            self.held.end(cut=True)
        except SandboxError as error:
            self._found += f" ({error})"


def _call_of(holding: _Holding) -> str:
    held = holding.held
    if FAULTS.get(held.fault.name) is not held.fault:
        return "celery_faults(...)"
    return f"celery_faults.{held}" + ("" if held.arguments else "()")


def _where(frame: FrameType | None, others: Iterable[FrameType]) -> str:
    """Where it hung: in the user's code, and in what that called; where it waits for another of these
    threads, as a test client does, the same of that."""
    if frame is None:
        return "its thread is gone"
    said = f"it hung at {_both_places(frame)}"
    if not _waits(frame):
        return said
    busy = [_both_places(other) for other in others if _own(other) is not None and not _waits(other)]
    return f"{said}, and another thread at {busy[0]}" if busy else said


def _waits(frame: FrameType) -> bool:
    """Whether for another thread."""
    return frame.f_code.co_filename == threading.__file__


def _own(frame: FrameType | None) -> FrameType | None:
    """The innermost of the user's own."""
    while frame is not None and _is_foreign(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def _both_places(frame: FrameType) -> str:
    own, innermost = _own(frame), _place(frame)
    if own is None or own is frame:
        return innermost
    return f"{_place(own)}, in {innermost}"


def _is_foreign(file: str) -> bool:
    return file.startswith((*_LIBRARIES, _OURS, "<")) or "site-packages" in file


def _place(frame: FrameType) -> str:
    code = frame.f_code
    file = code.co_filename
    for folder in sorted((*_LIBRARIES, os.getcwd()), key=len, reverse=True):
        file = file.removeprefix(f"{folder}{os.sep}")
    return f"{file}:{frame.f_lineno} ({code.co_name})"
