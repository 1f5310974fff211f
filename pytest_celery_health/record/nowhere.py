"""A broker and a result backend that are nowhere: for a task that is run in this process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from celery import Celery, Task, _state
from celery.backends.base import DisabledBackend, KeyValueStoreBackend
from kombu import Connection
from kombu.pools import ProducerPool
from kombu.transport import memory, virtual


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


@contextmanager
def detached(app: Celery, task: Task) -> Iterator[None]:
    """Have `app` publish and store nowhere, and be the current app. Everything is put back."""
    named = app.backend_cls or app.conf.result_backend
    disabled = not named or str(named).startswith("disabled")
    backend = DisabledBackend(app=app) if disabled else _Results(app=app)
    connection = Connection("localhost", transport=_Transport)
    producers = ProducerPool(connection.Pool(limit=10), limit=10)
    with ExitStack() as stack:
        _swap(stack, app, "_backend_cache", backend)
        _swap(stack, app.amqp, "_producer_pool", producers)
        if task._backend is not None:
            _swap(stack, task, "_backend", backend)
        _swap(stack, _state._tls, "current_app", app)
        # As in a worker: waiting for a result within a task raises, where it would wait for ever.
        blocks = _state.task_join_will_block()
        _state._set_task_join_will_block(True)
        stack.callback(_state._set_task_join_will_block, blocks)
        stack.callback(producers.force_close_all)
        yield


def _swap(stack: ExitStack, owner: Any, name: str, value: object) -> None:
    own = vars(owner)
    if name in own:
        stack.callback(setattr, owner, name, own[name])
    else:
        stack.callback(delattr, owner, name)
    setattr(owner, name, value)
