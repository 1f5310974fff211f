"""Faults of workers: of all of them, or of the one that is named by `worker`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from pytest_celery_health.sandbox import processes
from pytest_celery_health.sandbox.faults.base import (
    CLOCK,
    CONSUMERS,
    POOL,
    PREFORK,
    WHOLE_WORKER,
    WORKERS,
    Fault,
    FaultError,
)
from pytest_celery_health.sandbox.faults.rig_files import QUEUES

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.world import World

OTHER_QUEUE = f"{QUEUES}other"


@contextmanager
def _no_workers(world: World) -> Iterator[None]:
    world.members.stop(world.members.names(""))
    yield
    _prove(world, "")


@contextmanager
def _killed(world: World, worker: str = "") -> Iterator[None]:
    members = world.members
    names = members.names(worker)
    for name in names:
        main, *below = members.pids(name)
        members.all[name].orphans = below
        processes.send([main], signal.SIGKILL)
    world.wait(lambda: not any(members.pids(name) for name in names), "killed workers are still there")
    yield
    _prove(world, worker)


@contextmanager
def _frozen(world: World, worker: str = "") -> Iterator[None]:
    stopped: list[int] = []
    with _stopping(world, stopped):
        for name in world.members.names(worker):
            main = world.members.pids(name)[:1]
            processes.send(main, signal.SIGSTOP)  # first, or it would see its children stop
            below = world.members.pids(name)[1:]
            processes.send(below, signal.SIGSTOP)
            stopped += [*main, *below]
        _await_stop(world, stopped)
        yield
    _prove(world, worker)


@contextmanager
def _stopping(world: World, stopped: list[int]) -> Iterator[None]:
    """Have what is in `stopped` at the end go on."""
    try:
        yield
    finally:
        processes.send(stopped[::-1], signal.SIGCONT)
    world.wait(lambda: not any(processes.state(pid) == "T" for pid in stopped), "it is still frozen")


def _await_stop(world: World, pids: list[int]) -> None:
    world.wait(lambda: all(processes.state(pid) in ("T", "") for pid in pids), "it is not frozen")


@contextmanager
def _not_consuming(world: World, worker: str = "") -> Iterator[None]:
    with _consuming(world, worker, ()):
        yield
    _prove(world, worker)


@contextmanager
def _other_queue(world: World, worker: str = "", queue: str = OTHER_QUEUE) -> Iterator[None]:
    with _consuming(world, worker, (queue,)):
        yield
    world.members.delete(queue)
    _prove(world, worker)


@contextmanager
def _consuming(world: World, worker: str, other: tuple[str, ...]) -> Iterator[None]:
    """Have workers consume other queues than theirs."""
    members = world.members
    with ExitStack() as stack:
        for name in members.names(worker):
            own = members.all[name].queues
            if set(own) & set(other):
                raise FaultError(
                    f"other_queue: {name} consumes {', '.join(other)} already; name another queue"
                )
            stack.callback(members.consume, name, add=own, cancel=other)
            members.consume(name, add=other, cancel=own)
        yield


@contextmanager
def _pool_saturated(world: World, worker: str = "") -> Iterator[None]:
    members = world.members
    with ExitStack() as stack:
        for name in members.names(worker):
            if members.all[name].kind == "solo":
                raise FaultError(f"pool_saturated: {name} has the pool solo; hold worker_busy_solo")
            stack.enter_context(members.busy(name, members.look(name)["size"]))
        yield
    _prove(world, worker)


@contextmanager
def _pool_child_frozen(world: World, worker: str = "") -> Iterator[None]:
    stopped: list[int] = []
    with _stopping(world, stopped):
        stopped += _children(world, worker)
        processes.send(stopped, signal.SIGSTOP)
        _await_stop(world, stopped)
        yield
    _prove(world, worker)


@contextmanager
def _pool_child_killed(world: World, worker: str = "") -> Iterator[None]:
    members = world.members
    with ExitStack() as stack:
        for name in members.names(worker):
            stack.enter_context(members.busy(name, members.look(name)["size"]))
        children = _children(world, worker)
        processes.send(children, signal.SIGKILL)
        world.wait(lambda: not any(map(processes.alive, children)), "killed processes are still there")
        yield
        for name in members.names(worker):
            with suppress(Exception):
                members.ask(name, do="turn")  # or Celery looks after its pool in five seconds
    _prove(world, worker)


def _children(world: World, worker: str) -> list[int]:
    return [pid for name in world.members.names(worker) for pid in world.members.look(name)["children"]]


@contextmanager
def _clock_skewed(world: World, seconds: float = 600.0, worker: str = "") -> Iterator[None]:
    names = world.members.names(worker)
    for name in names:
        world.members.ask(name, do="skew", seconds=seconds)
    yield
    for name in names:
        world.members.ask(name, do="skew", seconds=0.0)
    _prove(world, worker)


@contextmanager
def _busy_solo(world: World) -> Iterator[None]:
    from pytest_celery_health.sandbox.members import Member

    usual = world.members.all.values()
    with ExitStack() as stack:
        if any(each.kind != "solo" for each in usual):
            solo = [Member(each.name, "solo", 1, each.queues) for each in usual]
            stack.enter_context(world.members.instead(*solo))
        for name in world.members.names(""):
            stack.enter_context(world.members.busy(name, 1))
        yield
    _prove(world, "")


@contextmanager
def _warm_shutdown(world: World, worker: str = "") -> Iterator[None]:
    members = world.members
    names = members.names(worker)

    def stops(name: str) -> bool:
        seen = members.look(name)
        # A solo worker's task is in the way of all that it does about it.
        return bool(seen["told to stop"] if members.all[name].kind == "solo" else seen["stopped"])

    with ExitStack() as stack:
        for name in names:
            stack.enter_context(members.busy(name, 1))
        for name in names:
            world.sandbox.signal(name, signal.SIGTERM)
        world.wait(lambda: all(map(stops, names)), "a worker does not shut down")
        yield
    world.wait(lambda: not any(members.pids(name) for name in names), "the shutdown does not end")
    _prove(world, worker)


def _prove(world: World, worker: str) -> None:
    names = world.members.names(worker)
    world.members.restart(*names)  # one may have ended of it
    for name in names:
        world.members.prove_worker(name)


_ONE = (WORKERS,)

FAULTS: tuple[Fault, ...] = (
    Fault(
        "no_workers",
        "All workers have shut down in order, and are gone.",
        _no_workers,
        _ONE,
        WHOLE_WORKER,
    ),
    Fault(
        "worker_killed",
        "Each worker's main process was killed with SIGKILL, and left its children.",
        _killed,
        _ONE,
        WHOLE_WORKER,
    ),
    Fault(
        "worker_frozen",
        "Each worker with its children stands still (SIGSTOP), as on a machine that hangs.",
        _frozen,
        _ONE,
        WHOLE_WORKER,
    ),
    Fault(
        "warm_shutdown",
        "Each worker was told to end (SIGTERM), takes nothing more, and waits for a task that does not end.",
        _warm_shutdown,
        _ONE,
        WHOLE_WORKER,
    ),
    Fault(
        "worker_busy_solo",
        "Each worker is one with the pool solo, whose only process is busy with a task and answers nothing.",
        _busy_solo,
        _ONE,
        WHOLE_WORKER,
    ),
    Fault(
        "not_consuming",
        "Each worker answers and consumes no queue, as after a lost consumer or `control.cancel_consumer`.",
        _not_consuming,
        _ONE,
        (CONSUMERS,),
    ),
    Fault(
        "other_queue",
        f"Each worker answers and consumes `queue` ({OTHER_QUEUE}) instead of its own.",
        _other_queue,
        _ONE,
        (CONSUMERS,),
    ),
    Fault(
        "pool_saturated",
        "All slots of each worker's pool are taken by tasks that do not end.",
        _pool_saturated,
        _ONE,
        (POOL,),
    ),
    Fault(
        "pool_child_frozen",
        "Each process of each worker's pool stands still (SIGSTOP); the main process answers.",
        _pool_child_frozen,
        (WORKERS, PREFORK),
        (POOL,),
    ),
    Fault(
        "pool_child_killed",
        "Each process of each worker's pool was killed with SIGKILL in a task; Celery starts others.",
        _pool_child_killed,
        (WORKERS, PREFORK),
        (POOL,),
    ),
    Fault(
        "clock_skewed",
        "Each worker's wall clock is `seconds` ahead (600; negative: behind), in `time_start` and in events.",
        _clock_skewed,
        _ONE,
        (CLOCK,),
    ),
)
