"""Faults of the broker itself: workers and beat meet them too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pytest_celery_health.sandbox.faults.base import BACKEND, BEAT, BROKER, WHOLE_WORKER, Fault
from pytest_celery_health.sandbox.proxy import Way

if TYPE_CHECKING:
    from pytest_celery_health.sandbox.world import World


@contextmanager
def _restarts_empty(world: World) -> Iterator[None]:
    world.restart_broker()
    yield
    world.prove_way(BROKER)
    world.members.renew()


@contextmanager
def _fails_over(world: World) -> Iterator[None]:
    second = world.second_broker()
    with world.addressed(f"{world.url};{second}"), world.proxy(BROKER).going(Way(refuses=True)):
        yield
    world.prove_way(BROKER)


FAULTS: tuple[Fault, ...] = (
    Fault(
        "broker_restarts_empty",
        "The broker ended at once, and is back without anything that it held; workers are coming back to it.",
        _restarts_empty,
        (BROKER,),
        (BROKER, BACKEND, BEAT, *WHOLE_WORKER),
    ),
    Fault(
        "broker_fails_over",
        "The broker's URL is a failover list: the first refuses, the second is another broker, with as many"
        " workers as the first has by then.",
        _fails_over,
        (BROKER,),
        (BROKER,),
    ),
)
