"""What is rigged in the workers of a world: a task that keeps them busy, and a door for what faults do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from celery.bootsteps import TERMINATE
from celery.worker import state

from pytest_celery_health.project.loaded import loaded
from pytest_celery_health.sandbox.children.child import Task
from pytest_celery_health.sandbox.children.door import serve
from pytest_celery_health.sandbox.children.loop import Loop
from pytest_celery_health.sandbox.faults.rig_files import BUSY_TASK, door

if TYPE_CHECKING:
    from celery import Celery

#: Seconds after which a task that keeps a worker busy returns all the same.
_BOUND = 600.0
_TICK = 0.01


def rig(app: Celery, task: Task, own: Iterable[Callable[..., None]]) -> None:  # noqa: ARG001
    """To be called when the app is loaded, before its worker starts."""
    busy = app.task(name=BUSY_TASK, shared=False, ignore_result=True)(_busy)
    # Whatever the app's settings and annotations make of tasks in general.
    for name, value in {
        "acks_late": False,
        "rate_limit": None,
        "time_limit": 2 * _BOUND,
        "soft_time_limit": 2 * _BOUND,
    }.items():
        setattr(busy, name, value)
    serve(door(task.folder, task.name), partial(_answer, Loop()))
    task.tell("rigged", serializer=app.conf.task_serializer)


def _busy(began: str, until: str) -> None:
    """Say so in a file, and run until another is there."""
    with Path(began).open("a") as file:
        file.write(".")
    over = time.monotonic() + _BOUND
    while not Path(until).exists() and time.monotonic() < over:
        time.sleep(_TICK)


def _answer(loop: Loop, ask: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"done": _DO[ask.pop("do")](loop, **ask)}
    except Exception as error:  # noqa: BLE001 - it is the asker's to know
        return {"error": f"{type(error).__name__}: {error}"}


def _look(loop: Loop) -> dict[str, Any] | None:
    """What its main process knows of itself; None until it is ready."""
    consumer = loop.consumer
    if consumer is None:
        return None
    pool = getattr(loop.pool, "_pool", None)
    processes = getattr(pool, "_pool", None)
    tasks = consumer.task_consumer
    return {
        "pool": type(loop.pool).__module__.rpartition(".")[2],
        "children": [each.pid for each in processes or () if each.exitcode is None],
        "size": _size(loop.pool),
        "queues": sorted(queue.name for queue in tasks.queues) if tasks is not None else [],
        "told to stop": state.should_stop is not None and state.should_stop is not False,
        "stopped": consumer.blueprint.state == TERMINATE,
        "busy": [request.id for request in list(state.active_requests) if request.name == BUSY_TASK],
    }


def _size(pool: Any) -> int:
    """How many tasks it runs at once: none when it has stopped."""
    try:
        return int(pool.num_processes or 1)
    except AttributeError:
        return 0


def _consume(loop: Loop, add: list[str], cancel: list[str]) -> bool:
    """Whether it consumes other queues now: not while it comes back to its broker."""
    changed = False

    def change() -> None:
        nonlocal changed
        with suppress(Exception):  # of a connection that is lost: the loop will see that for itself
            for queue in cancel:
                loop.consumer.cancel_task_queue(queue)
            for queue in add:
                loop.consumer.add_task_queue(queue)
            changed = True

    ready = loop.consumer is not None and loop.consumer.task_consumer is not None
    return ready and loop.calls(change) and changed


def _turn(loop: Loop) -> bool:
    """Have its main process look after its pool."""
    return loop.consumer is not None and loop.turns()


_real = time.time
_ahead = 0.0


def _skewed() -> float:
    return _real() + _ahead


def _skew(_: Loop, seconds: float) -> bool:
    """Have this process see a wall clock that is so far ahead: whoever has `time.time`, by whatever name."""
    global _ahead
    _ahead = seconds
    old, new = (_real, _skewed) if seconds else (_skewed, _real)
    for module in loaded():
        if module.__name__ == __name__:
            continue
        for name, value in list(vars(module).items()):
            if value is old:
                setattr(module, name, new)
            elif isinstance(value, FunctionType) and any(each is old for each in value.__defaults__ or ()):
                value.__defaults__ = tuple(new if each is old else each for each in value.__defaults__ or ())
    return True


_DO: dict[str, Callable[..., Any]] = {"look": _look, "consume": _consume, "turn": _turn, "skew": _skew}
