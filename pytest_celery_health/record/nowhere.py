"""A broker and a result backend that are nowhere: for a task that is run in this process."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, ref

from celery import Celery, Task, _state
from celery.backends.base import DisabledBackend, KeyValueStoreBackend
from kombu import Connection
from kombu.pools import ProducerPool
from kombu.transport import memory, virtual

from pytest_celery_health.record.tap import Tap


class _Channel(memory.Channel):  # type: ignore[misc]
    """Takes every message, and keeps none."""

    queues: dict[str, Any] = {}  # noqa: RUF012 - kombu's own is shared with whoever uses memory://

    def _put(self, queue: str, message: object, **_: object) -> None:
        pass

    def _put_fanout(self, *_: object, **__: object) -> None:
        pass


class _Transport(memory.Transport):  # type: ignore[misc]
    Channel = _Channel
    global_state = virtual.BrokerState()


class _Results(KeyValueStoreBackend):  # type: ignore[misc]
    """Results in a dict, encoded as the app's own backend would."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self._kept: dict[Any, Any] = {}

    def get(self, key: Any) -> Any:
        return self._kept.get(key)

    def mget(self, keys: Any) -> list[Any]:
        return [self._kept.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> None:
        self._kept[key] = value

    def delete(self, key: Any) -> None:
        self._kept.pop(key, None)

    def incr(self, key: Any) -> int:
        self._kept[key] = int(self._kept.get(key) or 0) + 1
        return int(self._kept[key])

    def expire(self, key: Any, value: Any) -> None:
        pass


_taps: WeakKeyDictionary[Celery, Tap] = WeakKeyDictionary()


@contextmanager
def detached(app: Celery, task: Task) -> Iterator[None]:
    """Have `app` publish and store nowhere, and be the current app. Everything is put back."""
    tap = _taps.setdefault(app, Tap(functools.partial(_detach, ref(app))))
    current = _state._tls.current_app
    with tap.held(), _WAITING.held():
        if task._backend is not None:
            tap.change(task.name, lambda: _swap(task, "_backend", app.backend))
        _state._tls.current_app = app
        try:
            yield
        finally:
            _state._tls.current_app = current


def _detach(weak: ref[Celery], tap: Tap) -> None:
    app = weak()
    if app is None:
        return
    named = app.backend_cls or app.conf.result_backend
    disabled = not named or str(named).startswith("disabled")
    tap.change(
        "backend",
        lambda: _swap(app, "_backend_cache", DisabledBackend(app=app) if disabled else _Results(app=app)),
    )
    tap.change("producers", lambda: _swap(app.amqp, "_producer_pool", _producers()))


@functools.lru_cache(maxsize=1)
def _producers() -> ProducerPool:
    return ProducerPool(Connection("localhost", transport=_Transport).Pool(limit=10), limit=10)


def _wait_for_nothing(tap: Tap) -> None:
    """As in a worker: to wait for a result within a task raises, where it would wait for ever."""

    def do() -> Callable[[], None]:
        before = _state.task_join_will_block()
        _state._set_task_join_will_block(True)
        return functools.partial(_state._set_task_join_will_block, before)

    tap.change("join", do)


_WAITING = Tap(_wait_for_nothing)


def _swap(owner: Any, name: str, value: Any) -> Callable[[], None]:
    own = vars(owner)
    undo: Callable[[], None] = functools.partial(delattr, owner, name)
    if name in own:
        undo = functools.partial(setattr, owner, name, own[name])
    setattr(owner, name, value)
    return undo
