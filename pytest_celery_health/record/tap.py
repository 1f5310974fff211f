"""Changes of this process that are there while somebody listens, and are put back after the last one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypedDict

from celery._state import get_current_task

from pytest_celery_health.observe.clock import monotonic
from pytest_celery_health.record.recording import Entry

Emit = Callable[[Entry], None]
_MISSING = object()


class Where(TypedDict):
    """The fields that all entries have in common."""

    at: float
    process: str
    pid: int
    task: str
    task_id: str


class Tap:
    """Something that is overheard.

    install: makes the changes that are not made yet, with `self.patch`; it is called for every holder, so
    that a module imported meanwhile is not missed.
    """

    def __init__(self, install: Callable[[Tap], None]) -> None:
        self._install = install
        self._lock = threading.RLock()
        self._holders = 0
        self._listeners: tuple[Emit, ...] = ()
        self._undo: dict[object, Callable[[], None]] = {}
        self._made: list[object] = []
        self._main = os.getpid()

    @contextmanager
    def listen(self, emit: Emit) -> Iterator[None]:
        """Have every entry given to `emit`, which may be called by any thread."""
        with self.held():
            with self._lock:
                self._listeners = (*self._listeners, emit)
            try:
                yield
            finally:
                with self._lock:
                    listeners = list(self._listeners)
                    listeners.remove(emit)
                    self._listeners = tuple(listeners)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Make the changes, though nobody listens yet."""
        with self._lock:
            if not self._holders:
                self._main = os.getpid()
            self._holders += 1
            try:
                self._install(self)
            except BaseException:
                self._leave()
                raise
        try:
            yield
        finally:
            with self._lock:
                self._leave()

    def _leave(self) -> None:
        self._holders -= 1
        if not self._holders:
            for undo in reversed(list(self._undo.values())):
                undo()
            self._undo.clear()
            self._made.clear()

    @property
    def is_held(self) -> bool:
        """Whether the changes are there: one that somebody kept beyond their end must do nothing."""
        return self._holders > 0

    @property
    def heard(self) -> bool:
        """Whether anybody listens, so that there is something to tell."""
        return bool(self._listeners)

    def emit(self, entry: Entry) -> None:
        for emit in self._listeners:
            emit(entry)

    def change(self, key: object, do: Callable[[], Callable[[], None]]) -> None:
        """Make a change once; `do` returns what undoes it."""
        with self._lock:
            if key not in self._undo:
                self._undo[key] = do()

    def patch(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace an attribute by what `make` makes of it, above whoever has replaced it meanwhile."""
        current = getattr(owner, name)
        if current in self._made:
            return
        own = vars(owner).get(name, _MISSING)
        made = make(current)
        setattr(owner, name, made)
        self._made.append(made)

        def undo() -> None:
            if vars(owner).get(name) is not made:
                return  # whoever replaced it after us puts it back after us
            if own is _MISSING:
                delattr(owner, name)
            else:
                setattr(owner, name, own)

        self._undo[made] = undo

    def where(self, at: float | None = None) -> Where:
        """Here and now, or at another moment."""
        pid = os.getpid()
        task = get_current_task()
        request = None if task is None else task.request
        return {
            "at": monotonic() if at is None else at,
            "process": "main" if pid == self._main else "child",
            "pid": pid,
            "task": "" if task is None else str(task.name),
            "task_id": str(getattr(request, "id", None) or ""),
        }
