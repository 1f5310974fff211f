"""One freeze: who sees which moment, and what is changed in this process meanwhile."""

from __future__ import annotations

import copyreg
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any

from celery._state import get_current_task
from freezegun import api

from pytest_celery_health.clock import fakes
from pytest_celery_health.clock.who import is_of_project, sees_frozen_time
from pytest_celery_health.record.tap import Tap
from pytest_celery_health.record.threads import family


class _Factory(api.FrozenDateTimeFactory):
    """Ours among those of freezegun."""


class Freeze:
    """A moment that does not pass, from `begin` to `end`. Moments are naive, in UTC.

    also: modules and packages that see it too, as if they were the project's.
    """

    def __init__(self, moment: api.real_datetime, also: tuple[str, ...] = ()) -> None:
        self.also = also
        self._factory = _Factory(moment)
        self._stack = ExitStack()

    def begin(self) -> None:
        """Raises RuntimeError when a thread has frozen time of which this one knows nothing."""
        with _lock, ExitStack() as stack:
            if _freezes and not _is_member():
                raise RuntimeError("time is frozen already, by another thread")
            stack.enter_context(_TAP.held())
            _put_fakes(self.also)
            stack.enter_context(self._shown())
            self._stack = stack.pop_all()

    def end(self) -> None:
        """Doing it twice does no harm."""
        with _lock:
            self._stack.close()

    @property
    def has_ended(self) -> bool:
        return self not in _freezes

    @contextmanager
    def _shown(self) -> Iterator[None]:
        # On freezegun's own stack a freeze_time around or inside this one knows of it, and leaves what is
        # changed here as it is.
        api.tz_offsets.append(timedelta(0))
        api.ignore_lists.append(())
        api.tick_flags.append(False)
        api.freeze_factories.append(self._factory)
        _freezes.append(self)
        try:
            yield
        finally:
            _freezes.remove(self)
            where = [id(each) for each in api.freeze_factories].index(id(self._factory))
            for stack in (api.freeze_factories, api.tz_offsets, api.ignore_lists, api.tick_flags):
                del stack[where]

    @property
    def moment(self) -> api.real_datetime:
        return self._factory.time_to_freeze

    def move(self, moment: api.real_datetime) -> None:
        """Raises RuntimeError when a freeze_time of freezegun hides this freeze."""
        if not self.is_innermost:
            raise RuntimeError(
                "a freeze_time of freezegun is inside celery_clock's freeze, and is what is seen:"
                " move that one"
            )
        self._factory.time_to_freeze = moment

    @property
    def is_innermost(self) -> bool:
        return api.freeze_factories[-1:] == [self._factory]


_lock = threading.RLock()
_freezes: list[Freeze] = []
_families: list[set[threading.Thread]] = []
_lent = threading.local()


def _is_member() -> bool:
    """Whether this thread is of the code under test.

    It has frozen time, was started by one that is, does such a one's work in a pool, or runs a task.
    """
    for each in _families:
        if threading.current_thread() in each or getattr(_lent, "to", None) is each:
            return True
    return get_current_task() is not None


def _found() -> Callable[[], None]:
    stack = ExitStack()
    _families.append(stack.enter_context(family()))
    stack.callback(_families.clear)
    return stack.close


def _ask(frame: FrameType) -> tuple[api.real_datetime, bool] | None:
    # Any thread may ask, while another freezes or unfreezes.
    freeze, top = next(iter(_freezes[-1:]), None), next(iter(api.freeze_factories[-1:]), None)
    if freeze is None:
        # Somebody kept one of our fakes beyond the end.
        return None if top is None or isinstance(top, _Factory) else (top(), True)
    if top is None or not sees_frozen_time(frame, freeze.also) or not _is_member():
        return None
    return top(), not isinstance(top, _Factory)


fakes.answer_with(_ask)


def _lending(original: Callable[..., Any]) -> Callable[..., Any]:
    """What the code under test hands to a pool is of it, however long the pool's threads have been there."""

    def submit(pool: ThreadPoolExecutor, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not _families or not _is_member():
            return original(pool, work, *args, **kwargs)
        to = _families[0]

        def lent(*args: Any, **kwargs: Any) -> Any:
            before = getattr(_lent, "to", None)
            _lent.to = to
            try:
                return work(*args, **kwargs)
            finally:
                _lent.to = before

        return original(pool, lent, *args, **kwargs)

    return submit


def _taking_along(original: Callable[[Any], None]) -> Callable[[Any], None]:
    """A freeze_time that ends, as that of a decorator does before fixtures do, ends the freezes inside it."""

    def stop(freeze_time: Any) -> None:
        while _freezes and _freezes[-1].is_innermost:
            _freezes[-1].end()
        original(freeze_time)

    return stop


_FAKES = {id(old): fake for fake, *olds in fakes.STANDS_FOR for old in olds if old is not None}
_GO_ON = {id(stopped): real for real, stopped in fakes.GO_ON}
_ORIGINALS = {id(fake): (real, freezeguns) for fake, real, freezeguns in fakes.STANDS_FOR}
_REAL_ONES = {id(real) for _, real, _ in fakes.STANDS_FOR}
#: They keep the originals.
_KEEPERS = {"freezegun.api", "_datetime", "_pydatetime", fakes.__name__}


def _install(tap: Tap) -> None:
    tap.change("left behind", lambda: _clean)
    tap.change("pickle", _pickle_as_ever)
    tap.change("family", _found)
    tap.patch(ThreadPoolExecutor, "submit", _lending)
    tap.patch(type(api.freeze_time()), "stop", _taking_along)


_TAP = Tap(_install)


def _put_fakes(also: tuple[str, ...]) -> None:
    for module, namespace in _namespaces():
        spared = None
        for name, value in list(namespace.items()):
            instead = _FAKES.get(id(value), _GO_ON.get(id(value)))
            if instead is None:
                continue
            if spared is None:
                spared = is_of_project(namespace, also) is False
            if not spared or id(value) not in _REAL_ONES:
                _TAP.change((module, name), partial(_put, namespace, name, instead))


def _namespaces() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, module in list(sys.modules.items()):
        if name not in _KEEPERS and isinstance(getattr(module, "__dict__", None), dict):
            yield name, vars(module)


def _put(namespace: dict[str, Any], name: str, value: object) -> Callable[[], None]:
    before = namespace[name]
    namespace[name] = value

    def undo() -> None:
        # Whoever replaced it after us puts it back after us.
        if namespace.get(name) is value:
            namespace[name] = before

    return undo


def _clean() -> None:
    """Take our fakes out of the modules that were imported meanwhile."""
    for _, namespace in _namespaces():
        for name, value in list(namespace.items()):
            if id(value) in _ORIGINALS:
                real, freezeguns = _ORIGINALS[id(value)]
                namespace[name] = freezeguns if api.freeze_factories and freezeguns else real


def _pickle_as_ever() -> Callable[[], None]:
    table: dict[type, Any] = copyreg.dispatch_table
    ours: dict[type, Any] = {api.real_datetime: fakes.reduce_datetime, api.real_date: fakes.reduce_date}
    before = {kind: table.get(kind) for kind in ours}
    table.update(ours)

    def undo() -> None:
        for kind, reduce in before.items():
            if reduce is None:
                del table[kind]
            else:
                table[kind] = reduce

    return undo
