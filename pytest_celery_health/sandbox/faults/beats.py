"""Faults of beat."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_celery_health.sandbox import processes
from pytest_celery_health.sandbox.faults.base import BEAT, Fault

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.world import World

_SECOND = "beat2"


@contextmanager
def _stopped(world: World) -> Iterator[None]:
    world.members.stop([BEAT])
    yield
    world.members.start_beat()


@contextmanager
def _stalled(world: World) -> Iterator[None]:
    pids = world.members.pids(BEAT)
    processes.send(pids, signal.SIGSTOP)
    try:
        world.wait(lambda: all(processes.state(pid) == "T" for pid in pids), "beat is not frozen")
        yield
    finally:
        processes.send(pids, signal.SIGCONT)
    world.wait(lambda: not any(processes.state(pid) == "T" for pid in pids), "beat is still frozen")
    world.members.start_beat()


@contextmanager
def _twice(world: World) -> Iterator[None]:
    try:
        world.members.add_beat(_SECOND)
        yield
    finally:
        world.sandbox.end_workers(_SECOND)


FAULTS: tuple[Fault, ...] = (
    Fault("beat_stopped", "Beat has ended, and sends nothing.", _stopped, (BEAT,), (BEAT,)),
    Fault("beat_stalled", "Beat stands still (SIGSTOP), and sends nothing.", _stalled, (BEAT,), (BEAT,)),
    Fault(
        "beat_twice",
        "There are two beats, and each sends every entry of the schedule.",
        _twice,
        (BEAT,),
        (BEAT,),
    ),
)
