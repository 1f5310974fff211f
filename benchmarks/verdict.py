"""A verdict on workers: who they are and all that they say, against the guide's seven calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from celery import Celery

from benchmarks import scene
from benchmarks.measure import Row, Side, compare
from pytest_celery_health import AskWorkers, Unseen, WorkersAnswer, judge
from pytest_celery_health.observe.look import look
from pytest_celery_health.observe.target import Target

DETAILS = ("active", "reserved", "scheduled", "stats", "active_queues", "registered")
GOALS = {"Redis": 250.0, "RabbitMQ": 150.0}


def rows(kind: str, broker: str, rounds: int, fleet: int, times: int = 5) -> Iterator[Row]:
    """On one real worker, and on a fleet of simulated ones."""
    with scene.app(broker) as app, scene.worker(app) as name:
        sides = [
            Side("ours", ours(app, [name]), times),
            Side("the guide's 7 calls", guide(app, 1), warm=False),
            Side("7 calls with limit=1", limited(app, 1), times),
        ]
        yield compare(f"1 real worker, {kind}", sides, rounds, GOALS[kind])
        if kind == "RabbitMQ":
            sides[0] = Side("ours", ours(app, [name], named=False), times)
            yield compare(f"the same, its name not known, {kind}", sides, rounds)
    with scene.app(broker) as app, scene.fleet(app, fleet) as names:
        sides = [
            Side("ours", ours(app, names), times),
            Side("the guide's 7 calls", guide(app, fleet), warm=False),
            Side(f"7 calls with limit={fleet}", limited(app, fleet), times),
        ]
        yield compare(f"{fleet} simulated workers, {kind}", sides, rounds)


def ours(app: Celery, names: list[str], *, named: bool = True) -> Callable[[], object]:
    """One look with its own connection, and a judgement. On Redis nobody need know who the workers are."""
    target = Target("benchmark", app.conf.broker_url, control_exchange=app.conf.control_exchange)
    known = tuple(names) if named and app.conf.broker_url.startswith("amqp") else ()
    check = WorkersAnswer(at_least=len(names), names=known, pool_size=2)
    asks = [*check.asks(), AskWorkers(frozenset(DETAILS), frozenset(known), len(names))]

    def run() -> None:
        seen = look(target, asks, deadline=10).snapshot
        verdict = judge(check, seen)
        if not verdict.healthy:
            raise AssertionError(verdict.message())
        workers = seen.workers
        if isinstance(workers, Unseen):
            raise AssertionError(workers.why)
        for worker in workers.answered:
            for fact in (worker.active, worker.reserved, worker.scheduled, worker.queues, worker.tasks):
                if isinstance(fact, Unseen):
                    raise AssertionError(fact.why)

    return run


def guide(app: Celery, workers: int) -> Callable[[], object]:
    """`ping(timeout=5)`, then each call of `inspect()`: every one waits for its whole timeout."""

    def run() -> None:
        inspect = app.control.inspect()
        _counted(app.control.ping(timeout=5), workers)
        for detail in DETAILS:
            _counted(getattr(inspect, detail)(), workers)

    return run


def limited(app: Celery, workers: int) -> Callable[[], object]:
    """The same calls, told how many workers there are."""

    def run() -> None:
        inspect = app.control.inspect(limit=workers, timeout=5)
        _counted(app.control.ping(limit=workers, timeout=5), workers)
        for detail in DETAILS:
            _counted(getattr(inspect, detail)(), workers)

    return run


def _counted(answers: Any, workers: int) -> None:
    if len(answers or ()) != workers:
        raise AssertionError(f"{len(answers or ())} of {workers} workers answered")
